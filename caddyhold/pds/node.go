package pds

import (
	"errors"
	"fmt"
	"slices"
)

// node is a node of the Merkle search tree as it is stored
// (https://atproto.com/specs/repository#mst-structure), with whole keys. Its
// links are the bytes of CIDs, and parts of what was parsed.
type node struct {
	left    []byte // subtree of all lower keys, or nil
	entries []nodeEntry
}

type nodeEntry struct {
	key   []byte
	value []byte // the record
	right []byte // subtree of the keys up to the next entry, or nil
}

// parseNode decodes the DAG-CBOR {e: [{k, p, t, v}], l}.
func parseNode(b []byte) (node, error) {
	n, err := (&nodeReader{cborReader{b}}).node()
	if err != nil {
		return node{}, fmt.Errorf("tree node: %w", err)
	}
	return n, nil
}

type nodeReader struct {
	cborReader
}

func (r *nodeReader) node() (n node, err error) {
	if fields, err := r.expect(majorMap); err != nil || fields != 2 {
		return n, errors.Join(err, errors.New("not two fields"))
	}
	if err := r.key("e"); err != nil {
		return n, err
	}
	count, err := r.expect(majorArray)
	if err != nil {
		return n, err
	}
	if count > uint64(len(r.b)) {
		return n, errTruncated
	}
	n.entries = make([]nodeEntry, count)
	var before []byte
	for i := range n.entries {
		if n.entries[i], err = r.entry(before); err != nil {
			return n, err
		}
		before = n.entries[i].key
	}
	if err := r.key("l"); err != nil {
		return n, err
	}
	n.left, err = r.optionalLink()
	return n, err
}

// entry reads an entry, whose key begins like the one before it.
func (r *nodeReader) entry(before []byte) (e nodeEntry, err error) {
	if fields, err := r.expect(majorMap); err != nil || fields != 4 {
		return e, errors.Join(err, errors.New("not four fields in an entry"))
	}
	if err := r.key("k"); err != nil {
		return e, err
	}
	n, err := r.expect(majorBytes)
	if err != nil {
		return e, err
	}
	suffix, err := r.take(n)
	if err != nil {
		return e, err
	}
	if err := r.key("p"); err != nil {
		return e, err
	}
	shared, err := r.expect(majorUint)
	if err != nil {
		return e, err
	}
	if shared > uint64(len(before)) {
		return e, errors.New("longer common prefix than key")
	}
	if shared == 0 {
		e.key = suffix
	} else {
		e.key = slices.Concat(before[:shared], suffix)
	}
	if err := r.key("t"); err != nil {
		return e, err
	}
	if e.right, err = r.optionalLink(); err != nil {
		return e, err
	}
	if err := r.key("v"); err != nil {
		return e, err
	}
	if e.value, err = r.optionalLink(); err == nil && e.value == nil {
		err = errors.New("entry without a value")
	}
	return e, err
}

// children calls visit with the subtrees, in order.
func (n node) children(visit func(link []byte) error) error {
	if n.left != nil {
		if err := visit(n.left); err != nil {
			return err
		}
	}
	for _, e := range n.entries {
		if e.right != nil {
			if err := visit(e.right); err != nil {
				return err
			}
		}
	}
	return nil
}
