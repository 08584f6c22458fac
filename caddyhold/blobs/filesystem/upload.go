package filesystem

import (
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Names in an upload's directory.
const (
	dataName    = "data"
	journalName = "journal"
	sealedName  = "blob"
	tempPrefix  = "tmp-"
)

// upload is the state of an upload in progress. Its fields are guarded by mu,
// which is not held while bytes are awaited from a client.
type upload struct {
	root *os.Root
	dir  string

	mu      sync.Mutex
	loaded  bool
	ended   bool           // discarded: nothing is written any more
	sealed  bool           // assembled: data is called blob now
	parts   []segment      // in data, in ascending order
	size    int64          // of data without what head has written
	hash    hash.Hash      // SHA-256 of data, with what head has written
	head    *head          // who appends to data as it receives
	waiting map[int]string // ETags of the parts in files of their own, by number
}

// segment is a part in data.
type segment struct {
	number int
	etag   string
	start  int64
	size   int64
	before []byte // state of the hash at start
}

// head is a part that is being received into data, after all others.
type head struct {
	number  int
	start   int64  // in data
	before  []byte // state of the hash at start
	written int64
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errSuperseded = errors.New("the same part was sent again, or the upload was completed, meanwhile")
	errEnded      = fmt.Errorf("%w: the upload has ended", blobs.ErrInvalidUploadID)
)

// etag names content by its checksum and size.
func etag(sum uint32, size int64) string { return fmt.Sprintf("%08x-%d", sum, size) }

// sizeOf returns the size an ETag of ours tells.
func sizeOf(tag string) (int64, error) {
	var sum uint32
	var size int64
	if _, err := fmt.Sscanf(tag, "%08x-%d", &sum, &size); err != nil || size < 0 || etag(sum, size) != tag {
		return 0, fmt.Errorf("%q is no etag", tag)
	}
	return size, nil
}

func (u *upload) file(name string) string { return filepath.Join(u.dir, name) }

func partName(number int, tag string) string { return fmt.Sprintf("part-%d-%s", number, tag) }

// next is the number of the part that would follow those in data.
func (u *upload) next() int {
	if len(u.parts) == 0 {
		return 1
	}
	return u.parts[len(u.parts)-1].number + 1
}

// position returns where in parts a number is or would be.
func (u *upload) position(number int) (i int, found bool) {
	return slices.BinarySearchFunc(u.parts, number, func(s segment, n int) int { return s.number - n })
}

// newHead starts to append a part to data.
func (u *upload) newHead(number int) (*head, error) {
	before, err := stateOf(u.hash)
	if err != nil {
		return nil, err
	}
	u.head = &head{number: number, start: u.size, before: before}
	return u.head, nil
}

// extend appends a piece of the part that h receives.
func (u *upload) extend(h *head, data *os.File, piece []byte) error {
	if u.head != h {
		return errSuperseded
	}
	if _, err := data.WriteAt(piece, h.start+h.written); err != nil {
		return full(err)
	}
	u.hash.Write(piece)
	h.written += int64(len(piece))
	return nil
}

// commit makes what h has received a part.
func (u *upload) commit(h *head, tag string) error {
	if u.head != h {
		return errSuperseded
	}
	part := segment{number: h.number, etag: tag, start: h.start, size: h.written, before: h.before}
	if err := u.appendJournal(part); err != nil {
		u.loaded = false // what the journal holds now is to be seen on disk
		return err
	}
	u.parts = append(u.parts, part)
	u.size += part.size
	u.head = nil
	return nil
}

// rollback takes back what the head has written.
func (u *upload) rollback() error {
	h := u.head
	u.head = nil
	return u.reset(h.start, h.before)
}

// reset cuts data to a size and the hash to its state there.
func (u *upload) reset(size int64, state []byte) error {
	err := u.truncate(size)
	if err == nil {
		u.size = size
		err = restore(u.hash, state)
	}
	if err != nil {
		u.loaded = false // to be read from disk again
	}
	return err
}

func (u *upload) truncate(size int64) error {
	file, err := u.openData()
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// install makes a received file part number, in the place of an earlier one. An
// earlier one that is in data already, and all after it, leave data first.
func (u *upload) install(ctx context.Context, number int, temp, tag string) error {
	i, found := u.position(number)
	if u.head != nil && (i < len(u.parts) || u.head.number == number) {
		if err := u.rollback(); err != nil {
			return err
		}
	}
	if i < len(u.parts) {
		if err := u.unappend(ctx, i, found); err != nil {
			return err
		}
	}
	if old, ok := u.waiting[number]; ok && old != tag {
		if err := u.root.Remove(u.file(partName(number, old))); err != nil {
			return err
		}
		delete(u.waiting, number)
	}
	if err := u.root.Rename(temp, u.file(partName(number, tag))); err != nil {
		return full(err)
	}
	u.waiting[number] = tag
	u.drain(ctx)
	return nil
}

// unappend moves the parts from the i-th on out of data into files of their
// own, but for the i-th itself if it is replaced.
func (u *upload) unappend(ctx context.Context, i int, replaced bool) error {
	keep := i
	if replaced {
		keep++
	}
	moved := u.parts[keep:]
	for _, part := range moved {
		if err := u.extract(ctx, part); err != nil {
			return err // what was extracted is the same as in data, and data counts
		}
	}
	first := u.parts[i]
	if err := u.writeJournal(u.parts[:i]); err != nil {
		return err
	}
	for _, part := range moved {
		u.waiting[part.number] = part.etag
	}
	u.parts = u.parts[:i:i]
	return u.reset(first.start, first.before)
}

// extract copies a part from data into its own file.
func (u *upload) extract(ctx context.Context, part segment) error {
	data, err := u.root.Open(u.file(dataName))
	if err != nil {
		return err
	}
	defer data.Close()
	file, err := u.root.OpenFile(u.file(partName(part.number, part.etag)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return full(err)
	}
	_, err = blobs.CopyContext(ctx, file, io.NewSectionReader(data, part.start, part.size))
	return full(errors.Join(err, file.Close()))
}

// drain appends the waiting parts whose turn has come. A failure leaves them
// where they are: they are received all the same, and assembling tries again.
func (u *upload) drain(ctx context.Context) {
	for u.head == nil {
		number := u.next()
		if _, ok := u.waiting[number]; !ok || u.appendWaiting(ctx, number) != nil {
			return
		}
	}
}

// appendWaiting moves a waiting part to the end of data.
func (u *upload) appendWaiting(ctx context.Context, number int) (err error) {
	tag := u.waiting[number]
	name := u.file(partName(number, tag))
	part, err := u.root.Open(name)
	if err != nil {
		return err
	}
	defer part.Close()
	data, err := u.openData()
	if err != nil {
		return err
	}
	defer data.Close()
	h, err := u.newHead(number)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	disk := writeback{file: data, from: h.start}
	write := func(piece []byte) error {
		sum.Write(piece)
		err := u.extend(h, data, piece)
		disk.wrote(h.start + h.written)
		return err
	}
	_, err = blobs.CopyContext(ctx, writerFunc(write), part)
	damaged := err == nil && etag(sum.Sum32(), h.written) != tag
	if err == nil && !damaged {
		err = u.commit(h, tag)
	}
	if err != nil || damaged {
		err = errors.Join(err, u.rollback())
	}
	if damaged {
		err = errors.Join(fmt.Errorf("%w: part %d was damaged on disk", blobs.ErrMissingParts, number), err)
	}
	if err != nil && !damaged {
		return err
	}
	delete(u.waiting, number)
	return errors.Join(err, u.root.Remove(name))
}

func (u *upload) openData() (*os.File, error) {
	file, err := u.root.OpenFile(u.file(dataName), os.O_WRONLY|os.O_CREATE, fileMode)
	if err != nil {
		return nil, full(err)
	}
	return file, nil
}

// stateOf returns what is needed to return a hash to its state of now.
func stateOf(h hash.Hash) ([]byte, error) {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("saving the state of a hash: %w", err)
	}
	return state, nil
}

// restore returns a hash to a state that stateOf returned.
func restore(h hash.Hash, state []byte) error {
	return h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

func newHash() hash.Hash { return sha256.New() }

// writerFunc is an io.Writer that writes all or fails.
type writerFunc func(p []byte) error

func (f writerFunc) Write(p []byte) (int, error) {
	if err := f(p); err != nil {
		return 0, err
	}
	return len(p), nil
}
