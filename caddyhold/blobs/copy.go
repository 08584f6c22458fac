package blobs

import (
	"context"
	"io"
	"sync"
)

// bufferSize is large enough that system calls do not matter, and small enough
// to stay in a processor's cache between being read, hashed and written.
const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// WithBuffer lends fn a large buffer. Everything that moves blobs through the
// hold uses these, so that its memory does not grow with their sizes.
func WithBuffer(fn func(buf []byte) error) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	return fn(buf[:])
}

// CopyContext copies src to dst until its end, an error or the end of ctx.
func CopyContext(ctx context.Context, dst io.Writer, src io.Reader) (n int64, err error) {
	err = WithBuffer(func(buf []byte) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			read, readErr := src.Read(buf)
			written, err := dst.Write(buf[:read])
			n += int64(written)
			if err != nil {
				return err
			}
			if readErr == io.EOF {
				return nil
			}
			if readErr != nil {
				return readErr
			}
		}
	})
	return n, err
}
