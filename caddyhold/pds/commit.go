package pds

import (
	"bytes"
	"errors"
	"fmt"

	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
)

// Limits of a commit's event (https://atproto.com/specs/sync#message-types).
const (
	maxCommitOps  = 200
	maxCommitSize = 2_000_000 // bytes of its CAR
)

var errCommitTooBig = errors.New("too much for one commit")

// transaction is one of the writer's, on its way from one durable state to
// the next.
type transaction struct {
	repo  *Repo
	store snapshot
	head  Head
	dirty bool // there is something to make durable
}

// apply makes commits, most often one, of what an update wrote.
func (t *transaction) apply(tx *Tx) error {
	writes := tx.changed()
	if len(writes) == 0 {
		return nil
	}
	t.dirty = true
	if err := t.commit(writes); err != nil {
		return fmt.Errorf("making a commit: %w", err)
	}
	t.repo.cfg.Crash(CrashStored)
	if t.repo.cfg.Index != nil {
		changes := make([]Change, len(writes))
		for i, w := range writes {
			changes[i] = w.change
		}
		if err := t.repo.cfg.Index(t.store.tx, changes); err != nil {
			return fmt.Errorf("indexing a commit: %w", err)
		}
	}
	t.repo.cfg.Crash(CrashIndexed)
	return nil
}

// commit makes a commit of writes, or as many as they need.
func (t *transaction) commit(writes []*write) error {
	if len(writes) <= maxCommitOps {
		err := t.commitOne(writes)
		if len(writes) == 1 || !errors.Is(err, errCommitTooBig) {
			return err
		}
	}
	half := min(len(writes)/2, maxCommitOps)
	if err := t.commit(writes[:half]); err != nil {
		return err
	}
	return t.commit(writes[half:])
}

func (t *transaction) commitOne(writes []*write) error {
	tree := t.repo.tree
	t.repo.tree = nil // until all has gone well
	if tree == nil || tree.nodes > maxTreeNodes {
		var err error
		if tree, err = openTree(t.store, t.head.Data); err != nil {
			return err
		}
	}
	for _, w := range writes {
		var err error
		if w.change.New == nil {
			err = tree.remove(t.store, w.change.Path)
		} else {
			err = tree.put(t.store, w.change.Path, w.change.CID)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.change.Path, err)
		}
	}
	if err := t.commitTree(tree, writes); err != nil {
		return err
	}
	t.repo.tree = tree
	return nil
}

// commitTree stores what a tree and its records have become, signs it and
// appends the event. Before the first commit there is nothing to replace.
func (t *transaction) commitTree(tree *tree, writes []*write) error {
	before := t.head
	nodes, err := tree.encode()
	if err != nil {
		return err
	}
	size := 0
	for _, b := range nodes {
		size += len(b.data) + carOverhead
	}
	for _, w := range writes {
		size += len(w.change.New) + carOverhead
	}
	if size+maxCommitBlock > maxCommitSize && len(writes) > 1 {
		return errCommitTooBig
	}

	commit, err := t.sign(nodes[0].cid)
	if err != nil {
		return err
	}
	if err := t.storeTree(before.Data, nodes); err != nil {
		return err
	}
	if err := t.storeRecords(writes); err != nil {
		return err
	}
	return t.announceCommit(before, commit, nodes, writes)
}

// sign makes a commit with a new rev of the tree with that root, and stores
// it as the head (https://atproto.com/specs/repository#commit-objects).
func (t *transaction) sign(root cid.Cid) (block, error) {
	c := atrepo.Commit{
		DID:     t.repo.cfg.DID.String(),
		Version: atrepo.ATPROTO_REPO_VERSION,
		Data:    root,
		Rev:     t.repo.clock.next(),
	}
	if err := c.Sign(t.repo.cfg.Key); err != nil {
		return block{}, fmt.Errorf("signing: %w", err)
	}
	var encoded bytes.Buffer
	if err := c.MarshalCBOR(&encoded); err != nil {
		return block{}, fmt.Errorf("encoding: %w", err)
	}
	b := block{sum(cid.DagCBOR, encoded.Bytes()), encoded.Bytes()}
	t.head.Commit, t.head.Data, t.head.Rev = b.cid, root, c.Rev
	return b, t.store.putMeta(commitName, b.data)
}

// storeTree adds nodes and removes those that they replace.
func (t *transaction) storeTree(oldRoot cid.Cid, nodes []block) error {
	if oldRoot.Defined() {
		dead, err := superseded(t.store, oldRoot, nodes)
		if err != nil {
			return err
		}
		for _, c := range dead {
			if err := t.store.deleteNode(c); err != nil {
				return err
			}
		}
	}
	for _, b := range nodes {
		if err := t.store.putNode(t.head.Rev, b); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) storeRecords(writes []*write) error {
	for _, w := range writes {
		path := w.change.Path
		for _, blob := range w.oldBlobs {
			if err := t.store.deleteBlobRef(blob, path); err != nil {
				return err
			}
		}
		for _, blob := range w.newBlobs {
			if err := t.store.putBlobRef(blob, path, t.head.Rev); err != nil {
				return err
			}
		}
		var err error
		if w.change.New == nil {
			err = t.store.deleteRecord(path, w.oldCID)
		} else {
			err = t.store.putRecord(path, t.head.Rev, w.oldCID, w.change.CID, w.change.New)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
