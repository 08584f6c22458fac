package s3_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

func TestServerThatHangsIsUnavailable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // nobody ever accepts
	d, err := s3.New(t.Context(), s3.Config{Bucket: "b", Endpoint: "http://" + listener.Addr().String(), AccessKey: "k", SecretKey: "s"})
	if err != nil {
		t.Fatal(err)
	}
	d.Hurry(100 * time.Millisecond)
	for name, ask := range map[string]func() error{
		"Stat":                      func() error { _, err := d.Stat(t.Context(), "key"); return err },
		"Healthy":                   func() error { return d.Healthy(t.Context()) },
		"Begin":                     func() error { _, err := d.Begin(t.Context(), uploadID); return err },
		"Discard":                   func() error { return d.Discard(t.Context(), blobs.Upload{ID: uploadID, Handle: "x"}) },
		"Discard, without a handle": func() error { return d.Discard(t.Context(), blobs.Upload{ID: uploadID}) },
		"Open":                      func() error { _, err := d.Open(t.Context(), "key"); return err },
		"Assemble": func() error {
			_, err := d.Assemble(t.Context(), blobs.Upload{ID: uploadID, Handle: "x"}, nil)
			return err
		},
	} {
		start := time.Now()
		if err := ask(); !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

// An answer may come late, too: the object is there, and its server stops.
func TestServerThatHangsWhileAnObjectIsPlaced(t *testing.T) {
	bucket := peer.Versitygw(t)
	end := make(chan struct{})
	defer close(end)
	var hangs atomic.Bool
	endpoint := bucket.Proxy(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hangs.Load() && r.Method == http.MethodHead {
				select {
				case <-end:
				case <-r.Context().Done():
				}
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	d := open(t, bucket, s3.Config{Endpoint: endpoint})
	content := bytesOf(100, 7)
	u, object := assembled(t, d, content)
	hangs.Store(true)
	d.Hurry(300 * time.Millisecond)
	if _, err := d.Place(t.Context(), u, object, digestOf(content)); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	hangs.Store(false)
	d.Hurry(10 * time.Second)
	if _, err := d.Place(t.Context(), u, object, digestOf(content)); err != nil {
		t.Errorf("when it answers again: %v", err)
	}
}

// What the server says of itself is for the log, not for who sent the parts.
func TestRefusedPartsTellNothingOfTheServer(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{Endpoint: bucket.Proxy(t, sometimes(1, answer(http.StatusBadRequest, "InvalidPart"), isCompletion))})
	handle, err := d.Begin(t.Context(), uploadID)
	if err != nil {
		t.Fatal(err)
	}
	u := blobs.Upload{ID: uploadID, Handle: handle}
	etag, err := d.WritePart(t.Context(), u, 1, strings.NewReader("content"), 7)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Assemble(t.Context(), u, []blobs.Part{{Number: 1, ETag: etag}})
	if !errors.Is(err, blobs.ErrMissingParts) {
		t.Fatalf("%v, want ErrMissingParts", err)
	}
	for _, secret := range []string{"RequestID", "HostID", "for the test", "CompleteMultipartUpload"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q tells %s", err, secret)
		}
	}
}

// Parts of unknown size are in temporary files, few at once.
func TestSpooledPartsAreBounded(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{})
	handle, err := d.Begin(t.Context(), uploadID)
	if err != nil {
		t.Fatal(err)
	}
	u := blobs.Upload{ID: uploadID, Handle: handle}
	const most = 4
	var (
		bodies  []*io.PipeWriter
		sending sync.WaitGroup
	)
	for i := range most {
		body, writer := io.Pipe()
		bodies = append(bodies, writer)
		sending.Go(func() {
			if _, err := d.WritePart(t.Context(), u, i+1, body, -1); err != nil {
				t.Errorf("part %d: %v", i+1, err)
			}
		})
		if _, err := writer.Write([]byte("begun")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.WritePart(ctx, u, most+1, strings.NewReader("x"), -1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: %v", err)
	}
	for _, writer := range bodies {
		_ = writer.Close()
	}
	sending.Wait()
	if _, err := d.WritePart(t.Context(), u, most+1, strings.NewReader("x"), -1); err != nil {
		t.Errorf("when there is room: %v", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestWhatIsNotTheBucketsAnswerIsNoAbsence(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{})
	if _, err := d.Stat(t.Context(), "no/such/key"); !errors.Is(err, blobs.ErrBlobNotFound) {
		t.Errorf("an absent object: %v, want ErrBlobNotFound", err)
	}

	gone := *bucket
	gone.Bucket = "no-such-bucket"
	if _, err := open(t, &gone, s3.Config{}).Stat(t.Context(), "key"); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("an absent bucket: %v, want ErrUnavailable", err)
	}

	proxy := httptest.NewServer(http.NotFoundHandler())
	defer proxy.Close()
	if _, err := open(t, bucket, s3.Config{Endpoint: proxy.URL}).Stat(t.Context(), "key"); !errors.Is(err, blobs.ErrUnavailable) {
		t.Errorf("a 404 of somebody else: %v, want ErrUnavailable", err)
	}
}
