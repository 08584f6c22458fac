package pds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"go.etcd.io/bbolt"
)

// Of the process that is to crash: which database, at which step, how often
// passed.
const (
	crashDB   = "PDS_TEST_CRASH_DB"
	crashStep = "PDS_TEST_CRASH_STEP"
)

const crashAfter = 5 // passes of the step

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // indigo's remarks on first commits
	if db := os.Getenv(crashDB); db != "" {
		if err := writeUntilCrash(db, os.Getenv(crashStep)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

var indexedBucket = []byte("indexed")

func indexPaths(tx *bbolt.Tx, changes []Change) error {
	b, err := tx.CreateBucketIfNotExists(indexedBucket)
	for _, c := range changes {
		if err == nil {
			err = b.Put([]byte(c.Path), c.New)
		}
	}
	return err
}

// writeUntilCrash prints a byte for each update that has succeeded.
func writeUntilCrash(path, step string) error {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	key, err := LoadOrCreateKey(filepath.Join(filepath.Dir(path), "signing.key"))
	if err != nil {
		return err
	}
	passes := 0
	r, err := Open(Config{DB: db, DID: testDID, Handle: "hold.test", Key: key, Index: indexPaths, Crash: func(s string) {
		if s != step {
			return
		}
		if passes++; passes == crashAfter {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err != nil {
		return err
	}
	for i := range 2 * crashAfter {
		if _, err := r.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.Create(collection+"/"+crashKey(i), crashValue(i))
			return err
		}); err != nil {
			return err
		}
		fmt.Print(".")
	}
	return fmt.Errorf("step %q did not come", step)
}

func crashKey(i int) string { return fmt.Sprintf("key%d", i) }

// crashValue is {"n": i, "$type": collection}.
func crashValue(i int) []byte {
	b := []byte{0xa2, 0x61, 'n', byte(i), 0x65}
	b = append(b, "$type"...)
	return append(append(b, 0x60|byte(len(collection))), collection...)
}

func TestAfterACrashThereIsAllOfACommitOrNothing(t *testing.T) {
	for _, step := range []string{CrashBegin, CrashStored, CrashIndexed, CrashDurable, CrashAnnounce} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "hold.db")
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), crashDB+"="+path, crashStep+"="+step)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err == nil || errs.Len() > 0 {
				t.Fatalf("the process did not crash: %v, %s", err, &errs)
			}
			acknowledged := out.Len()
			if acknowledged != crashAfter-1 {
				t.Fatalf("%d updates succeeded", acknowledged)
			}

			key, err := LoadOrCreateKey(filepath.Join(filepath.Dir(path), "signing.key"))
			if err != nil {
				t.Fatal(err)
			}
			r := open(t, openDB(t, path), func(c *Config) { c.Key, c.Index = key, indexPaths })
			kept := acknowledged
			if step == CrashDurable || step == CrashAnnounce {
				kept++
			}
			checkSurvivors(t, r, kept)
			put(t, r, collection+"/"+crashKey(kept), crashValue(kept))
			checkSurvivors(t, r, kept+1)
		})
	}
}

func checkSurvivors(t *testing.T, r *Repo, n int) {
	t.Helper()
	model := map[string][]byte{}
	for i := range n {
		model[path(crashKey(i))] = crashValue(i)
	}
	checkTree(t, r, model)
	checkStored(t, r, model)
	checkExport(t, r, model)
	commits := 0
	for _, m := range replay(t, r, 0) {
		if m.commit != nil {
			commits += len(m.commit.Ops)
		}
	}
	if commits != n {
		t.Errorf("the firehose has %d commits, not %d", commits, n)
	}
	_ = r.View(func(tx *bbolt.Tx) error {
		if got := count(tx, indexedBucket); got != n {
			t.Errorf("%d records are indexed, not %d", got, n)
		}
		return nil
	})
}

func TestOpenKeepsToItsIdentity(t *testing.T) {
	db := newDB(t)
	r := open(t, db)
	put(t, r, path("a"), thing(t, 1))
	before := r.Head()
	_ = r.Close()

	other := Config{DB: db, DID: "did:web:other.test", Handle: "other.test", Key: testKey}
	if _, err := Open(other); err == nil {
		t.Error("opened under another DID")
	}
	r = open(t, db)
	if r.Head() != before {
		t.Errorf("head %+v after reopening, %+v before", r.Head(), before)
	}
	if r.DID() != testDID || r.Handle() != "hold.test" || !r.Key().Equal(testKey) {
		t.Error("it is another")
	}
}

func TestNewHandleAndNewKeyAreAnnounced(t *testing.T) {
	db := newDB(t)
	r := open(t, db)
	put(t, r, path("a"), thing(t, 1))
	before := r.Head()
	_ = r.Close()

	r = open(t, db, func(c *Config) { c.Handle = "new.test" })
	messages := replay(t, r, before.Seq)
	if len(messages) != 1 || messages[0].ident == nil || *messages[0].ident.Handle != "new.test" || r.Head().Commit != before.Commit {
		t.Errorf("new handle: %+v", messages)
	}
	_ = r.Close()

	newKey, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	before = r.Head()
	r = open(t, db, func(c *Config) { c.Handle, c.Key = "new.test", newKey })
	messages = replay(t, r, before.Seq)
	if len(messages) != 2 || messages[0].ident == nil || messages[1].sync == nil {
		t.Fatalf("new key: %+v", messages)
	}
	head := r.Head()
	if head.Data != before.Data || head.Rev <= before.Rev || messages[1].sync.Rev != head.Rev {
		t.Errorf("head %+v after %+v", head, before)
	}
	commit, _, err := loadCommit(t, export(t, r, ""))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := newKey.PublicKey()
	if err := commit.VerifySignature(pub); err != nil {
		t.Error(err)
	}
	put(t, r, path("b"), thing(t, 2)) // whose event follows the #sync
	m := replay(t, r, head.Seq)[0]
	if *m.commit.Since != head.Rev {
		t.Errorf("since %s instead of %s", *m.commit.Since, head.Rev)
	}
	before = r.Head()
	_ = r.Close()
	if r = open(t, db, func(c *Config) { c.Handle, c.Key = "new.test", newKey }); r.Head() != before {
		t.Error("announced again")
	}
}
