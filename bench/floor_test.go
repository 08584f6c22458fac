package bench_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// floor receives and sends blobs over bare TCP connections, without a protocol worth the name: what it needs, every server
// does. An upload is read, hashed, written and synced; a download is sent from the file.
type floor struct {
	dir      string
	listener net.Listener
}

// Requests are the first byte of a connection; the blob's size follows an upload.
const (
	floorUpload   = 'u'
	floorDownload = 'd'
)

// newFloor listens on loopback until the benchmark ends. It keeps one blob.
func newFloor(b *testing.B) *floor {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatalf("listening: %v", err)
	}
	f := &floor{dir: b.TempDir(), listener: listener}
	served := make(chan struct{})
	go func() {
		defer close(served)
		f.serve()
	}()
	b.Cleanup(func() {
		_ = listener.Close()
		<-served
	})
	return f
}

func (f *floor) file() string { return filepath.Join(f.dir, "data") }

// serve serves one connection after the other. A client sees an error as an answer that is missing.
func (f *floor) serve() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		_ = f.answer(conn)
		_ = conn.Close()
	}
}

func (f *floor) answer(conn net.Conn) error {
	var request [9]byte
	if _, err := io.ReadFull(conn, request[:]); err != nil {
		return err
	}
	if request[0] == floorDownload {
		return f.send(conn)
	}
	sum, err := f.receive(conn, int64(binary.BigEndian.Uint64(request[1:])))
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, sum)
	return err
}

func (f *floor) receive(conn net.Conn, size int64) (digest string, err error) {
	file, err := os.Create(f.file())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buf := make([]byte, 256<<10)
	h := sha256.New()
	for size > 0 {
		n, err := conn.Read(buf[:min(size, int64(len(buf)))])
		if err != nil {
			return "", err
		}
		h.Write(buf[:n])
		if _, err := file.Write(buf[:n]); err != nil {
			return "", err
		}
		size -= int64(n)
	}
	return digestOf(h), file.Sync()
}

func (f *floor) send(conn net.Conn) error {
	file, err := os.Open(f.file())
	if err != nil {
		return err
	}
	defer file.Close()
	// Not by the kernel's sendfile, which io.Copy would use: over loopback a receiver is slower to take that in.
	_, err = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{file}, make([]byte, 32<<10))
	return err
}

func (f *floor) upload(c *content) error {
	conn, err := f.request(floorUpload, c.size)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := c.WriteTo(conn); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && string(answer) != c.digest {
		err = fmt.Errorf("bare upload: answer %q", answer)
	}
	return err
}

func (f *floor) download(*content) (int64, error) {
	conn, err := f.request(floorDownload, 0)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return count(conn)
}

func (f *floor) request(kind byte, size int64) (net.Conn, error) {
	conn, err := net.Dial("tcp", f.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64([]byte{kind}, uint64(size))); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (f *floor) path(*content) string { return f.file() }
