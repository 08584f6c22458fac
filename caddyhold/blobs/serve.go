package blobs

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Serve answers a GET or HEAD with the bytes of a blob, with Range, If-Range
// and If-None-Match (RFC 9110; the ETag is the quoted digest). A Cache-Control
// that is set already is kept: without one, only the client itself may cache,
// for ever. An error, ErrBlobNotFound or ErrUnavailable or another, is returned
// only if nothing was written.
func (s *Service) Serve(w http.ResponseWriter, r *http.Request, d Digest) error {
	found, err := s.find(r.Context(), d)
	if err != nil {
		return err
	}
	object, err := s.driver.Open(r.Context(), found.key(d))
	if errors.Is(err, ErrBlobNotFound) {
		return s.lost(d)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", d, err)
	}
	defer object.Close()
	size, err := object.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("opening %s: %w", d, err)
	}
	if size != found.Size {
		return s.lost(d)
	}
	h := w.Header()
	h.Set("ETag", `"`+string(d)+`"`)
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "private, max-age=31536000, immutable, no-transform")
	}
	// Without its ReadFrom: servers that bound each write, as Caddy does, wrap the
	// content in limits that sendfile is not found behind, and copy through a new
	// buffer for every piece.
	http.ServeContent(struct{ http.ResponseWriter }{w}, r, "", time.Time{}, object)
	return nil
}
