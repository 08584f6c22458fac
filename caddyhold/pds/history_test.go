package pds

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

// Random histories: whatever is written, the tree is the one that a rebuild
// gives, nothing else is stored, and every event proves itself.
func TestHistoryIsThatOfAModel(t *testing.T) {
	seeds, commits := 40, 60
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			testHistory(t, uint64(seed), commits)
		})
	}
}

// The same with a deep tree and commits of many changes, which need longer
// proofs.
func TestEventsOfABigRepositoryProveThemselves(t *testing.T) {
	keys, commits := 4000, 150
	if testing.Short() {
		keys, commits = 1000, 20
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	r := open(t, newDB(t))
	model := map[string][]byte{}
	for i := range keys {
		model[path(key(i))] = thing(t, 0)
	}
	update(t, r, func(tx *Tx) error { return putAll(tx, model) })
	for range commits {
		update(t, r, func(tx *Tx) error {
			for range 1 + rnd.IntN(1+rnd.IntN(30)) {
				if err := randomWrites(t, rnd, tx, model, 2*keys); err != nil {
					return err
				}
			}
			return nil
		})
	}
	checkTree(t, r, model)
	checkStored(t, r, model)
	checkFirehose(t, replay(t, r, 0), r.Head(), model)
	checkExport(t, r, model)
}

func FuzzHistory(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(seed, uint8(30))
	}
	f.Fuzz(func(t *testing.T, seed uint64, commits uint8) {
		testHistory(t, seed, int(commits%64))
	})
}

func testHistory(t *testing.T, seed uint64, commits int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	keys := 1 + rnd.IntN(1+int(seed%5)*60) // small ones empty the tree often
	db := newDB(t)
	r := open(t, db)
	model := map[string][]byte{}
	for range commits {
		if rnd.IntN(10) == 0 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, db)
		}
		if rnd.IntN(10) == 0 {
			failUpdate(t, r, rnd, keys)
		}
		before, was := r.Head(), maps.Clone(model)
		head := update(t, r, func(tx *Tx) error {
			model = maps.Clone(was)
			return randomWrites(t, rnd, tx, model, keys)
		})
		if same := maps.EqualFunc(was, model, bytes.Equal); same != (head == before) {
			t.Fatalf("same content: %v, same head: %v", same, head == before)
		}
		if head.Rev < before.Rev || head.Seq < before.Seq {
			t.Fatalf("head went back from %v to %v", before, head)
		}
		checkTree(t, r, model)
	}
	checkStored(t, r, model)
	checkFirehose(t, replay(t, r, 0), r.Head(), model)
	checkExport(t, r, model)
}

func randomWrites(t *testing.T, rnd *rand.Rand, tx *Tx, model map[string][]byte, keys int) error {
	n := 1 + rnd.IntN(3)
	if rnd.IntN(8) == 0 {
		n = rnd.IntN(30)
	}
	for range n {
		p := path(key(rnd.IntN(keys)))
		v := thing(t, rnd.IntN(3))
		var err error
		switch rnd.IntN(5) {
		case 0, 1:
			err = tx.Delete(p)
			delete(model, p)
		case 2:
			if _, err = tx.Create(p, v); errors.Is(err, ErrRecordExists) != (model[p] != nil) {
				return fmt.Errorf("create: %w", err)
			}
			if err == nil {
				model[p] = v
			}
			err = nil
		default:
			_, err = tx.Put(p, v)
			model[p] = v
		}
		if err != nil {
			return err
		}
		if rec, err := tx.Get(p); !bytes.Equal(rec.Value, model[p]) {
			return fmt.Errorf("a write is not seen: %w", err)
		}
	}
	return nil
}

func failUpdate(t *testing.T, r *Repo, rnd *rand.Rand, keys int) {
	mistake := errors.New("mistake")
	before := r.Head()
	lent := rnd.IntN(2) == 0
	_, err := r.Update(t.Context(), func(tx *Tx) error {
		if lent {
			tx.Bolt()
		}
		return errors.Join(randomWrites(t, rnd, tx, map[string][]byte{}, keys), mistake)
	})
	if !errors.Is(err, mistake) || r.Head() != before {
		t.Fatalf("%v, head %v instead of %v", err, r.Head(), before)
	}
}

func cidsOf(model map[string][]byte) map[string]cid.Cid {
	cids := map[string]cid.Cid{}
	for p, v := range model {
		cids[p] = sum(cid.DagCBOR, v)
	}
	return cids
}

func checkTree(t *testing.T, r *Repo, model map[string][]byte) {
	t.Helper()
	tree, err := mst.LoadTreeFromMap(cidsOf(model))
	if err != nil {
		t.Fatal(err)
	}
	want, err := tree.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Head().Data; got != *want {
		t.Fatalf("root is %s, not %s, with %d records", got, want, len(model))
	}
}

// checkStored compares the buckets with what the model says must be in them.
func checkStored(t *testing.T, r *Repo, model map[string][]byte) {
	t.Helper()
	err := r.view(func(s snapshot) error {
		reachable := map[string]bool{}
		var visit func(link []byte) error
		visit = func(link []byte) error {
			reachable[string(link)] = true
			_, data, err := s.nodeAndRev(link)
			if err != nil {
				return err
			}
			if got := sum(cid.DagCBOR, data).Bytes(); !bytes.Equal(got, link) {
				return fmt.Errorf("node %x is stored as %x", got, link)
			}
			n, err := parseNode(data)
			if err != nil {
				return err
			}
			return n.children(visit)
		}
		if err := visit(r.Head().Data.Bytes()); err != nil {
			return err
		}
		if n := count(s.tx, nodeBucket); n != len(reachable) {
			return fmt.Errorf("%d nodes stored, %d reachable", n, len(reachable))
		}
		if n := count(s.tx, recordBucket); n != len(model) {
			return fmt.Errorf("%d records stored, %d expected", n, len(model))
		}
		if n := count(s.tx, cidBucket); n != len(model) {
			return fmt.Errorf("%d CIDs stored for %d records", n, len(model))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, v := range model {
		rec, err := r.Record(p)
		if err != nil || !bytes.Equal(rec.Value, v) || rec.CID != sum(cid.DagCBOR, v) || rec.Rev == "" || rec.Rev > r.Head().Rev {
			t.Fatalf("record %+v, %v", rec, err)
		}
	}
}

func count(tx *bbolt.Tx, bucket []byte) (n int) {
	_ = tx.Bucket(bucket).ForEach(func(_, _ []byte) error {
		n++
		return nil
	})
	return n
}

// checkFirehose follows a whole log like a strict consumer.
func checkFirehose(t *testing.T, messages []message, head Head, model map[string][]byte) {
	t.Helper()
	state := map[string]cid.Cid{}
	var seq int64
	var last *atrepo.Commit
	for i, m := range messages {
		if seq != 0 && m.seq() != seq+1 {
			t.Fatalf("seq %d after %d", m.seq(), seq)
		}
		seq = m.seq()
		if i < 4 {
			if want := []string{"#identity", "#account", "#commit", "#sync"}[i]; m.kind != want {
				t.Fatalf("event %d is %s, not %s", i, m.kind, want)
			}
		}
		if m.commit == nil {
			continue
		}
		last = checkCommit(t, m, last, state)
	}
	if !maps.Equal(state, cidsOf(model)) {
		t.Fatal("the firehose tells of another content")
	}
	if last.Data != head.Data || last.Rev != head.Rev || seq != head.Seq {
		t.Fatalf("the firehose ends with rev %s, seq %d, the head is %+v", last.Rev, seq, head)
	}
}

// checkCommit verifies a #commit with nothing but the one before, and applies
// it to the state.
func checkCommit(t *testing.T, m message, last *atrepo.Commit, state map[string]cid.Cid) *atrepo.Commit {
	t.Helper()
	c := m.commit
	if _, err := atrepo.VerifyCommitMessage(t.Context(), c); err != nil {
		t.Fatalf("seq %d: %v", c.Seq, err)
	}
	commit, commitCID, err := atrepo.LoadCommitFromCAR(t.Context(), bytes.NewReader(c.Blocks))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := testKey.PublicKey()
	if err := commit.VerifySignature(pub); err != nil {
		t.Fatal(err)
	}
	if commit.Prev != nil || commit.Version != 3 || commit.DID != testDID || cid.Cid(c.Commit) != *commitCID || c.Repo != testDID || c.Rev != commit.Rev {
		t.Fatalf("commit %+v of event %+v", commit, c)
	}
	if c.Rebase || c.TooBig || len(c.Blobs) != 0 || len(c.Ops) > 200 || len(c.Blocks) > 2_000_000 {
		t.Fatalf("event of seq %d is out of bounds", c.Seq)
	}
	if last == nil {
		if c.Since != nil || c.PrevData != nil {
			t.Fatal("the first commit has a predecessor")
		}
	} else if c.Since == nil || *c.Since != last.Rev || c.PrevData == nil || cid.Cid(*c.PrevData) != last.Data || c.Rev <= last.Rev {
		t.Fatalf("rev %s since %v with prevData %v does not follow rev %s with %s", c.Rev, c.Since, c.PrevData, last.Rev, last.Data)
	}
	for _, op := range c.Ops {
		var prev cid.Cid
		if op.Prev != nil {
			prev = cid.Cid(*op.Prev)
		}
		if state[op.Path] != prev {
			t.Fatalf("%s %s: prev is %s, not %s", op.Action, op.Path, prev, state[op.Path])
		}
		switch {
		case op.Action == "create" && op.Cid != nil && op.Prev == nil, op.Action == "update" && op.Cid != nil && op.Prev != nil:
			state[op.Path] = cid.Cid(*op.Cid)
		case op.Action == "delete" && op.Cid == nil && op.Prev != nil:
			delete(state, op.Path)
		default:
			t.Fatalf("op %+v", op)
		}
	}
	checkEventBlocks(t, c.Blocks, state)
	return commit
}

// checkEventBlocks wants in a CAR no block twice, and no records that are no
// more.
func checkEventBlocks(t *testing.T, car []byte, state map[string]cid.Cid) {
	t.Helper()
	live := slices.Collect(maps.Values(state))
	seen := map[cid.Cid]bool{}
	for _, b := range readCAR(t, car) {
		if seen[b.cid] {
			t.Fatalf("block %s comes twice", b.cid)
		}
		seen[b.cid] = true
		if bytes.Contains(b.data, []byte(collection)) && bytes.Contains(b.data, []byte("$type")) && !slices.Contains(live, b.cid) {
			t.Fatalf("a record that is no more is in the blocks")
		}
	}
}
