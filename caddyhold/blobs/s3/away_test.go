package s3_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
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
		"Stat":    func() error { _, err := d.Stat(t.Context(), "key"); return err },
		"Healthy": func() error { return d.Healthy(t.Context()) },
		"Begin":   func() error { _, err := d.Begin(t.Context(), uploadID); return err },
		"Discard": func() error { return d.Discard(t.Context(), blobs.Upload{ID: uploadID, Handle: "x"}) },
	} {
		if err := ask(); !errors.Is(err, blobs.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
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
