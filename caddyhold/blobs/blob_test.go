package blobs_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
)

func TestDigestGrammar(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 4)
	if d, err := blobs.ParseDigest("sha256:" + good); err != nil || d.Hex() != good {
		t.Errorf("a good digest: %q, %v", d, err)
	}
	if key := blobs.Key(blobs.Digest("sha256:" + good)); key != "docker/registry/v2/blobs/sha256/01/"+good+"/data" {
		t.Errorf("key %q", key)
	}
	for _, bad := range []string{"", good, "sha256:", "sha256:" + good[1:], "sha256:" + good + "0", "sha512:" + good, "SHA256:" + good,
		"sha256:" + strings.ToUpper(good), "sha256:" + good[:62] + "/.", "sha256:" + good + "\n", " sha256:" + good, "uploads/temp-1"} {
		if _, err := blobs.ParseDigest(bad); !errors.Is(err, blobs.ErrInvalidDigest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("sha256:" + strings.Repeat("../", 21) + "x")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := blobs.ParseDigest(s)
		if err != nil {
			return
		}
		if string(d) != s || filepath.Clean(blobs.Key(d)) != blobs.Key(d) || strings.Contains(blobs.Key(d), "..") {
			t.Errorf("%q gives %q at %q", s, d, blobs.Key(d))
		}
	})
}

func (h *hold) putObject(d blobs.Digest, content []byte) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path(d)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path(d), content, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func TestObjectOfAnotherRegistryIsHashedBeforeItIsTrusted(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		good, rotten := bytesOf(3<<20, 20), bytesOf(2<<20, 21)
		h.putObject(digestOf(good), good)
		h.putObject(digestOf(rotten), append([]byte("x"), rotten[1:]...))
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if _, err := h.Stat(t.Context(), digestOf(good)); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		h.expectBlob(good)
		h.expectNone(digestOf(rotten))
		if usage, _ := h.Usage(); usage != (blobs.Usage{Blobs: 1, Bytes: 3 << 20}) {
			t.Errorf("usage %+v", usage)
		}
		if has, _ := h.UploadedBy(digestOf(good), alice); has {
			t.Error("nobody has uploaded it")
		}
		h.push(alice, rotten)
		h.expectBlob(rotten)
	})
}

func TestJunkDoesNotReplaceAnObjectThatIsNotYetKnown(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(3<<20, 22)
		h.putObject(digestOf(content), content)
		id, parts := h.upload(bob, []byte("junk"), 100)
		if _, err := h.Complete(t.Context(), bob, id, digestOf(content), parts, false); !errors.Is(err, blobs.ErrDigestMismatch) {
			t.Errorf("completing with junk: %v", err)
		}
		h.expectBlob(content)
	})
}

func TestBlobWhoseObjectIsGoneCanBePushedAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		for name, harm := range map[string]func(file string) error{
			"deleted":  os.Remove,
			"cut":      func(file string) error { return os.Truncate(file, 5) },
			"replaced": func(file string) error { return os.WriteFile(file, []byte("x"), 0o600) },
		} {
			content := []byte("content that is " + name)
			d := h.push(alice, content)
			if err := harm(h.path(d)); err != nil {
				t.Fatal(err)
			}
			if err := h.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), d); !errors.Is(err, blobs.ErrBlobNotFound) {
				t.Errorf("%s: serving: %v", name, err)
			}
			h.push(alice, content)
			h.expectBlob(content)
			if err := harm(h.path(d)); err != nil {
				t.Fatal(err)
			}
			h.push(bob, content) // without anybody noticing before
			h.expectBlob(content)
		}
		if usage, _ := h.Usage(); usage.Blobs != 3 {
			t.Errorf("usage %+v", usage)
		}
	})
}

func TestServedBlob(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(1<<20, 23)
		d := h.push(alice, content)
		etag := `"` + string(d) + `"`
		for name, c := range map[string]struct {
			method string
			header map[string]string
			status int
			body   []byte
			length string
		}{
			"all":                {http.MethodGet, nil, 200, content, "1048576"},
			"head":               {http.MethodHead, nil, 200, nil, "1048576"},
			"range":              {http.MethodGet, map[string]string{"Range": "bytes=100-199"}, 206, content[100:200], "100"},
			"from":               {http.MethodGet, map[string]string{"Range": "bytes=1048570-"}, 206, content[1048570:], "6"},
			"last":               {http.MethodGet, map[string]string{"Range": "bytes=-6"}, 206, content[1048570:], "6"},
			"beyond":             {http.MethodGet, map[string]string{"Range": "bytes=1048576-"}, 416, []byte("invalid range: failed to overlap\n"), ""},
			"if range":           {http.MethodGet, map[string]string{"Range": "bytes=0-0", "If-Range": etag}, 206, content[:1], "1"},
			"if range of others": {http.MethodGet, map[string]string{"Range": "bytes=0-0", "If-Range": `"x"`}, 200, content, "1048576"},
			"not modified":       {http.MethodGet, map[string]string{"If-None-Match": etag}, 304, nil, ""},
			"other etag":         {http.MethodGet, map[string]string{"If-None-Match": `"x"`}, 200, content, "1048576"},
		} {
			t.Run(name, func(t *testing.T) {
				r := httptest.NewRequest(c.method, "/", nil)
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
				w := httptest.NewRecorder()
				if err := h.Serve(w, r, d); err != nil {
					t.Fatal(err)
				}
				if w.Code != c.status || !bytes.Equal(w.Body.Bytes(), c.body) || w.Header().Get("Content-Length") != c.length {
					t.Errorf("%d with %d bytes, length %q", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
				}
				if c.status > 206 {
					return
				}
				for name, want := range map[string]string{
					"ETag": etag, "Docker-Content-Digest": string(d), "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes",
					"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=31536000, immutable, no-transform",
				} {
					if got := w.Header().Get(name); got != want {
						t.Errorf("%s: %q", name, got)
					}
				}
			})
		}
		w := httptest.NewRecorder()
		w.Header().Set("Cache-Control", "public")
		if err := h.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), d); err != nil || w.Header().Get("Cache-Control") != "public" {
			t.Errorf("the caller's Cache-Control: %q, %v", w.Header().Get("Cache-Control"), err)
		}
	})
}

func TestSignedURLsAllowWhatTheySayUntilTheyExpire(t *testing.T) {
	h := onDisk(t)
	d := h.push(alice, []byte("blob"))
	other := h.push(alice, []byte("other"))
	id := h.initiate(alice)
	query := func(signed string) url.Values {
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		return u.Query()
	}
	get, err := h.URL(t.Context(), d, http.MethodGet)
	if err != nil {
		t.Fatal(err)
	}
	head, err := h.URL(t.Context(), d, http.MethodHead)
	if err != nil {
		t.Fatal(err)
	}
	target, err := h.PartURL(t.Context(), alice, id, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.URL(t.Context(), d, http.MethodPut); err == nil {
		t.Error("a URL for PUT was made")
	}
	changed := func(q url.Values, name, value string) url.Values {
		q.Set(name, value)
		return q
	}
	far := "32503680000"
	check := func() map[string]error {
		errs := map[string]error{
			"GET":             h.VerifyBlobURL(http.MethodGet, d, query(get)),
			"HEAD":            h.VerifyBlobURL(http.MethodHead, d, query(head)),
			"HEAD with GET's": h.VerifyBlobURL(http.MethodHead, d, query(get)),
		}
		owner, upload, part, err := h.VerifyPartURL(query(target.URL))
		errs["part"] = err
		if err == nil && (owner != alice || upload != id || part != 7) {
			t.Errorf("the part URL is for %s, %s, %d", owner, upload, part)
		}
		return errs
	}
	for name, err := range check() {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, _, partExpires := h.VerifyPartURL(changed(query(target.URL), "expires", far))
	_, _, _, partNumber := h.VerifyPartURL(changed(query(target.URL), "partNumber", "8"))
	_, _, _, partUpload := h.VerifyPartURL(changed(query(target.URL), "uploadId", h.initiate(bob)))
	_, _, _, partOfBlob := h.VerifyPartURL(query(get))
	_, _, _, empty := h.VerifyPartURL(nil)
	for name, err := range map[string]error{
		"GET with HEAD's":     h.VerifyBlobURL(http.MethodGet, d, query(head)),
		"other digest":        h.VerifyBlobURL(http.MethodGet, other, query(get)),
		"other expiry":        h.VerifyBlobURL(http.MethodGet, d, changed(query(get), "expires", far)),
		"no signature":        h.VerifyBlobURL(http.MethodGet, d, changed(query(get), "sig", "")),
		"other signature":     h.VerifyBlobURL(http.MethodGet, d, changed(query(get), "sig", query(head).Get("sig"))),
		"part's for blob":     h.VerifyBlobURL(http.MethodGet, d, query(target.URL)),
		"empty":               h.VerifyBlobURL(http.MethodGet, d, nil),
		"part, other expiry":  partExpires,
		"part, other number":  partNumber,
		"part, other upload":  partUpload,
		"part, blob's URL":    partOfBlob,
		"part, without query": empty,
	} {
		if !errors.Is(err, blobs.ErrBadSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.restart()
	h.clock.pass(15*time.Minute - time.Second)
	for name, err := range check() {
		if err != nil {
			t.Errorf("%s a second before the end: %v", name, err)
		}
	}
	h.clock.pass(time.Second)
	for name, err := range check() {
		if !errors.Is(err, blobs.ErrBadSignature) {
			t.Errorf("%s at the end: %v", name, err)
		}
	}
}

func TestURLsBearTheConfiguredBases(t *testing.T) {
	h := onDisk(t)
	d := h.push(alice, []byte("blob"))
	id := h.initiate(alice)
	s := blobs.New(blobs.Config{
		Store: h.store, Driver: h.driver(), Presign: true, URLLifetime: time.Hour,
		BaseURL: "https://hold.example/", UploadURL: "http://up.hold.example:8081", DID: "did:web:hold.example",
	})
	got, err := s.URL(t.Context(), d, http.MethodGet)
	if err != nil {
		t.Fatal(err)
	}
	if want := "https://hold.example/xrpc/com.atproto.sync.getBlob?cid=sha256%3A" + d.Hex() + "&did=did%3Aweb%3Ahold.example&expires=1777640400&sig="; !strings.HasPrefix(got, want) {
		t.Errorf("URL %s, want %s…", got, want)
	}
	target, err := s.PartURL(t.Context(), alice, id, 1)
	if err != nil {
		t.Fatal(err)
	}
	if want := "http://up.hold.example:8081/xrpc/io.atcr.hold.uploadPart?expires=1777640400&partNumber=1&sig="; !strings.HasPrefix(target.URL, want) || target.Method != http.MethodPut || target.Headers == nil {
		t.Errorf("part URL %+v, want %s…", target, want)
	}
	if s.Direct() {
		t.Error("a directory cannot be reached directly")
	}
}

// Only the storage itself can say that a blob is gone: its row stays while the bucket is gone,
// or something before it answers.
func TestMissingBucketDropsNoBlob(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"the bucket is gone": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>`)
		},
		"a proxy knows no way": http.NotFound,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := kinds["s3 proxied"](t)
			var away atomic.Bool
			config := bucketConfig(h.bucket)
			config.Endpoint = h.bucket.Proxy(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if away.Load() {
						fault(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			driver, err := s3.New(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			h.Service = blobs.New(blobs.Config{Store: h.store, Driver: driver, BaseURL: h.server.URL})
			content := bytesOf(100, 9)
			d, id := h.push(alice, content), h.initiate(alice)

			away.Store(true)
			if err := h.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), d); !errors.Is(err, blobs.ErrUnavailable) {
				t.Errorf("serving: %v", err)
			}
			if _, err := h.Complete(t.Context(), alice, id, d, nil, true); !errors.Is(err, blobs.ErrUnavailable) {
				t.Errorf("completing an upload of the blob: %v", err)
			}
			if _, err := h.Stat(t.Context(), digestOf([]byte("another"))); !errors.Is(err, blobs.ErrUnavailable) {
				t.Errorf("asking for a blob that is not known: %v", err)
			}
			if usage, err := h.Usage(); err != nil || usage.Blobs != 1 {
				t.Errorf("%+v, %v, want the blob", usage, err)
			}
			away.Store(false)
			if err := os.Remove(h.path(d)); err != nil {
				t.Fatal(err)
			}
			if err := h.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), d); !errors.Is(err, blobs.ErrBlobNotFound) {
				t.Errorf("serving what the storage says is gone: %v", err)
			}
		})
	}
}
