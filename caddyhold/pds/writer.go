package pds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// maxGroup bounds how many updates share a transaction.
const maxGroup = 256

// errAbandoned says that an update's function panicked, or ended its
// goroutine.
var errAbandoned = errors.New("the update did not return")

// request is an [Repo.Update] on its way through the writer. The function
// runs where it was called, while the writer waits: so a panic in it unwinds
// its caller's stack and not the writer's.
type request struct {
	turn chan *Tx     // from the writer: run the function now
	ran  chan error   // to the writer: what it returned
	done chan outcome // from the writer, once
}

type outcome struct {
	head Head
	err  error
}

// Update runs fn, makes one commit of all that it writes, and returns the
// state after it. Where the writes change nothing, there is no commit and the
// state is as before. (More than 200 changes, or more than 2,000,000 bytes,
// are several commits, still all or nothing.) If fn fails, nothing of what it
// did is kept, and Update returns its error as it is.
//
// fn may run more than once, until the commit is durable; it must not keep
// the Tx nor call methods of the Repo that write. A ctx that ends while fn
// waits for its turn ends the wait; later it has no effect.
func (r *Repo) Update(ctx context.Context, fn func(tx *Tx) error) (Head, error) {
	req := &request{turn: make(chan *Tx), ran: make(chan error), done: make(chan outcome, 1)}
	if err := ctx.Err(); err != nil {
		return Head{}, fmt.Errorf("waiting to write: %w", err)
	}
	select {
	case r.requests <- req:
	case <-ctx.Done():
		return Head{}, fmt.Errorf("waiting to write: %w", ctx.Err())
	case <-r.closing:
		return Head{}, ErrClosed
	}
	for {
		select {
		case tx := <-req.turn:
			req.run(fn, tx)
		case o := <-req.done:
			return o.head, o.err
		}
	}
}

func (req *request) run(fn func(tx *Tx) error, tx *Tx) {
	err := errAbandoned
	defer func() { req.ran <- err }()
	err = fn(tx)
}

// write is the writer: it alone changes the repository.
func (r *Repo) write() {
	defer close(r.written)
	clean := time.NewTimer(0)
	defer clean.Stop()
	for {
		select {
		case <-r.closing:
			return
		case req := <-r.requests:
			r.serve(r.gather(req))
		case <-clean.C:
			clean.Reset(r.removeOldEvents())
		}
	}
}

// gather adds the requests that wait already.
func (r *Repo) gather(first *request) []*request {
	group := []*request{first}
	for len(group) < maxGroup {
		select {
		case req := <-r.requests:
			group = append(group, req)
		default:
			return group
		}
	}
	return group
}

// serve carries out a group of requests, if all goes well in one transaction.
// A failure that may have left something in it costs the transaction: then
// those before begin anew, the one that failed has its turn alone, and the
// others follow. So each runs a few times at most, whatever the others do.
func (r *Repo) serve(group []*request) {
	if len(group) == 0 {
		return
	}
	outcomes, failed, err := r.attempt(group)
	switch {
	case err == nil:
		for i, req := range group {
			req.done <- outcomes[i]
		}
	case failed < 0: // the transaction itself
		for _, req := range group {
			req.done <- outcome{err: err}
		}
	default:
		r.serve(group[:failed])
		if len(group) == 1 || errors.Is(err, errAbandoned) {
			group[failed].done <- outcome{err: err}
		} else {
			r.serve(group[failed : failed+1])
		}
		r.serve(group[failed+1:])
	}
}

// attempt carries out requests in one transaction. On an error nothing has
// happened, and failed is the request to blame, or -1.
func (r *Repo) attempt(group []*request) (outcomes []outcome, failed int, err error) {
	defer func() {
		if err != nil {
			r.tree = nil // it may be ahead of what is stored
		}
	}()
	r.cfg.Crash(CrashBegin)
	bolt, err := r.cfg.DB.Begin(true)
	if err != nil {
		return nil, -1, fmt.Errorf("beginning to write: %w", err)
	}
	defer bolt.Rollback() //nolint:errcheck // after a commit there is nothing to roll back

	t := &transaction{repo: r, store: snapshot{bolt}, head: r.Head()}
	for i, req := range group {
		tx := &Tx{store: t.store, head: t.head, clock: r.clock, writes: map[string]*write{}}
		req.turn <- tx
		err := <-req.ran
		switch {
		case err == nil:
			if err := t.apply(tx); err != nil {
				return nil, i, err
			}
		case tx.lent || errors.Is(err, errAbandoned):
			return nil, i, err
		}
		outcomes = append(outcomes, outcome{t.head, err})
		t.dirty = t.dirty || err == nil && tx.lent
	}
	if !t.dirty {
		return outcomes, -1, nil
	}
	if err := bolt.Commit(); err != nil {
		return nil, -1, fmt.Errorf("committing: %w", err)
	}
	r.cfg.Crash(CrashDurable)
	if head := t.head; head != r.Head() {
		r.head.Store(&head)
		r.news.publish()
	}
	r.cfg.Crash(CrashAnnounce)
	return outcomes, -1, nil
}

// Removal of old events, in transactions that hold nobody up.
const (
	cleanInterval = 5 * time.Minute
	cleanPause    = 20 * time.Millisecond
	cleanMax      = 500
)

// removeOldEvents removes some events that are past the retention, and
// returns when to go on.
func (r *Repo) removeOldEvents() time.Duration {
	interval := min(cleanInterval, max(r.cfg.Retention/10, cleanPause))
	n, err := r.cleanEvents()
	switch {
	case err != nil:
		r.cfg.Logger.Error("removing old events failed", zap.Error(err))
	case n == cleanMax:
		return cleanPause
	}
	return interval
}

func (r *Repo) cleanEvents() (n int, err error) {
	var old []int64
	err = r.view(func(s snapshot) error {
		old = s.eventsBefore(r.cfg.Now().Add(-r.cfg.Retention), cleanMax)
		return nil
	})
	if err != nil || len(old) == 0 {
		return 0, err
	}
	return len(old), r.update(func(s snapshot) error { return s.removeEvents(old) })
}
