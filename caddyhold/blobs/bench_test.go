package blobs_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

const (
	benchSize = 256 << 20
	benchPart = 10 << 20 // what AppViews send
)

// The control of BenchmarkUpload: the least that must happen to the bytes.
func BenchmarkUploadControl(b *testing.B) {
	content := bytesOf(benchSize, 40)
	file := filepath.Join(b.TempDir(), "blob")
	buf := make([]byte, 256<<10)
	b.SetBytes(benchSize)
	for b.Loop() {
		f, err := os.Create(file)
		if err != nil {
			b.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.CopyBuffer(io.MultiWriter(h, onlyWriter{f}), onlyReader{bytes.NewReader(content)}, buf); err != nil {
			b.Fatal(err)
		}
		h.Sum(nil)
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		f.Close()
		os.Remove(file)
	}
}

func BenchmarkUpload(b *testing.B) {
	h := onDisk(b)
	content := bytesOf(benchSize, 40)
	d := digestOf(content)
	b.SetBytes(benchSize)
	for b.Loop() {
		id := h.initiate(alice)
		var parts []blobs.Part
		for start := 0; start < len(content); start += benchPart {
			body := content[start:min(start+benchPart, len(content))]
			etag, err := h.WritePart(b.Context(), alice, id, len(parts)+1, onlyReader{bytes.NewReader(body)}, int64(len(body)))
			if err != nil {
				b.Fatal(err)
			}
			parts = append(parts, blobs.Part{Number: len(parts) + 1, ETag: etag})
		}
		if _, err := h.Complete(b.Context(), alice, id, d, parts, false); err != nil {
			b.Fatal(err)
		}
		b.StopTimer() // the next push is a new blob again
		os.Remove(h.path(d))
		b.StartTimer()
	}
}

// The control of BenchmarkDownload.
func BenchmarkDownloadControl(b *testing.B) {
	h := onDisk(b)
	d := h.push(alice, bytesOf(benchSize, 41))
	download(b, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, h.path(d)) })
}

func BenchmarkDownload(b *testing.B) {
	h := onDisk(b)
	d := h.push(alice, bytesOf(benchSize, 41))
	download(b, func(w http.ResponseWriter, r *http.Request) {
		if err := h.Serve(w, r, d); err != nil {
			b.Error(err)
		}
	})
}

func download(b *testing.B, serve http.HandlerFunc) {
	server := httptest.NewServer(serve)
	defer server.Close()
	buf := make([]byte, 256<<10)
	b.SetBytes(benchSize)
	for b.Loop() {
		resp, err := http.Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{resp.Body}, buf)
		if err != nil || n != benchSize {
			b.Fatal(n, err)
		}
		resp.Body.Close()
	}
}

func BenchmarkURLSigned(b *testing.B) { benchmarkURL(b, onDisk(b)) }

func BenchmarkURLPresigned(b *testing.B) {
	benchmarkURL(b, start(b, &hold{bucket: peer.Versitygw(b), presign: true}))
}

func benchmarkURL(b *testing.B, h *hold) {
	d := h.push(alice, []byte("blob"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.URL(b.Context(), d, http.MethodGet); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPresign(b *testing.B) {
	d, err := s3.New(b.Context(), s3.Config{Bucket: "hold", Endpoint: "http://127.0.0.1:9000", AccessKey: "key", SecretKey: "secret"})
	if err != nil {
		b.Fatal(err)
	}
	key := blobs.Key(digestOf(nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Presign(b.Context(), key, http.MethodGet, blobs.DefaultURLLifetime); err != nil {
			b.Fatal(err)
		}
	}
}

type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }
