package pds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

var errEnough = errors.New("enough")

// take follows from a cursor until n messages have come.
func take(t *testing.T, r *Repo, cursor *int64, n int) (messages []message, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = r.Follow(ctx, cursor, func(frame []byte) error {
		messages = append(messages, decode(t, frame))
		if len(messages) == n {
			return errEnough
		}
		return nil
	})
	return messages, err
}

func TestCursorSaysWhereAConsumerBegins(t *testing.T) {
	clock := &fakeClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r := open(t, newDB(t), func(c *Config) {
		c.Now = clock.Now
		c.Retention = time.Hour
	})
	first := r.Head().Seq - 3
	for i := range 4 {
		if i == 2 {
			clock.add(2 * time.Hour)
		}
		put(t, r, path(fmt.Sprint(i)), thing(t, i))
	}
	last := r.Head().Seq
	if n, err := r.cleanEvents(); n != 6 || err != nil {
		t.Fatalf("%d events removed, %v", n, err)
	}
	oldest := last - 1

	at := func(n int64) *int64 { return &n }
	tests := []struct {
		name   string
		cursor *int64
		want   []string // kind and seq
		err    error
	}{
		{"0 is the oldest", at(0), []string{fmt.Sprint("#commit ", oldest), fmt.Sprint("#commit ", last)}, errEnough},
		{"before the oldest", at(oldest - 1), []string{fmt.Sprint("#commit ", oldest), fmt.Sprint("#commit ", last)}, errEnough},
		{"the oldest", at(oldest), []string{fmt.Sprint("#commit ", last)}, errEnough},
		{"removed", at(oldest - 2), []string{"#info -1", fmt.Sprint("#commit ", oldest), fmt.Sprint("#commit ", last)}, errEnough},
		{"from before the first", at(first - 1000), []string{"#info -1", fmt.Sprint("#commit ", oldest), fmt.Sprint("#commit ", last)}, errEnough},
		{"in the future", at(last + 1), []string{"FutureCursor -1"}, ErrFutureCursor},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := len(test.want)
			if !errors.Is(test.err, errEnough) {
				n++
			}
			messages, err := take(t, r, test.cursor, n)
			if !errors.Is(err, test.err) {
				t.Error(err)
			}
			var got []string
			for _, m := range messages {
				got = append(got, fmt.Sprint(m.kind, " ", m.seq()))
				if m.info != nil && m.info.Name != "OutdatedCursor" {
					t.Errorf("info %s", m.info.Name)
				}
				if (m.op == -1) != errors.Is(test.err, ErrFutureCursor) {
					t.Errorf("op %d", m.op)
				}
			}
			if strings.Join(got, ", ") != strings.Join(test.want, ", ") {
				t.Errorf("got %q instead of %q", got, test.want)
			}
		})
	}
	t.Run("the newest and none wait for the next event", func(t *testing.T) {
		for _, cursor := range []*int64{at(r.Head().Seq), nil} {
			before := r.Head().Seq
			go func() {
				time.Sleep(20 * time.Millisecond)
				_, _ = r.Update(context.Background(), func(tx *Tx) error {
					_, err := tx.Put(path("new"), thing(t, int(before)))
					return err
				})
			}()
			messages, err := take(t, r, cursor, 1)
			if !errors.Is(err, errEnough) || messages[0].seq() != before+1 {
				t.Errorf("%+v, %v", messages, err)
			}
		}
	})
}

// Consumers that come at any time, while others write, get everything once.
func TestNothingIsLostOrSentTwiceWhereReplayMeetsLive(t *testing.T) {
	const consumers, commits = 12, 150
	r := open(t, newDB(t))
	start := r.Head().Seq
	end := start + commits
	var all sync.WaitGroup
	all.Go(func() {
		for i := range commits {
			if _, err := r.Update(context.Background(), creating(t, key(i))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range consumers {
		all.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			at := start
			var cursor *int64
			if i%3 == 0 {
				cursor = &at
			}
			var last int64
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := r.Follow(ctx, cursor, func(frame []byte) error {
				seq := decode(t, frame).seq()
				if last == 0 && cursor == nil {
					last = seq - 1 // live: begins anywhere
				} else if last == 0 {
					last = at
				}
				if seq != last+1 {
					t.Errorf("seq %d after %d", seq, last)
				}
				if last = seq; last == end {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) && (cursor != nil || last != 0) {
				t.Errorf("at %d of %d: %v", last, end, err)
			}
		})
	}
	all.Go(func() { // ends those that came after the last commit
		time.Sleep(100 * time.Millisecond)
		for r.Head().Seq < end {
			time.Sleep(time.Millisecond)
		}
		for deadline := time.Now().Add(300 * time.Millisecond); r.Consumers() > 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		_ = r.Close()
	})
	all.Wait()
}

func TestSlowConsumerHoldsNobodyUpAndIsDroppedOnceItsEventsAreGone(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	r := open(t, newDB(t), func(c *Config) {
		c.Retention = time.Hour
		c.Now = clock.Now
	})
	blocked, release := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	var last message
	go func() {
		result <- r.Follow(context.Background(), new(int64), func(frame []byte) error {
			if last = decode(t, frame); last.kind == "#identity" {
				close(blocked)
				<-release
			}
			return nil
		})
	}()
	<-blocked
	for i := range 20 {
		put(t, r, path(key(i)), thing(t, i))
	}
	clock.add(2 * time.Hour)
	for {
		n, err := r.cleanEvents()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	close(release)
	if err := <-result; !errors.Is(err, ErrConsumerTooSlow) || last.kind != "ConsumerTooSlow" || last.op != -1 {
		t.Errorf("%v after %+v", err, last)
	}
}

func TestEventsAreRemovedByAgeAndSeqGoesOn(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	db := newDB(t)
	config := func(c *Config) {
		c.Retention = time.Hour
		c.Now = clock.Now
	}
	r := open(t, db, config)
	update(t, r, func(tx *Tx) error { // more than one transaction removes
		for i := range 4 * 200 {
			if _, err := tx.Put(path(key(i)), thing(t, i)); err != nil {
				return err
			}
		}
		return nil
	})
	before := r.Head()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	clock.add(2 * time.Hour)
	r = open(t, db, config)
	deadline := time.Now().Add(5 * time.Second)
	for n := -1; n != 0; {
		_ = r.view(func(s snapshot) error {
			n = count(s.tx, eventBucket)
			return nil
		})
		if time.Now().After(deadline) {
			t.Fatalf("%d events are left", n)
		}
	}
	head := put(t, r, path("new"), thing(t, 1))
	if head.Seq != before.Seq+1 {
		t.Errorf("seq %d after %d", head.Seq, before.Seq)
	}
	old := before.Seq - 1
	if messages, err := take(t, r, &old, 2); !errors.Is(err, errEnough) || messages[0].info == nil || messages[1].seq() != head.Seq {
		t.Errorf("%+v, %v", messages, err)
	}
}

func TestConsumerEndsWithItsContextAndItsConnection(t *testing.T) {
	r := open(t, newDB(t))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := r.Follow(ctx, nil, func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gone := errors.New("gone")
	if err := r.Follow(t.Context(), new(int64), func([]byte) error { return gone }); !errors.Is(err, gone) {
		t.Error(err)
	}
}

func TestRevAndSeqRiseWhateverTheClockDoes(t *testing.T) {
	clock := &fakeClock{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
	db := newDB(t)
	config := func(c *Config) { c.Now = clock.Now }
	r := open(t, db, config)
	last := r.Head()
	tids := map[string]bool{}
	for i, step := range []time.Duration{0, 0, time.Hour, -2 * time.Hour, 0, -1000 * time.Hour, time.Microsecond, 5000 * time.Hour, -10000 * time.Hour, 0} {
		clock.add(step)
		if i%2 == 1 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			r = open(t, db, config)
		}
		head := update(t, r, func(tx *Tx) error {
			for range 3 {
				tid := tx.NextTID()
				if tids[tid] {
					t.Errorf("TID %s twice", tid)
				}
				tids[tid] = true
				if _, err := tx.Create(path(tid), thing(t, i)); err != nil {
					return err
				}
			}
			return nil
		})
		if head.Rev <= last.Rev || head.Seq != last.Seq+1 {
			t.Errorf("step %d: %+v after %+v", i, head, last)
		}
		last = head
	}
}

func TestNumbersOfANewDatabaseFollowThoseOfALostOne(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	config := func(c *Config) { c.Now = clock.Now }
	lost := open(t, newDB(t), config)
	for i := range 100 {
		put(t, lost, path(key(i)), thing(t, i))
	}
	clock.add(time.Minute)
	if fresh := open(t, newDB(t), config); fresh.Head().Seq <= lost.Head().Seq || fresh.Head().Rev <= lost.Head().Rev {
		t.Errorf("%+v after %+v", fresh.Head(), lost.Head())
	}
	if seq := lost.Head().Seq; seq >= 1<<53 {
		t.Errorf("seq %d", seq)
	}
}

func TestFrameHasTheTypeFirst(t *testing.T) {
	r := open(t, newDB(t))
	_ = r.Follow(t.Context(), new(int64), func(frame []byte) error {
		if !strings.HasPrefix(string(frame), "\xa2\x61t\x69#identity\x62op\x01") {
			t.Errorf("frame %q", frame)
		}
		return errEnough
	})
	if got := string(errorFrame("FutureCursor", "x")); got != "\xa1\x62op\x20\xa2\x65error\x6cFutureCursor\x67message\x61x" {
		t.Errorf("error frame %q", got)
	}
}

func TestFirstEventsIntroduceTheAccount(t *testing.T) {
	r := open(t, newDB(t))
	messages := replay(t, r, 0)
	if len(messages) != 4 {
		t.Fatalf("%d events", len(messages))
	}
	ident, account, commit, sync := messages[0].ident, messages[1].account, messages[2].commit, messages[3].sync
	if ident.Did != testDID || *ident.Handle != "hold.test" || account.Did != testDID || !account.Active || account.Status != nil {
		t.Errorf("%+v, %+v", ident, account)
	}
	if len(commit.Ops) != 0 || commit.Since != nil || commit.PrevData != nil {
		t.Errorf("%+v", commit)
	}
	blocks := readCAR(t, sync.Blocks)
	if sync.Did != testDID || sync.Rev != r.Head().Rev || len(blocks) != 1 || blocks[0].cid != r.Head().Commit {
		t.Errorf("%+v", sync)
	}
}
