package pds

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// maxTreeNodes bounds what a tree keeps in memory, at about a kilobyte each.
const maxTreeNodes = 4096

// tree is the writer's Merkle search tree: those nodes that changes have come
// by. After an error it is in no defined state and must be opened anew.
type tree struct {
	mst   mst.Tree
	nodes int // about how many are in memory
}

// openTree starts with the root alone.
func openTree(s snapshot, root cid.Cid) (*tree, error) {
	n, err := loadNode(s, root)
	if err != nil {
		return nil, err
	}
	if len(n.Entries) == 0 {
		return &tree{mst: mst.NewEmptyTree()}, nil
	}
	for _, e := range n.Entries { // a root has a key of its own, else its child were the root
		if e.IsValue() {
			n.Height = mst.HeightForKey(e.Key)
			break
		}
	}
	return &tree{mst: mst.Tree{Root: n}, nodes: 1}, nil
}

// loadNode reads a node without its children; the caller sets the height.
func loadNode(s snapshot, c cid.Cid) (*mst.Node, error) {
	data, err := s.node(c)
	if err != nil {
		return nil, err
	}
	stored, err := parseNode(bytes.Clone(data)) // the tree outlives the transaction
	if err != nil {
		return nil, err
	}
	n := &mst.Node{CID: &c, Entries: make([]mst.NodeEntry, 0, 2*len(stored.entries)+1)}
	addChild := func(link []byte) error {
		child, err := cid.Cast(link)
		n.Entries = append(n.Entries, mst.NodeEntry{ChildCID: &child})
		return err
	}
	if stored.left != nil {
		if err := addChild(stored.left); err != nil {
			return nil, err
		}
	}
	for _, e := range stored.entries {
		value, err := cid.Cast(e.value)
		if err != nil {
			return nil, err
		}
		n.Entries = append(n.Entries, mst.NodeEntry{Key: e.key, Value: &value})
		if e.right != nil {
			if err := addChild(e.right); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// put sets the value of a key.
func (t *tree) put(s snapshot, path string, value cid.Cid) error {
	key := []byte(path)
	if err := t.load(s, t.mst.Root, key); err != nil {
		return err
	}
	_, err := t.mst.Insert(key, value)
	return err
}

// remove takes a key out.
func (t *tree) remove(s snapshot, path string) error {
	key := []byte(path)
	if err := t.load(s, t.mst.Root, key); err != nil {
		return err
	}
	if _, err := t.mst.Remove(key); err != nil {
		return err
	}
	if t.mst.IsEmpty() { // which it would go on being at its old height
		t.mst = mst.NewEmptyTree()
	}
	return nil
}

// load reads the nodes that a change of key may touch: all between whose
// neighbours it lies, and where it is a neighbour itself, those on both sides.
func (t *tree) load(s snapshot, n *mst.Node, key []byte) error {
	for i := range n.Entries {
		e := &n.Entries[i]
		if !e.IsChild() {
			continue
		}
		if i > 0 && bytes.Compare(key, n.Entries[i-1].Key) < 0 {
			return nil
		}
		if i+1 < len(n.Entries) && bytes.Compare(key, n.Entries[i+1].Key) > 0 {
			continue
		}
		if e.Child == nil {
			child, err := loadNode(s, *e.ChildCID)
			if err != nil {
				return err
			}
			child.Height = n.Height - 1
			e.Child = child
			t.nodes++
		}
		if err := t.load(s, e.Child, key); err != nil {
			return err
		}
	}
	return nil
}

// encode returns the nodes that changed since the last call, and those that
// prove the change to who has nothing else of the tree
// (https://atproto.com/specs/sync#commit-validation-mst-operation-inversion),
// parents first; so the first is the root.
func (t *tree) encode() ([]block, error) {
	t.mst.Root.Dirty = true // also a root that was there before, further down
	blocks, err := encodeNode(t.mst.Root, nil)
	t.nodes += len(blocks)
	return blocks, err
}

func encodeNode(n *mst.Node, blocks []block) ([]block, error) {
	if n.Stub {
		return nil, mst.ErrPartialTree
	}
	place := len(blocks)
	blocks = append(blocks, block{})
	for i := range n.Entries {
		e := &n.Entries[i]
		e.Dirty = false
		if e.Child == nil {
			continue
		}
		if e.Child.Dirty {
			var err error
			if blocks, err = encodeNode(e.Child, blocks); err != nil {
				return nil, err
			}
		}
		e.ChildCID = e.Child.CID
	}
	data := n.NodeData()
	encoded, c, err := data.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding a tree node: %w", err)
	}
	n.CID, n.Dirty = c, false
	blocks[place] = block{*c, encoded}
	return blocks, nil
}

// superseded lists the nodes under an old root that a new tree no longer has.
// Given are the new tree's nodes that were written: every other node it has
// is below one of their children, which are as they were. So the search is
// over where it meets one of either.
func superseded(s snapshot, oldRoot cid.Cid, written []block) ([]cid.Cid, error) {
	live := make(map[string]bool, 4*len(written))
	for _, b := range written {
		live[b.cid.KeyString()] = true
		n, err := parseNode(b.data)
		if err != nil {
			return nil, err
		}
		_ = n.children(func(link []byte) error {
			live[string(link)] = true
			return nil
		})
	}
	var dead []cid.Cid
	var visit func(link []byte) error
	visit = func(link []byte) error {
		if live[string(link)] {
			return nil
		}
		c, err := cid.Cast(link)
		if err != nil {
			return err
		}
		dead = append(dead, c)
		data, err := s.node(c)
		if err != nil {
			return err
		}
		n, err := parseNode(data)
		if err != nil {
			return err
		}
		return n.children(visit)
	}
	return dead, visit(oldRoot.Bytes())
}
