package pds

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

const (
	// carOverhead is what a block adds to a CAR besides its data: at most so
	// many bytes of length, and the CID.
	carOverhead = 4 + cidLen
	// maxCommitBlock is more than a CAR's header and commit take.
	maxCommitBlock = 2048 + carOverhead

	carBuffer = 64 << 10
)

// carHeader is the header of a CAR v1 (https://ipld.io/specs/transport/car/carv1/)
// with one root, with its length.
func carHeader(root cid.Cid) []byte {
	var h bytes.Buffer
	h.WriteByte(majorMap<<5 | 2)
	writeText(&h, "roots")
	h.Write([]byte{majorArray<<5 | 1, majorTag<<5 | 24, tagLink, majorBytes<<5 | 24, 1 + cidLen, 0})
	h.Write(root.Bytes())
	writeText(&h, "version")
	h.WriteByte(majorUint<<5 | 1)
	return append(binary.AppendUvarint(nil, uint64(h.Len())), h.Bytes()...)
}

// appendCARBlock adds a block, whose CID is given as bytes.
func appendCARBlock(car, c, data []byte) []byte {
	car = binary.AppendUvarint(car, uint64(len(c)+len(data)))
	car = append(car, c...)
	return append(car, data...)
}

// carFile is the CAR of a commit: it, tree nodes, and the records that writes
// leave.
func carFile(commit block, nodes []block, writes []*write) []byte {
	size := maxCommitBlock
	for _, b := range nodes {
		size += carOverhead + len(b.data)
	}
	for _, w := range writes {
		size += carOverhead + len(w.change.New)
	}
	car := append(make([]byte, 0, size), carHeader(commit.cid)...)
	car = appendCARBlock(car, commit.cid.Bytes(), commit.data)
	for _, b := range nodes {
		car = appendCARBlock(car, b.cid.Bytes(), b.data)
	}
	seen := make(map[cid.Cid]bool, len(writes))
	for _, w := range writes {
		if c := w.change.CID; w.change.New != nil && !seen[c] {
			seen[c] = true
			car = appendCARBlock(car, c.Bytes(), w.change.New)
		}
	}
	return car
}

// carWriter streams a CAR.
type carWriter struct {
	ctx context.Context
	w   *bufio.Writer
	buf []byte
}

// newCARWriter begins the CAR of the current commit, with it.
func newCARWriter(ctx context.Context, w io.Writer, s snapshot) (*carWriter, error) {
	commit := s.meta(commitName)
	c := sum(cid.DagCBOR, commit)
	car := &carWriter{ctx: ctx, w: bufio.NewWriterSize(w, carBuffer)}
	if _, err := car.w.Write(carHeader(c)); err != nil {
		return nil, err
	}
	return car, car.block(c.Bytes(), commit)
}

func (car *carWriter) block(c, data []byte) error {
	if err := car.ctx.Err(); err != nil {
		return err
	}
	car.buf = append(binary.AppendUvarint(car.buf[:0], uint64(len(c)+len(data))), c...)
	if _, err := car.w.Write(car.buf); err != nil {
		return err
	}
	_, err := car.w.Write(data)
	return err
}

// Export writes the repository as a CAR v1: the commit, and the tree with its
// records in preorder, so that a reader can verify it as it comes
// (https://atproto.com/specs/repository#streamable-car-block-ordering). With
// since, the rev of an earlier commit, it leaves out what was there at that
// commit. Memory does not grow with the repository. The snapshot is held until
// all is written, which keeps the database from growing its mapping and from
// reusing pages: w must not wait for a client.
func (r *Repo) Export(ctx context.Context, w io.Writer, since string) error {
	err := r.view(func(s snapshot) error {
		car, err := newCARWriter(ctx, w, s)
		if err != nil {
			return err
		}
		root, err := s.root()
		if err != nil {
			return err
		}
		e := exporter{car: car, store: s, since: []byte(since), records: s.tx.Bucket(recordBucket).Cursor()}
		if err := e.subtree(root.Bytes()); err != nil {
			return err
		}
		return car.w.Flush()
	})
	return doing(err, "exporting the repository")
}

// exporter walks through the tree. Records are in the database in the order
// of the walk.
type exporter struct {
	car     *carWriter
	store   snapshot
	since   []byte
	records *bbolt.Cursor
}

func (e *exporter) subtree(link []byte) error {
	rev, data, err := e.store.nodeAndRev(link)
	if err != nil {
		return err
	}
	if bytes.Compare(rev, e.since) <= 0 { // it was there, and so was all below it
		return nil
	}
	n, err := parseNode(data)
	if err != nil {
		return err
	}
	if err := e.car.block(link, data); err != nil {
		return err
	}
	if n.left != nil {
		if err := e.subtree(n.left); err != nil {
			return err
		}
	}
	for _, entry := range n.entries {
		if err := e.record(entry); err != nil {
			return err
		}
		if entry.right != nil {
			if err := e.subtree(entry.right); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *exporter) record(entry nodeEntry) error {
	key, stored := e.records.Next()
	if !bytes.Equal(key, entry.key) { // the first, or some were left out
		key, stored = e.records.Seek(entry.key)
	}
	if !bytes.Equal(key, entry.key) || len(stored) < recordHeader || !bytes.Equal(stored[revLen:recordHeader], entry.value) {
		return fmt.Errorf("tree and records differ at %s", entry.key)
	}
	if bytes.Compare(stored[:revLen], e.since) <= 0 {
		return nil
	}
	return e.car.block(entry.value, stored[recordHeader:])
}

// Proof writes a CAR with the commit, the tree nodes that lead to path, and
// the record there; or, where there is none, the nodes that show it.
func (r *Repo) Proof(ctx context.Context, w io.Writer, path string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	var proof bytes.Buffer // small, and so the snapshot need not wait for the reader
	err := r.view(func(s snapshot) error {
		car, err := newCARWriter(ctx, &proof, s)
		if err != nil {
			return err
		}
		if err := prove(car, s, []byte(path)); err != nil {
			return err
		}
		return car.w.Flush()
	})
	if err == nil {
		_, err = proof.WriteTo(w)
	}
	return doing(err, "proving "+path)
}

func prove(car *carWriter, s snapshot, key []byte) error {
	root, err := s.root()
	if err != nil {
		return err
	}
	for link := root.Bytes(); link != nil; {
		_, data, err := s.nodeAndRev(link)
		if err != nil {
			return err
		}
		if err := car.block(link, data); err != nil {
			return err
		}
		n, err := parseNode(data)
		if err != nil {
			return err
		}
		link = n.left
		for _, e := range n.entries {
			order := bytes.Compare(e.key, key)
			if order == 0 {
				rec, err := s.record(string(key))
				if err != nil {
					return err
				}
				return car.block(rec.CID.Bytes(), rec.Value)
			}
			if order > 0 {
				break
			}
			link = e.right
		}
	}
	return nil
}

// Blocks writes a CAR with the blocks asked for: the current commit, nodes of
// the current tree, records. If one is none of these, it writes nothing and
// returns [ErrBlockNotFound].
func (r *Repo) Blocks(ctx context.Context, w io.Writer, cids []cid.Cid) error {
	err := r.view(func(s snapshot) error {
		commit := s.meta(commitName)
		commitCID := sum(cid.DagCBOR, commit)
		found := make([][]byte, len(cids))
		for i, c := range cids {
			data, ok := commit, c == commitCID
			if !ok {
				data, ok = s.block(c)
			}
			if !ok {
				return fmt.Errorf("%w: %s", ErrBlockNotFound, c)
			}
			found[i] = data
		}
		car := &carWriter{ctx: ctx, w: bufio.NewWriterSize(w, carBuffer)}
		if _, err := car.w.Write(carHeader(commitCID)); err != nil {
			return err
		}
		for i, c := range cids {
			if err := car.block(c.Bytes(), found[i]); err != nil {
				return err
			}
		}
		return car.w.Flush()
	})
	return doing(err, "reading blocks")
}

// doing wraps an error with what was being done, but for those of callers'
// contexts and writers, which tell enough.
func doing(err error, what string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}
