package xrpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// How CARs are sent.
const (
	carContentType = "application/vnd.ipld.car"
	carInMemory    = 1 << 20 // bytes; a larger one goes through a temporary file

	// A client has carGrace, and a second for each carRate bytes, to take a CAR.
	carGrace = time.Minute
	carRate  = 64 << 10
)

// sendCAR answers with what write writes. It is written to the end before the first byte is
// sent: write reads from a snapshot of the database, which must not wait for clients.
func (s *Server) sendCAR(w http.ResponseWriter, r *http.Request, write func(context.Context, io.Writer) error) error {
	select {
	case s.Memory.exports <- struct{}{}:
		defer func() { <-s.Memory.exports }()
	default:
		return &Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "too many exports are under way", RetryAfter: retryAfter}
	}
	var car spool
	defer car.remove()
	if err := write(r.Context(), &car); err != nil {
		return err
	}
	content, err := car.content()
	if err != nil {
		return err
	}

	h := w.Header()
	h.Set("Content-Type", carContentType)
	h.Set("Content-Length", strconv.FormatInt(car.size, 10))
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return nil
	}
	control := http.NewResponseController(w)
	// Where a server has no deadlines to set, its own apply.
	_ = control.SetWriteDeadline(time.Now().Add(carGrace + time.Duration(car.size/carRate)*time.Second))
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }() // the connection serves other requests next
	if _, err := io.Copy(w, content); err != nil {
		panic(http.ErrAbortHandler) // so that a part never looks like the whole
	}
	return nil
}

// spool keeps what is written to it, in memory while it is small.
type spool struct {
	size   int64
	memory bytes.Buffer
	file   *os.File
}

// Write appends to the spool.
func (s *spool) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if s.size <= carInMemory {
		return s.memory.Write(p)
	}
	if s.file == nil {
		file, err := os.CreateTemp("", "caddyhold-car-")
		if err != nil {
			return 0, fmt.Errorf("making a temporary file: %w", err)
		}
		s.file = file
		if _, err := s.memory.WriteTo(file); err != nil {
			return 0, fmt.Errorf("writing a temporary file: %w", err)
		}
	}
	return s.file.Write(p)
}

// content is all that was written.
func (s *spool) content() (io.Reader, error) {
	if s.file == nil {
		return &s.memory, nil
	}
	_, err := s.file.Seek(0, io.SeekStart)
	return s.file, err
}

// remove leaves nothing behind.
func (s *spool) remove() {
	if s.file != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}
