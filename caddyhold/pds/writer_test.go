package pds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

func TestConcurrentWritersLoseNothing(t *testing.T) {
	const writers, each = 8, 40
	db := newDB(t)
	r := open(t, db)
	model := map[string][]byte{}
	var mu sync.Mutex
	var readers, all sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() { readUntil(t, r, done) })
	}
	for w := range writers {
		all.Go(func() {
			for i := range each {
				p, v := path(fmt.Sprintf("%d-%d", w, i)), thing(t, i)
				_, err := r.Update(context.Background(), func(tx *Tx) error {
					if i%10 == 9 {
						tx.Bolt()
						return errors.New("mistake")
					}
					_, err := tx.Create(p, v)
					return err
				})
				if (err != nil) != (i%10 == 9) {
					t.Errorf("%s: %v", p, err)
				}
				if err == nil {
					mu.Lock()
					model[p] = v
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	close(done)
	readers.Wait()
	checkTree(t, r, model)
	checkStored(t, r, model)
	checkFirehose(t, replay(t, r, 0), r.Head(), model)
}

// readUntil reads in all ways, as long as others write.
func readUntil(t *testing.T, r *Repo, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		var out bytes.Buffer
		err := errors.Join(
			r.Export(context.Background(), &out, ""),
			r.Proof(context.Background(), &out, path("1-1")),
		)
		recs, _, listErr := r.Records(collection, ListOptions{Limit: 10})
		_, colErr := r.Collections()
		if err := errors.Join(err, listErr, colErr); err != nil {
			t.Error(err)
			return
		}
		for _, rec := range recs {
			if rec.CID != sum(cid.DagCBOR, rec.Value) {
				t.Errorf("record %s is torn", rec.Path)
			}
		}
	}
}

// held keeps the writer busy until it is released.
func held(t *testing.T, r *Repo) (release func()) {
	began, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = r.Update(context.Background(), func(*Tx) error {
			close(began)
			<-end
			return nil
		})
	}()
	<-began
	return sync.OnceFunc(func() {
		close(end)
		<-ended
	})
}

// waiting starts updates that will find themselves in one group.
func waiting(t *testing.T, r *Repo, fns ...func(tx *Tx) error) (results func() []error) {
	t.Helper()
	release := held(t, r)
	errs := make([]error, len(fns))
	var all sync.WaitGroup
	for i, fn := range fns {
		all.Go(func() { _, errs[i] = r.Update(context.Background(), fn) })
		for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); {
			runtime.Gosched() // let it take its place
			time.Sleep(5 * time.Millisecond)
		}
	}
	return func() []error {
		release()
		all.Wait()
		return errs
	}
}

func creating(t *testing.T, rkey string) func(tx *Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Create(path(rkey), thing(t, 1))
		return err
	}
}

func TestWaitingUpdatesShareATransaction(t *testing.T) {
	var transactions atomic.Int64
	r := open(t, newDB(t), func(c *Config) {
		c.Crash = func(step string) {
			if step == CrashDurable {
				transactions.Add(1)
			}
		}
	})
	for _, err := range waiting(t, r, creating(t, "a"), creating(t, "b"), creating(t, "c"))() {
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := transactions.Load(); n != 1 {
		t.Errorf("%d transactions", n)
	}
	commits := 0
	for _, m := range replay(t, r, 0) {
		if m.commit != nil && len(m.commit.Ops) > 0 {
			commits++
		}
	}
	if commits != 3 {
		t.Errorf("%d commits", commits)
	}
}

func TestOneFailureInAGroupHarmsNobodyElse(t *testing.T) {
	mistake := errors.New("mistake")
	private := []byte("other.bucket")
	tests := []struct {
		name string
		fn   func(tx *Tx) error
		err  error
	}{
		{"after writing records", func(tx *Tx) error {
			_, err := tx.Put(path("x"), thing(t, 1))
			return errors.Join(err, mistake)
		}, mistake},
		{"after writing to another bucket", func(tx *Tx) error {
			b, err := tx.Bolt().CreateBucketIfNotExists(private)
			if err != nil {
				return err
			}
			return errors.Join(b.Put([]byte("x"), nil), mistake)
		}, mistake},
		{"because of the update before it", creating(t, "a"), ErrRecordExists},
		{"with an index that refuses", creating(t, "refused"), errRefused},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := open(t, newDB(t), func(c *Config) { c.Index = refuse })
			errs := waiting(t, r, creating(t, "a"), test.fn, creating(t, "b"))()
			if errs[0] != nil || errs[2] != nil {
				t.Errorf("the others: %v", errs)
			}
			if !errors.Is(errs[1], test.err) {
				t.Errorf("got %v instead of %v", errs[1], test.err)
			}
			model := map[string][]byte{path("a"): thing(t, 1), path("b"): thing(t, 1)}
			checkTree(t, r, model)
			checkStored(t, r, model)
			checkFirehose(t, replay(t, r, 0), r.Head(), model)
			_ = r.View(func(tx *bbolt.Tx) error {
				if tx.Bucket(private) != nil {
					t.Error("what it wrote elsewhere is there")
				}
				return nil
			})
		})
	}
}

var errRefused = errors.New("refused")

func refuse(_ *bbolt.Tx, changes []Change) error {
	for _, c := range changes {
		if c.Path == path("refused") {
			return errRefused
		}
	}
	return nil
}

func TestPanicOfAnUpdateIsItsCallersOwn(t *testing.T) {
	r := open(t, newDB(t))
	got := make(chan any, 1)
	panics := func(tx *Tx) error {
		_, _ = tx.Put(path("x"), thing(t, 1))
		panic("mine")
	}
	release := held(t, r)
	var all sync.WaitGroup
	all.Go(func() {
		defer func() { got <- recover() }()
		_, _ = r.Update(context.Background(), panics)
	})
	all.Go(func() {
		if _, err := r.Update(context.Background(), creating(t, "a")); err != nil {
			t.Error(err)
		}
	})
	all.Go(func() {
		_, _ = r.Update(context.Background(), func(*Tx) error {
			runtime.Goexit()
			return nil
		})
	})
	time.Sleep(50 * time.Millisecond)
	release()
	all.Wait()
	if v := <-got; v != "mine" {
		t.Errorf("the caller saw the panic %v", v)
	}
	checkStored(t, r, map[string][]byte{path("a"): thing(t, 1)})
}

func TestWaitForTheWriterEndsWithTheContext(t *testing.T) {
	r := open(t, newDB(t))
	release := held(t, r)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := r.Update(ctx, func(*Tx) error {
		t.Error("it had its turn")
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestUpdateWithoutChangeMakesNoCommit(t *testing.T) {
	r := open(t, newDB(t))
	put(t, r, path("a"), thing(t, 1))
	tests := []struct {
		name string
		fn   func(tx *Tx) error
	}{
		{"nothing", func(*Tx) error { return nil }},
		{"the same value", func(tx *Tx) error { _, err := tx.Put(path("a"), thing(t, 1)); return err }},
		{"deletion of what is not there", func(tx *Tx) error { return tx.Delete(path("b")) }},
		{"there and back", func(tx *Tx) error {
			_, err := tx.Put(path("a"), thing(t, 2))
			if err == nil {
				_, err = tx.Put(path("a"), thing(t, 1))
			}
			return err
		}},
		{"created and deleted", func(tx *Tx) error {
			_, err := tx.Create(path("b"), thing(t, 2))
			return errors.Join(err, tx.Delete(path("b")))
		}},
		{"deleted and created", func(tx *Tx) error {
			err := tx.Delete(path("a"))
			_, createErr := tx.Create(path("a"), thing(t, 1))
			return errors.Join(err, createErr)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := r.Head()
			if head := update(t, r, test.fn); head != before {
				t.Errorf("head %+v after %+v", head, before)
			}
		})
	}
}

func TestWhatAnUpdateWritesElsewhereIsKeptWithoutACommit(t *testing.T) {
	r := open(t, newDB(t))
	before := r.Head()
	head := update(t, r, func(tx *Tx) error {
		_, err := tx.Bolt().CreateBucket([]byte("other"))
		return err
	})
	if head != before {
		t.Error("there is a commit")
	}
	_ = r.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte("other")) == nil {
			t.Error("it is lost")
		}
		return nil
	})
}

func TestIndexHearsOfEveryChange(t *testing.T) {
	var got []string
	r := open(t, newDB(t), func(c *Config) {
		c.Index = func(_ *bbolt.Tx, changes []Change) error {
			for _, ch := range changes {
				got = append(got, fmt.Sprintf("%s %t %t %t", ch.Path, ch.Old != nil, ch.New != nil, ch.CID.Defined()))
			}
			return nil
		}
	})
	put(t, r, path("b"), thing(t, 1))
	put(t, r, path("c"), thing(t, 1))
	put(t, r, path("d"), thing(t, 1))
	got = nil
	update(t, r, func(tx *Tx) error {
		_, err := tx.Put(path("c"), thing(t, 2))
		_, err2 := tx.Put(path("a"), thing(t, 2))
		_, err3 := tx.Put(path("d"), thing(t, 1))
		return errors.Join(tx.Delete(path("b")), err, err2, err3)
	})
	want := fmt.Sprint([]string{
		path("a") + " false true true", path("b") + " true false false", path("c") + " true true true",
	})
	if fmt.Sprint(got) != want {
		t.Errorf("%v instead of %v", got, want)
	}
}

func TestCloseFinishesWhatIsUnderWayAndRefusesTheRest(t *testing.T) {
	db := newDB(t)
	r := open(t, db)
	release := held(t, r)
	late := make(chan error, 1)
	go func() {
		_, err := r.Update(context.Background(), creating(t, "late"))
		late <- err
	}()
	following := make(chan error, 1)
	go func() {
		following <- r.Follow(context.Background(), nil, func([]byte) error { return nil })
	}()
	for r.Consumers() == 0 {
		time.Sleep(time.Millisecond)
	}
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	for name, ch := range map[string]chan error{"update": late, "consumer": following} {
		if err := <-ch; !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(closed) > 0 {
		t.Error("it closed under an update")
	}
	release()
	if err := errors.Join(<-closed, r.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.Update(context.Background(), creating(t, "later")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if r.Consumers() != 0 {
		t.Errorf("%d consumers", r.Consumers())
	}
}

func TestDatabaseFailureFailsAllAndNothingIsHalfDone(t *testing.T) {
	db := newDB(t)
	r := open(t, db)
	before := r.Head()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Update(t.Context(), creating(t, "a")); err == nil {
		t.Error("written to a closed database")
	}
	if r.Head() != before {
		t.Error("the head moved")
	}
}
