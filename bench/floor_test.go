package bench_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// floor receives and sends blobs over bare TCP connections, without a protocol worth the name: what it needs, every server
// does. An upload is read, hashed, written and synced; a download is read and sent. It keeps one blob.
type floor struct {
	dir     string
	address string
	process *peer.Process
}

// Requests are the first byte of a connection; the blob's size follows an upload.
const (
	floorUpload   = 'u'
	floorDownload = 'd'
)

// Environment of this test binary where it is the floor's server.
const (
	floorDir     = "BENCH_FLOOR_DIR"
	floorAddress = "BENCH_FLOOR_ADDRESS"
)

// TestMain lets the floor have a process of its own, as all that it is compared with.
func TestMain(m *testing.M) {
	dir := os.Getenv(floorDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	fmt.Println((&floor{dir: dir, address: os.Getenv(floorAddress)}).serve())
	os.Exit(1)
}

// newFloor starts a process until the benchmark ends.
func newFloor(b *testing.B) *floor {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatalf("finding this program: %v", err)
	}
	f := &floor{dir: b.TempDir(), address: peer.FreeAddress(b)}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), floorDir+"="+f.dir, floorAddress+"="+f.address)
	f.process = peer.Start(b, cmd)
	if err := f.process.WaitFor(30*time.Second, func() error { return peer.Listening(f.address) }); err != nil {
		b.Fatalf("waiting for the floor: %v", err)
	}
	return f
}

func (f *floor) file() string { return filepath.Join(f.dir, "data") }

// serve serves one connection after the other. A client sees an error as an answer that is missing.
func (f *floor) serve() error {
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
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
	buf := make([]byte, 64<<10)
	h := sha256.New()
	for size > 0 {
		n, err := io.ReadFull(conn, buf[:min(size, int64(len(buf)))])
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
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64([]byte{kind}, uint64(size))); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (f *floor) path(*content) string { return f.file() }
