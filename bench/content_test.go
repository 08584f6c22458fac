package bench_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
)

// partSize is what AppViews send to a hold at once, in bytes.
const partSize = 10 << 20

// noise is what all contents have in common. It does not compress.
var noise = func() []byte {
	b := make([]byte, partSize)
	_, _ = rand.Read(b) // never fails
	return b
}()

// content is a blob of any size that takes no memory: noise over and over, each time with another beginning.
type content struct {
	digest string // sha256:<hex>
	size   int64
	seed   [16]byte
}

// newContent makes a blob that no server has seen before.
func newContent(size int64) *content {
	c := &content{size: size}
	_, _ = rand.Read(c.seed[:])
	h := sha256.New()
	_, _ = c.WriteTo(h) // a hash takes all
	c.digest = digestOf(h)
	return c
}

func digestOf(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// hex is the digest without its algorithm.
func (c *content) hex() string { return c.digest[len("sha256:"):] }

// parts is the number of parts.
func (c *content) parts() int { return int((c.size + partSize - 1) / partSize) }

// part returns a part, counted from 0, as a reader and a size. No byte is copied before it is read.
func (c *content) part(i int) (io.Reader, int64) {
	size := min(partSize, c.size-int64(i)*partSize)
	return &partReader{start: c.startOf(i), rest: noise[:size]}, size
}

// startOf is where part i differs from all others.
func (c *content) startOf(i int) []byte {
	return binary.BigEndian.AppendUint64(c.seed[:len(c.seed):len(c.seed)], uint64(i))
}

// WriteTo writes all of the content.
func (c *content) WriteTo(w io.Writer) (n int64, err error) {
	return io.CopyBuffer(w, c.reader(), make([]byte, 64<<10))
}

// reader reads all of the content.
func (c *content) reader() io.Reader {
	parts := make([]io.Reader, c.parts())
	for i := range parts {
		parts[i], _ = c.part(i)
	}
	return io.MultiReader(parts...)
}

// partReader reads rest with start laid over its beginning.
type partReader struct{ start, rest []byte }

func (r *partReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	over := copy(p[:n], r.start)
	r.start, r.rest = r.start[over:], r.rest[n:]
	return n, nil
}
