package blobs_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

const (
	alice = "did:plc:alice"
	bob   = "did:plc:bob"
)

// hold is a service with a web server in front, as far as blobs are concerned.
type hold struct {
	*blobs.Service
	t       testing.TB
	dir     string // of the database
	blobs   string // where the blobs are, if there is no bucket
	bucket  *peer.S3
	presign bool
	clock   *clock

	db     *bbolt.DB
	store  *blobs.Store
	server *httptest.Server
}

// kinds are the ways in which bytes go to and from a storage.
var kinds = map[string]func(t testing.TB) *hold{
	"filesystem":   func(t testing.TB) *hold { return start(t, &hold{}) },
	"s3 presigned": func(t testing.TB) *hold { return start(t, &hold{bucket: peer.Versitygw(t), presign: true}) },
	"s3 proxied":   func(t testing.TB) *hold { return start(t, &hold{bucket: peer.Versitygw(t)}) },
}

func eachKind(t *testing.T, fn func(t *testing.T, h *hold)) {
	t.Helper()
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, kind(t))
		})
	}
}

// eachKindUnlessShort leaves out the bucket where time is short.
func eachKindUnlessShort(t *testing.T, fn func(t *testing.T, h *hold)) {
	t.Helper()
	if testing.Short() {
		fn(t, onDisk(t))
		return
	}
	eachKind(t, fn)
}

func onDisk(t testing.TB) *hold { return kinds["filesystem"](t) }

func start(t testing.TB, h *hold) *hold {
	t.Helper()
	h.t, h.dir, h.clock = t, t.TempDir(), &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	h.blobs = filepath.Join(h.dir, "blobs")
	h.server = httptest.NewServer(http.HandlerFunc(h.serveHTTP))
	t.Cleanup(h.server.Close)
	h.open()
	t.Cleanup(h.close)
	return h
}

func (h *hold) open() {
	h.t.Helper()
	db, err := bbolt.Open(filepath.Join(h.dir, "hold.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		h.t.Fatal(err)
	}
	h.db = db
	if h.store, err = blobs.Open(blobs.Options{DB: db, Now: h.clock.Now}); err != nil {
		h.t.Fatal(err)
	}
	h.Service = blobs.New(blobs.Config{Store: h.store, Driver: h.driver(), Presign: h.presign, BaseURL: h.server.URL, DID: "did:web:hold.example"})
}

func (h *hold) driver() blobs.Driver {
	h.t.Helper()
	if h.bucket != nil {
		d, err := s3.New(h.t.Context(), bucketConfig(h.bucket))
		if err != nil {
			h.t.Fatal(err)
		}
		return d
	}
	d, err := filesystem.Open(h.blobs)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = d.Close() })
	return d
}

func bucketConfig(bucket *peer.S3) s3.Config {
	return s3.Config{
		Bucket: bucket.Bucket, Region: bucket.Region, Endpoint: bucket.Endpoint,
		AccessKey: bucket.AccessKey, SecretKey: bucket.SecretKey,
	}
}

func (h *hold) close() {
	h.t.Helper()
	if err := errors.Join(h.store.Close(), h.db.Close()); err != nil {
		h.t.Error(err)
	}
}

// restart is a process that ends and starts again.
func (h *hold) restart() {
	h.t.Helper()
	h.close()
	h.open()
}

// background lets the background work run once.
func (h *hold) background() {
	h.t.Helper()
	h.Round(h.t.Context())
}

// objects is where the bucket or the blobs are.
func (h *hold) objects() string {
	if h.bucket != nil {
		return h.bucket.Dir
	}
	return h.blobs
}

func (h *hold) path(d blobs.Digest) string {
	return filepath.Join(h.objects(), filepath.FromSlash(blobs.Key(d)))
}

// serveHTTP takes what the URLs that the hold signs are for.
func (h *hold) serveHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	q := r.URL.Query()
	switch r.URL.Path {
	case "/xrpc/io.atcr.hold.uploadPart":
		err = h.receive(w, r)
	case "/xrpc/com.atproto.sync.getBlob":
		d := blobs.Digest(q.Get("cid"))
		if err = h.VerifyBlobURL(r.Method, d, q); err == nil {
			err = h.Serve(w, r, d)
		}
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

func (h *hold) receive(w http.ResponseWriter, r *http.Request) error {
	owner, id, part, err := h.VerifyPartURL(r.URL.Query())
	if err != nil {
		return err
	}
	etag, err := h.WritePart(r.Context(), owner, id, part, r.Body, r.ContentLength)
	if err == nil {
		w.Header().Set("ETag", `"`+etag+`"`)
	}
	return err
}

func (h *hold) initiate(owner string) string {
	h.t.Helper()
	id, err := h.Initiate(h.t.Context(), owner, "uploads/temp-1")
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// send sends a part as a client does: to the URL it is given.
func (h *hold) send(owner, id string, part int, content []byte) blobs.Part {
	h.t.Helper()
	target, err := h.PartURL(h.t.Context(), owner, id, part)
	if err != nil {
		h.t.Fatal(err)
	}
	status, header, body := request(h.t, target.Method, target.URL, target.Headers, content)
	if status != http.StatusOK {
		h.t.Fatalf("sending part %d: %d %s", part, status, body)
	}
	return blobs.Part{Number: part, ETag: header.Get("ETag")}
}

// upload sends content in parts of that size.
func (h *hold) upload(owner string, content []byte, partSize int) (id string, parts []blobs.Part) {
	h.t.Helper()
	id = h.initiate(owner)
	for start := 0; start < len(content); start += partSize {
		end := min(start+partSize, len(content))
		parts = append(parts, h.send(owner, id, len(parts)+1, content[start:end]))
	}
	return id, parts
}

// push uploads and completes.
func (h *hold) push(owner string, content []byte) blobs.Digest {
	h.t.Helper()
	id, parts := h.upload(owner, content, 6<<20)
	d := digestOf(content)
	blob, err := h.Complete(h.t.Context(), owner, id, d, parts, false)
	if err != nil {
		h.t.Fatalf("completing: %v", err)
	}
	if blob.Digest != d || blob.Size != int64(len(content)) {
		h.t.Fatalf("completed %+v, want %s of %d bytes", blob, d, len(content))
	}
	return d
}

// expectBlob checks that the blob can be pulled.
func (h *hold) expectBlob(content []byte) {
	h.t.Helper()
	d := digestOf(content)
	blob, err := h.Stat(h.t.Context(), d)
	if err != nil || blob.Size != int64(len(content)) {
		h.t.Fatalf("stat: %+v, %v", blob, err)
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		url, err := h.URL(h.t.Context(), d, method)
		if err != nil {
			h.t.Fatalf("%s url: %v", method, err)
		}
		status, header, body := request(h.t, method, url, nil, nil)
		if status != http.StatusOK || header.Get("Content-Length") != fmt.Sprint(len(content)) {
			h.t.Fatalf("%s: %d, length %q, %s", method, status, header.Get("Content-Length"), short(body))
		}
		if method == http.MethodGet && !bytes.Equal(body, content) {
			h.t.Fatalf("pulled %d bytes that are not those pushed", len(body))
		}
	}
}

// expectNone checks that nothing is told of the blob.
func (h *hold) expectNone(d blobs.Digest) {
	h.t.Helper()
	if blob, err := h.Stat(h.t.Context(), d); !errors.Is(err, blobs.ErrBlobNotFound) {
		h.t.Errorf("stat of what is no blob: %+v, %v", blob, err)
	}
	if _, err := h.URL(h.t.Context(), d, http.MethodGet); !errors.Is(err, blobs.ErrBlobNotFound) {
		h.t.Errorf("URL of what is no blob: %v", err)
	}
	w := httptest.NewRecorder()
	if err := h.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), d); !errors.Is(err, blobs.ErrBlobNotFound) || w.Body.Len() > 0 {
		h.t.Errorf("serving what is no blob: %v", err)
	}
}

// expectNoLeftovers checks that nothing of any upload is in the storage.
func (h *hold) expectNoLeftovers() {
	h.t.Helper()
	staging := filepath.Join(h.objects(), filepath.FromSlash(blobs.StagingPrefix))
	left, _ := filepath.Glob(filepath.Join(staging, "*"))
	if h.bucket != nil { // where the server keeps uploads in progress
		more, _ := filepath.Glob(filepath.Join(h.objects(), ".sgwtmp", "multipart", "*", "*"))
		left = append(left, more...)
	}
	if len(left) > 0 {
		h.t.Errorf("left in the storage: %v", left)
	}
}

var client = &http.Client{Timeout: time.Minute}

func request(t testing.TB, method, url string, headers map[string]string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, answer
}

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func digestOf(content []byte) blobs.Digest {
	return blobs.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
}

// bytesOf returns n bytes that are the same for the same seed.
func bytesOf(n int, seed uint64) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = source.Read(b)
	return b
}

func short(b []byte) string { return strings.TrimSpace(string(b[:min(len(b), 200)])) }
