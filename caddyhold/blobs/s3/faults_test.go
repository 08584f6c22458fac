package s3_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

const uploadID = "00112233445566778899aabbccddeeff"

func open(t testing.TB, bucket *peer.S3, cfg s3.Config) *s3.Driver {
	t.Helper()
	cfg.Bucket, cfg.Region, cfg.AccessKey, cfg.SecretKey = bucket.Bucket, bucket.Region, bucket.AccessKey, bucket.SecretKey
	if cfg.Endpoint == "" {
		cfg.Endpoint = bucket.Endpoint
	}
	d, err := s3.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// push takes content all the way to its key.
func push(t *testing.T, d *s3.Driver, id string, content []byte) error {
	t.Helper()
	ctx := t.Context()
	handle, err := d.Begin(ctx, id)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	u := blobs.Upload{ID: id, Handle: handle}
	var parts []blobs.Part
	for start := 0; start < len(content); start += 5 << 20 {
		piece := content[start:min(start+5<<20, len(content))]
		etag, err := d.WritePart(ctx, u, len(parts)+1, onlyReader{bytes.NewReader(piece)}, int64(len(piece)))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		parts = append(parts, blobs.Part{Number: len(parts) + 1, ETag: etag})
	}
	object, err := d.Assemble(ctx, u, parts)
	if err != nil {
		return fmt.Errorf("assemble: %w", err)
	}
	if object.Size != int64(len(content)) {
		return fmt.Errorf("assembled %d bytes of %d", object.Size, len(content))
	}
	if err := d.Verify(ctx, u, object, digestOf(content)); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	wrong := digestOf(append([]byte("x"), content...))
	if _, err := d.Place(ctx, u, object, wrong); !errors.Is(err, blobs.ErrDigestMismatch) {
		return fmt.Errorf("placing under a wrong digest: %w", err)
	}
	if _, err := d.Stat(ctx, blobs.Key(wrong)); !errors.Is(err, blobs.ErrBlobNotFound) {
		return fmt.Errorf("there is an object under the wrong digest: %w", err)
	}
	key, err := d.Place(ctx, u, object, digestOf(content))
	if err != nil {
		return fmt.Errorf("place: %w", err)
	}
	if key != blobs.Key(digestOf(content)) {
		return fmt.Errorf("placed at %s", key)
	}
	return d.Discard(ctx, u)
}

func expectStored(t *testing.T, d *s3.Driver, content []byte) {
	t.Helper()
	object, err := d.Open(t.Context(), blobs.Key(digestOf(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	got, err := io.ReadAll(object)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d bytes of %d: %v", len(got), len(content), err)
	}
}

func expectOnlyBlobs(t *testing.T, bucket *peer.S3, prefix string) {
	t.Helper()
	staged, _ := filepath.Glob(filepath.Join(bucket.Dir, prefix, filepath.FromSlash(blobs.StagingPrefix), "*"))
	uploads, _ := filepath.Glob(filepath.Join(bucket.Dir, ".sgwtmp", "multipart", "*", "*"))
	if len(staged)+len(uploads) > 0 {
		t.Errorf("left in the bucket: %v %v", staged, uploads)
	}
}

// Servers differ and networks fail; each of these keeps pushes right.
func TestPushSurvives(t *testing.T) {
	for name, wrap := range map[string]func(next http.Handler) http.Handler{
		"nothing special":               func(next http.Handler) http.Handler { return next },
		"SlowDown now and then":         sometimes(3, answer(http.StatusServiceUnavailable, "SlowDown"), func(r *http.Request) bool { return r.Method != http.MethodPut || isAnyCopy(r) }),
		"500 now and then":              sometimes(3, answer(http.StatusInternalServerError, "InternalError"), func(r *http.Request) bool { return r.Method != http.MethodPut || isAnyCopy(r) }),
		"completing answers 200, Error": sometimes(2, answer(http.StatusOK, "InternalError"), isCompletion),
		"copying answers 200, Error":    sometimes(2, answer(http.StatusOK, "InternalError"), isCopy),
		"answer to completion lost":     losing(isCompletion),
		"answer to copy lost":           losing(isCopy),
		"no checksums":                  without("checksum"),
		"lying checksums":               lyingChecksums,
		"composite checksums":           compositeChecksums,
		"connections cut while reading": cutting,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket := peer.Versitygw(t)
			endpoint, roots := bucket.TLS(t, wrap)
			d := open(t, bucket, s3.Config{Endpoint: endpoint, Client: s3.ClientTrusting(roots), Prefix: "some/prefix"})
			content := bytesOf(12<<20, 1)
			if err := push(t, d, uploadID, content); err != nil {
				t.Fatal(err)
			}
			expectStored(t, d, content)
			expectOnlyBlobs(t, bucket, "some/prefix")
		})
	}
}

func TestLargeObjectsAreCopiedInParts(t *testing.T) {
	content := bytesOf(17<<20, 2)
	for name, c := range map[string]struct {
		wrap  func(http.Handler) http.Handler
		stays bool
	}{
		"in parts":                            {wrap: func(next http.Handler) http.Handler { return next }},
		"whole, where parts are not":          {wrap: sometimes(1, answer(http.StatusNotImplemented, "NotImplemented"), isPartCopy)},
		"not at all, where neither is":        {wrap: sometimes(1, answer(http.StatusNotImplemented, "NotImplemented"), isAnyCopy), stays: true},
		"in parts, though some fail at first": {wrap: sometimes(4, answer(http.StatusInternalServerError, "InternalError"), isPartCopy)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket := peer.Versitygw(t)
			d := open(t, bucket, s3.Config{Endpoint: bucket.Proxy(t, c.wrap)})
			d.LimitCopies(6<<20, 5<<20)
			if !c.stays {
				if err := push(t, d, uploadID, content); err != nil {
					t.Fatal(err)
				}
				expectStored(t, d, content)
				expectOnlyBlobs(t, bucket, "")
				return
			}
			u, object := assembled(t, d, content)
			key, err := d.Place(t.Context(), u, object, digestOf(content))
			if err != nil || !strings.Contains(key, uploadID) {
				t.Fatalf("placed at %s, %v", key, err)
			}
			if found, err := d.Stat(t.Context(), key); err != nil || found.Size != object.Size {
				t.Errorf("the object that stays: %+v, %v", found, err)
			}
		})
	}
}

func assembled(t *testing.T, d *s3.Driver, content []byte) (blobs.Upload, blobs.Object) {
	t.Helper()
	handle, err := d.Begin(t.Context(), uploadID)
	if err != nil {
		t.Fatal(err)
	}
	u := blobs.Upload{ID: uploadID, Handle: handle}
	etag, err := d.WritePart(t.Context(), u, 1, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	object, err := d.Assemble(t.Context(), u, []blobs.Part{{Number: 1, ETag: etag}})
	if err != nil {
		t.Fatal(err)
	}
	return u, object
}

func TestStorageThatIsAwayIsUnavailable(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{})
	content := bytesOf(100, 3)
	u, object := assembled(t, d, content)
	if err := d.Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	bucket.Stop()
	_, begin := d.Begin(t.Context(), uploadID)
	_, write := d.WritePart(t.Context(), u, 1, bytes.NewReader(content), 100)
	_, assemble := d.Assemble(t.Context(), u, nil)
	_, place := d.Place(t.Context(), u, object, digestOf(content))
	_, stat := d.Stat(t.Context(), "x")
	_, openErr := d.Open(t.Context(), "x")
	for name, err := range map[string]error{
		"begin": begin, "write": write, "assemble": assemble, "place": place, "stat": stat, "open": openErr,
		"verify": d.Verify(t.Context(), u, object, digestOf(content)), "discard": d.Discard(t.Context(), u), "healthy": d.Healthy(t.Context()),
	} {
		if !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Presign(t.Context(), "x", http.MethodGet, time.Minute); err != nil {
		t.Errorf("presigning needs no storage: %v", err)
	}
	bucket.Start(t)
	if _, err := d.Place(t.Context(), u, object, digestOf(content)); err != nil {
		t.Errorf("when the storage is back: %v", err)
	}
}

func TestHealthTellsWhatIsWrong(t *testing.T) {
	bucket := peer.Versitygw(t)
	good := *bucket
	good.SecretKey = "wrong"
	if err := open(t, &good, s3.Config{}).Healthy(t.Context()); err == nil {
		t.Error("a wrong secret is healthy")
	}
	good = *bucket
	good.Bucket = "nowhere"
	if err := open(t, &good, s3.Config{}).Healthy(t.Context()); err == nil {
		t.Error("a bucket that does not exist is healthy")
	}
}

func TestDiscardFindsAnUploadWhoseHandleWasLost(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{Prefix: "p"})
	if _, err := d.Begin(t.Context(), uploadID); err != nil {
		t.Fatal(err)
	}
	other, err := d.Begin(t.Context(), uploadID+"00")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(t.Context(), blobs.Upload{ID: uploadID}); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(bucket.Dir, ".sgwtmp", "multipart", "*", "*"))
	if len(left) != 1 || filepath.Base(left[0]) != other {
		t.Errorf("left: %v, want %s only", left, other)
	}
}

func TestPresignedURLAllowsOneThingOnly(t *testing.T) {
	bucket := peer.Versitygw(t)
	endpoint, roots := bucket.TLS(t, nil)
	d := open(t, bucket, s3.Config{PublicEndpoint: endpoint})
	client := s3.ClientTrusting(roots)
	handle, err := d.Begin(t.Context(), uploadID)
	if err != nil {
		t.Fatal(err)
	}
	u := blobs.Upload{ID: uploadID, Handle: handle}
	target, err := d.PresignPart(t.Context(), u, 1, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if len(target.Headers) > 0 || !strings.HasPrefix(target.URL, endpoint+"/") || !strings.Contains(target.URL, "X-Amz-SignedHeaders=host&") {
		t.Errorf("target %+v", target)
	}
	send := func(method, url, content string) (int, http.Header) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	status, header := send(target.Method, target.URL, "content")
	if status != http.StatusOK {
		t.Fatalf("sending a part: %d", status)
	}
	object, err := d.Assemble(t.Context(), u, []blobs.Part{{Number: 1, ETag: strings.Trim(header.Get("ETag"), `"`)}})
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := send(target.Method, target.URL, "other"); status != http.StatusNotFound {
		t.Errorf("sending a part after completion: %d", status)
	}
	key, err := d.Place(t.Context(), u, object, digestOf([]byte("content")))
	if err != nil {
		t.Fatal(err)
	}
	for _, signed := range []string{http.MethodGet, http.MethodHead} {
		url, err := d.Presign(t.Context(), key, signed, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete} {
			status, header := send(used, url, "")
			if used == signed && (status != http.StatusOK || header.Get("Content-Length") != "7") {
				t.Errorf("%s: %d", signed, status)
			}
			if used != signed && status != http.StatusForbidden {
				t.Errorf("%s with a URL for %s: %d", used, signed, status)
			}
		}
	}
	gone, err := d.Presign(t.Context(), key, http.MethodGet, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2100 * time.Millisecond)
	if status, _ := send(http.MethodGet, gone, ""); status != http.StatusForbidden {
		t.Errorf("an expired URL: %d", status)
	}
}

func TestObjectIsReadFromAnyOffset(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{Endpoint: bucket.Proxy(t, cutting)})
	content := bytesOf(3<<20, 4)
	if err := push(t, d, uploadID, content); err != nil {
		t.Fatal(err)
	}
	object, err := d.Open(t.Context(), blobs.Key(digestOf(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		offset := rng.Int64N(int64(len(content)))
		n := min(rng.IntN(1<<20), len(content)-int(offset))
		if _, err := object.Seek(offset, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(object, got); err != nil || !bytes.Equal(got, content[offset:int(offset)+n]) {
			t.Fatalf("%d bytes at %d: %v", n, offset, err)
		}
	}
	file := filepath.Join(bucket.Dir, filepath.FromSlash(blobs.Key(digestOf(content))))
	if _, err := object.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), len(content)+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(object); err == nil {
		t.Errorf("read %d bytes of an object that was replaced", len(got))
	}
}

func TestConfigurationWithoutBucketIsRefused(t *testing.T) {
	if _, err := s3.New(t.Context(), s3.Config{}); err == nil {
		t.Error("no bucket is accepted")
	}
}

func isCompletion(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}
func isAnyCopy(r *http.Request) bool { return r.Header.Get("X-Amz-Copy-Source") != "" }
func isCopy(r *http.Request) bool    { return isAnyCopy(r) && !r.URL.Query().Has("partNumber") }
func isPartCopy(r *http.Request) bool {
	return isAnyCopy(r) && r.URL.Query().Has("partNumber")
}

// sometimes has fault answer the first of every n requests that match.
func sometimes(n int64, fault http.Handler, match func(*http.Request) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var count atomic.Int64
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) && count.Add(1)%n == 1%n {
				fault.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func answer(status int, code string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>for the test</Message></Error>`, code)
	})
}

// losing does the first request that matches and drops the connection instead of
// answering.
func losing(match func(*http.Request) bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var lost atomic.Bool
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) && lost.CompareAndSwap(false, true) {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// without drops what an answer says about something.
func without(what string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return rewriting(next, func(h http.Header, body string) string {
			for name := range h {
				if strings.Contains(strings.ToLower(name), what) {
					h.Del(name)
				}
			}
			for _, tag := range []string{"ChecksumSHA256", "ChecksumType"} {
				before, rest, found := strings.Cut(body, "<"+tag+">")
				if _, after, closed := strings.Cut(rest, "</"+tag+">"); found && closed {
					body = before + after
				}
			}
			return body
		})
	}
}

func lyingChecksums(next http.Handler) http.Handler {
	return rewriting(next, func(h http.Header, body string) string {
		if h.Get("X-Amz-Checksum-Sha256") != "" {
			h.Set("X-Amz-Checksum-Sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
		}
		return body
	})
}

func compositeChecksums(next http.Handler) http.Handler {
	return rewriting(next, func(h http.Header, body string) string {
		if h.Get("X-Amz-Checksum-Sha256") != "" {
			h.Set("X-Amz-Checksum-Type", "COMPOSITE")
		}
		return strings.ReplaceAll(body, "FULL_OBJECT", "COMPOSITE")
	})
}

func rewriting(next http.Handler, change func(h http.Header, body string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.RawQuery == "" {
			next.ServeHTTP(w, r)
			return
		}
		recorded := httptest.NewRecorder()
		next.ServeHTTP(recorded, r)
		header := recorded.Result().Header
		body := change(header, recorded.Body.String())
		maps.Copy(w.Header(), header)
		if r.Method != http.MethodHead && len(body) > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		w.WriteHeader(recorded.Code)
		_, _ = io.WriteString(w, body)
	})
}

// cutting drops connections after 1 MiB of an object.
func cutting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
			w = &cutWriter{ResponseWriter: w, left: 1 << 20}
		}
		next.ServeHTTP(w, r)
	})
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

type onlyReader struct{ io.Reader }

func digestOf(content []byte) blobs.Digest {
	return blobs.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
}

func bytesOf(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}
