package pds

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

// Tx is what the function of [Repo.Update] works with, until it returns. It
// sees the repository as it will be after the updates before it, and its own
// writes.
type Tx struct {
	store  snapshot
	head   Head
	clock  *clock
	writes map[string]*write // by path
	lent   bool              // Bolt was called
}

// write is the change of one record so far.
type write struct {
	change   Change
	oldCID   cid.Cid
	oldBlobs []cid.Cid
	newBlobs []cid.Cid
}

// Head is the state that the writes apply to.
func (tx *Tx) Head() Head { return tx.head }

// Get returns the record at path, or [ErrRecordNotFound].
func (tx *Tx) Get(path string) (Record, error) {
	w, ok := tx.writes[path]
	if !ok {
		return tx.store.recordCopy(path)
	}
	if w.change.New == nil {
		return Record{}, fmt.Errorf("%w: %s", ErrRecordNotFound, path)
	}
	return Record{Path: path, CID: w.change.CID, Value: bytes.Clone(w.change.New)}, nil
}

// Create writes a record where there is none, else it returns
// [ErrRecordExists]. What it returns [ErrInvalidPath] or [ErrInvalidRecord]
// for, see [Tx.Put].
func (tx *Tx) Create(path string, value []byte) (cid.Cid, error) {
	blobs, err := checkRecord(path, value)
	if err != nil {
		return cid.Undef, err
	}
	w, err := tx.write(path)
	if err != nil {
		return cid.Undef, err
	}
	if w.change.New != nil {
		return cid.Undef, fmt.Errorf("%w: %s", ErrRecordExists, path)
	}
	return w.set(value, blobs), nil
}

// Put writes a record, whether or not there is one. The path must be a
// collection and a record key, else it returns [ErrInvalidPath]. The value
// must be a map in DAG-CBOR of at most [MaxRecordSize] bytes, whose $type is
// the collection, without floating-point numbers, integers of more than 53
// bits, or more than 32 levels, else it returns [ErrInvalidRecord].
func (tx *Tx) Put(path string, value []byte) (cid.Cid, error) {
	blobs, err := checkRecord(path, value)
	if err != nil {
		return cid.Undef, err
	}
	w, err := tx.write(path)
	if err != nil {
		return cid.Undef, err
	}
	return w.set(value, blobs), nil
}

// Delete removes a record; where there is none, it does nothing.
func (tx *Tx) Delete(path string) error {
	w, err := tx.write(path)
	if err != nil {
		return err
	}
	w.change.New, w.change.CID, w.newBlobs = nil, cid.Undef, nil
	return nil
}

// NextTID returns a new timestamp identifier, for use as a record key. None
// is returned twice, also over restarts.
func (tx *Tx) NextTID() string { return tx.clock.next() }

// Bolt is the database transaction that the writes will be part of. What is
// written to it is kept if and only if the function succeeds.
func (tx *Tx) Bolt() *bbolt.Tx {
	tx.lent = true
	return tx.store.tx
}

// write is the change of the record at path; where there was none, it begins
// with what is stored.
func (tx *Tx) write(path string) (*write, error) {
	if w, ok := tx.writes[path]; ok {
		return w, nil
	}
	w := &write{change: Change{Path: path}}
	old, err := tx.store.record(path)
	switch {
	case err == nil:
		_, blobs, err := inspect(old.Value)
		if err != nil {
			return nil, fmt.Errorf("damaged record at %s: %w", path, err)
		}
		w.change.Old, w.change.New, w.change.CID = old.Value, old.Value, old.CID
		w.oldCID, w.oldBlobs, w.newBlobs = old.CID, blobs, blobs
	case !errors.Is(err, ErrRecordNotFound):
		return nil, err
	}
	tx.writes[path] = w
	return w, nil
}

func (w *write) set(value []byte, blobs []cid.Cid) cid.Cid {
	c := sum(cid.DagCBOR, value)
	if c != w.change.CID {
		w.change.New, w.change.CID, w.newBlobs = bytes.Clone(value), c, blobs
	}
	return c
}

// changed lists, in the order of their paths, the writes that make a
// difference.
func (tx *Tx) changed() (writes []*write) {
	for _, path := range slices.Sorted(maps.Keys(tx.writes)) {
		if w := tx.writes[path]; w.change.CID != w.oldCID {
			writes = append(writes, w)
		}
	}
	return writes
}

// action names the change as the firehose does.
func (w *write) action() string {
	switch {
	case !w.oldCID.Defined():
		return "create"
	case w.change.New == nil:
		return "delete"
	}
	return "update"
}
