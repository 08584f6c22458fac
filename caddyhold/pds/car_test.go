package pds

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car"
	"go.etcd.io/bbolt"
)

// readCAR reads a CAR and checks its blocks against their CIDs.
func readCAR(tb testing.TB, data []byte) (blocks []block) {
	tb.Helper()
	cr, err := car.NewCarReader(bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	if len(cr.Header.Roots) != 1 || cr.Header.Version != 1 {
		tb.Fatalf("CAR header %+v", cr.Header)
	}
	for {
		b, err := cr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		if c := sum(cid.DagCBOR, b.RawData()); c != b.Cid() {
			tb.Fatalf("block %s has the data of %s", b.Cid(), c)
		}
		blocks = append(blocks, block{b.Cid(), b.RawData()})
	}
	if len(blocks) == 0 || blocks[0].cid != cr.Header.Roots[0] {
		tb.Fatal("the root is not the first block")
	}
	return blocks
}

func export(tb testing.TB, r *Repo, since string) []byte {
	tb.Helper()
	var out bytes.Buffer
	if err := r.Export(tb.Context(), &out, since); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// checkExport loads a full export elsewhere, and streams it.
func checkExport(t *testing.T, r *Repo, model map[string][]byte) {
	t.Helper()
	data := export(t, r, "")
	commit, loaded, err := atrepo.LoadRepoFromCAR(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if commit.Rev != r.Head().Rev || commit.Data != r.Head().Data {
		t.Fatalf("exported commit %+v, head %+v", commit, r.Head())
	}
	got := map[string]cid.Cid{}
	if err := loaded.MST.WriteToMap(got); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, cidsOf(model)) {
		t.Fatal("another content was exported")
	}
	streamed := stream(t, data)
	if !maps.EqualFunc(streamed, model, bytes.Equal) {
		t.Fatalf("streaming gives %d records instead of %d", len(streamed), len(model))
	}
}

// stream reads an export as a reader does that keeps no blocks: each must be
// the next one of the walk.
func stream(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	blocks := readCAR(t, data)
	next := func(want cid.Cid) []byte {
		if len(blocks) == 0 || blocks[0].cid != want {
			t.Fatalf("%s does not come next", want)
		}
		b := blocks[0]
		blocks = blocks[1:]
		return b.data
	}
	var commit atrepo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(next(blocks[0].cid))); err != nil {
		t.Fatal(err)
	}
	records := map[string][]byte{}
	var visit func(c cid.Cid)
	visit = func(c cid.Cid) {
		n, err := parseNode(next(c))
		if err != nil {
			t.Fatal(err)
		}
		if n.left != nil {
			visit(mustCID(t, n.left))
		}
		for _, e := range n.entries {
			records[string(e.key)] = next(mustCID(t, e.value))
			if e.right != nil {
				visit(mustCID(t, e.right))
			}
		}
	}
	visit(commit.Data)
	if len(blocks) > 0 {
		t.Fatalf("%d blocks too many", len(blocks))
	}
	return records
}

func mustCID(tb testing.TB, b []byte) cid.Cid {
	tb.Helper()
	c, err := cid.Cast(b)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// A reader with the blocks of an older export and those of an export since
// then has the whole repository, and was sent nothing it had.
func TestExportSinceCompletesAnOlderExport(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	r := open(t, newDB(t))
	model := map[string][]byte{}
	type older struct {
		rev    string
		blocks map[cid.Cid]bool
	}
	exports := []older{}
	for range 30 {
		update(t, r, func(tx *Tx) error { return randomWrites(t, rnd, tx, model, 300) })
		blocks := map[cid.Cid]bool{}
		for _, b := range readCAR(t, export(t, r, "")) {
			blocks[b.cid] = true
		}
		exports = append(exports, older{r.Head().Rev, blocks})
	}
	current := readCAR(t, export(t, r, ""))
	for i, old := range exports {
		diff := map[cid.Cid]bool{}
		for _, b := range readCAR(t, export(t, r, old.rev)) {
			diff[b.cid] = true
		}
		for _, b := range current {
			if !old.blocks[b.cid] && !diff[b.cid] {
				t.Fatalf("export since commit %d lacks %s", i, b.cid)
			}
		}
		if i == len(exports)-1 && len(diff) != 1 {
			t.Fatalf("export since the head has %d blocks", len(diff))
		}
		if i > 20 && len(diff) > len(current)/2 {
			t.Fatalf("export since commit %d has %d of %d blocks", i, len(diff), len(current))
		}
	}
	if got := readCAR(t, export(t, r, "2222222222222")); len(got) != len(current) {
		t.Fatalf("export since the beginning has %d blocks, not %d", len(got), len(current))
	}
}

func TestExportIsOneSnapshot(t *testing.T) {
	r := open(t, newDB(t))
	model := map[string][]byte{}
	for i := range 300 {
		model[path(key(i))] = thing(t, i)
	}
	update(t, r, func(tx *Tx) error { return putAll(tx, model) })

	writer := &duringWrite{do: func() {
		put(t, r, path(key(7)), thing(t, 1000))
		update(t, r, func(tx *Tx) error { return tx.Delete(path(key(8))) })
	}}
	if err := r.Export(t.Context(), writer, ""); err != nil {
		t.Fatal(err)
	}
	if got := stream(t, writer.Bytes()); !maps.EqualFunc(got, model, bytes.Equal) {
		t.Fatal("an export saw commits that came during it")
	}
}

// duringWrite does something once, while it is written to.
type duringWrite struct {
	bytes.Buffer
	do func()
}

func (w *duringWrite) Write(p []byte) (int, error) {
	if w.do != nil {
		w.do()
		w.do = nil
	}
	return w.Buffer.Write(p)
}

func putAll(tx *Tx, records map[string][]byte) error {
	for p, v := range records {
		if _, err := tx.Put(p, v); err != nil {
			return err
		}
	}
	return nil
}

func TestExportEndsWithItsContextAndItsWriter(t *testing.T) {
	r := open(t, newDB(t))
	put(t, r, path("a"), thing(t, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Export(ctx, io.Discard, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := r.Export(t.Context(), brokenPipe{}, ""); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("broken: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestProofShowsPresenceAndAbsence(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	r := open(t, newDB(t))
	check := func(p string, want []byte) {
		t.Helper()
		var out bytes.Buffer
		if err := r.Proof(t.Context(), &out, p); err != nil {
			t.Fatal(err)
		}
		_, loaded, err := atrepo.LoadRepoFromCAR(t.Context(), &out)
		if err != nil {
			t.Fatal(err)
		}
		c, err := loaded.MST.Get([]byte(p))
		switch {
		case err != nil:
			t.Fatalf("%s is not proven: %v", p, err)
		case want == nil && c != nil:
			t.Fatalf("%s is proven to be there", p)
		case want == nil:
			return
		case c == nil || *c != sum(cid.DagCBOR, want):
			t.Fatalf("%s is proven to be %v", p, c)
		}
		b, err := loaded.RecordStore.Get(t.Context(), *c)
		if err != nil || !bytes.Equal(b.RawData(), want) {
			t.Fatalf("record %s: %v", p, err)
		}
	}
	check(path("nothing"), nil)
	model := map[string][]byte{}
	for i := range 500 {
		model[path(key(i))] = thing(t, i)
	}
	update(t, r, func(tx *Tx) error { return putAll(tx, model) })
	for range 500 {
		p := path(key(rnd.IntN(1000)))
		check(p, model[p])
	}
	if err := r.Proof(t.Context(), io.Discard, "no path"); !errors.Is(err, ErrInvalidPath) {
		t.Error(err)
	}
}

func TestBlocksAreFoundByCID(t *testing.T) {
	r := open(t, newDB(t))
	for i := range 50 {
		put(t, r, path(key(i)), thing(t, i%10))
	}
	all := readCAR(t, export(t, r, ""))
	var cids []cid.Cid
	for _, b := range all {
		cids = append(cids, b.cid)
	}
	var out bytes.Buffer
	if err := r.Blocks(t.Context(), &out, cids); err != nil {
		t.Fatal(err)
	}
	got := readCAR(t, out.Bytes())
	if !slices.EqualFunc(got, all, func(a, b block) bool { return a.cid == b.cid && bytes.Equal(a.data, b.data) }) {
		t.Fatalf("%d blocks instead of %d", len(got), len(all))
	}

	update(t, r, func(tx *Tx) error { // one of several records with that value
		_, err := tx.Put(path(key(3)), thing(t, 99))
		return err
	})
	if err := r.Blocks(t.Context(), io.Discard, []cid.Cid{sum(cid.DagCBOR, thing(t, 3))}); err != nil {
		t.Error(err)
	}
	out.Reset()
	for _, missing := range []cid.Cid{sum(cid.DagCBOR, []byte("?")), cids[1], cid.NewCidV0(cids[0].Hash())} {
		err := r.Blocks(t.Context(), &out, []cid.Cid{r.Head().Commit, missing})
		if !errors.Is(err, ErrBlockNotFound) || out.Len() > 0 {
			t.Errorf("%s: %v after %d bytes", missing, err, out.Len())
		}
	}
}

func TestEventOfOneBigUpdateIsSplit(t *testing.T) {
	tests := []struct {
		name    string
		records int
		size    int
		commits int
	}{
		{"200 operations are one commit", 200, 10, 1},
		{"201 operations are two", 201, 10, 2},
		{"1000 operations are five", 1000, 10, 5},
		{"one record of the greatest size", 1, MaxRecordSize - 100, 1},
		{"three of them", 3, MaxRecordSize - 100, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var indexed int
			r := open(t, newDB(t), func(c *Config) { c.Index = countChanges(&indexed) })
			before := r.Head()
			model := map[string][]byte{}
			for i := range test.records {
				model[path(key(i))] = value(t, collection, map[string]any{
					"n": int64(i), "pad": string(bytes.Repeat([]byte("x"), test.size)),
				})
			}
			head := update(t, r, func(tx *Tx) error { return putAll(tx, model) })
			if n := head.Seq - before.Seq; n < int64(test.commits) || n > int64(test.commits)+1 {
				t.Errorf("%d commits instead of %d", n, test.commits)
			}
			if indexed != test.records {
				t.Errorf("%d changes indexed", indexed)
			}
			checkTree(t, r, model)
			checkStored(t, r, model)
			checkFirehose(t, replay(t, r, 0), head, model)
		})
	}
}

func countChanges(n *int) func(*bbolt.Tx, []Change) error {
	return func(_ *bbolt.Tx, changes []Change) error {
		*n += len(changes)
		return nil
	}
}

func loadCommit(t *testing.T, data []byte) (*atrepo.Commit, *cid.Cid, error) {
	t.Helper()
	return atrepo.LoadCommitFromCAR(t.Context(), bytes.NewReader(data))
}
