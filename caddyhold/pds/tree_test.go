package pds

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

// inTransaction runs fn in a write transaction of a new database.
func inTransaction(t *testing.T, fn func(s snapshot) error) {
	t.Helper()
	err := newDB(t).Update(func(tx *bbolt.Tx) error {
		s := snapshot{tx}
		if err := s.createBuckets(); err != nil {
			return err
		}
		return fn(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func storeNodes(s snapshot, nodes []block) error {
	for _, b := range nodes {
		if err := s.putNode("2222222222222", b); err != nil {
			return err
		}
	}
	return nil
}

// The fixtures are of atproto-interop-tests; see testdata/README.md.
func TestChangesComeWithTheProofOfTheInteropFixtures(t *testing.T) {
	data, err := os.ReadFile("testdata/commit-proof-fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixtures []struct {
		Comment, LeafValue                string
		Keys, Adds, Dels                  []string
		RootBeforeCommit, RootAfterCommit string
		BlocksInProof                     []string
	}
	if err := json.Unmarshal(data, &fixtures); err != nil {
		t.Fatal(err)
	}
	if len(fixtures) != 6 {
		t.Fatalf("%d fixtures", len(fixtures))
	}
	for _, f := range fixtures {
		t.Run(f.Comment, func(t *testing.T) {
			leaf, err := cid.Decode(f.LeafValue)
			if err != nil {
				t.Fatal(err)
			}
			inTransaction(t, func(s snapshot) error {
				whole := &tree{mst: mst.NewEmptyTree()}
				for _, k := range f.Keys {
					if err := whole.put(s, k, leaf); err != nil {
						return err
					}
				}
				nodes, err := whole.encode()
				if err != nil {
					return err
				}
				if got := nodes[0].cid.String(); got != f.RootBeforeCommit {
					t.Fatalf("root before is %s", got)
				}
				if err := storeNodes(s, nodes); err != nil {
					return err
				}

				partial, err := openTree(s, nodes[0].cid)
				if err != nil {
					return err
				}
				for _, k := range f.Adds {
					if err := partial.put(s, k, leaf); err != nil {
						return err
					}
				}
				for _, k := range f.Dels {
					if err := partial.remove(s, k); err != nil {
						return err
					}
				}
				nodes, err = partial.encode()
				if err != nil {
					return err
				}
				if got := nodes[0].cid.String(); got != f.RootAfterCommit {
					t.Fatalf("root after is %s", got)
				}
				var proof []string
				for _, b := range nodes {
					proof = append(proof, b.cid.String())
				}
				slices.Sort(proof)
				slices.Sort(f.BlocksInProof)
				if !slices.Equal(proof, f.BlocksInProof) {
					t.Fatalf("proof is %v, not %v", proof, f.BlocksInProof)
				}
				return nil
			})
		})
	}
}

// A tree that was opened anew at any time has the root of one that was built
// at once, and what it replaced is what is to be removed.
func TestPartialTreeIsTheWholeTree(t *testing.T) {
	keys, steps := 3000, 4000
	if testing.Short() {
		keys, steps = 1000, 800
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	values := []cid.Cid{sum(cid.DagCBOR, []byte("a")), sum(cid.DagCBOR, []byte("b"))}
	model := map[string]cid.Cid{}
	inTransaction(t, func(s snapshot) error {
		tr := &tree{mst: mst.NewEmptyTree()}
		root := cid.Undef
		for step := range steps {
			for range 1 + rnd.IntN(4) {
				k := path(key(rnd.IntN(keys)))
				if rnd.IntN(3) == 0 {
					delete(model, k)
					if err := tr.remove(s, k); err != nil {
						return err
					}
				} else {
					model[k] = values[rnd.IntN(2)]
					if err := tr.put(s, k, model[k]); err != nil {
						return err
					}
				}
			}
			nodes, err := tr.encode()
			if err != nil {
				return err
			}
			if root.Defined() {
				dead, err := superseded(s, root, nodes)
				if err != nil {
					return err
				}
				for _, c := range dead {
					if err := s.deleteNode(c); err != nil {
						return err
					}
				}
			}
			if err := storeNodes(s, nodes); err != nil {
				return err
			}
			root = nodes[0].cid
			if rnd.IntN(4) == 0 {
				if tr, err = openTree(s, root); err != nil {
					return err
				}
			}
			if step%97 == 0 || step == steps-1 {
				want, err := mst.LoadTreeFromMap(maps.Clone(model))
				if err != nil {
					return err
				}
				if c, err := want.RootCID(); err != nil || *c != root {
					t.Fatalf("step %d: root %s instead of %s, %v", step, root, c, err)
				}
			}
		}
		return nil
	})
}

func FuzzParseNode(f *testing.F) {
	empty, _, _ := (&mst.NodeData{Entries: []mst.EntryData{}}).Bytes()
	c := sum(cid.DagCBOR, nil)
	full, _, _ := (&mst.NodeData{Left: &c, Entries: []mst.EntryData{
		{KeySuffix: []byte("com.example.a/1"), Value: c, Right: &c},
		{PrefixLen: 14, KeySuffix: []byte("2"), Value: c},
	}}).Bytes()
	f.Add(empty)
	f.Add(full)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNode(data)
		if err != nil {
			return
		}
		for _, e := range n.entries {
			if len(e.value) != cidLen || e.right != nil && len(e.right) != cidLen {
				t.Fatalf("entry %+v", e)
			}
		}
	})
}
