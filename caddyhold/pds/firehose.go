package pds

import (
	"context"
	"fmt"
	"sync"
)

// replayBatch is about how many bytes of frames are read at a time, and so what a consumer
// that reads nothing costs.
const replayBatch = 64 << 10

// news wakes all who wait for an event.
type news struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait returns what is closed at the next publish.
func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

func (n *news) publish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
		n.next = nil
	}
}

// Follow calls emit with the firehose's messages
// (com.atproto.sync.subscribeRepos), each complete and ready to be sent, in
// order, until ctx ends, emit fails, or the repository closes ([ErrClosed]);
// it never returns nil.
//
// Without a cursor it begins with the next event. With one it begins after
// that seq; with 0 at the oldest event. A cursor from before the oldest gets
// the message #info OutdatedCursor and all that there is. One that is greater
// than the newest seq gets an error message and [ErrFutureCursor]; so does,
// with [ErrConsumerTooSlow], a consumer for so long behind that what it has to
// read next has been removed.
//
// emit may take its time: nobody waits for it. It may keep the frame.
func (r *Repo) Follow(ctx context.Context, cursor *int64, emit func(frame []byte) error) error {
	r.consumers.Add(1)
	defer r.consumers.Add(-1)

	at, err := r.enter(cursor, emit)
	for err == nil {
		at, err = r.follow(ctx, at, emit)
	}
	select {
	case <-r.closing:
		return ErrClosed
	default:
		return err
	}
}

// Consumers is how many calls of [Repo.Follow] are under way.
func (r *Repo) Consumers() int { return int(r.consumers.Load()) }

// enter translates a cursor into the seq after which a consumer begins.
func (r *Repo) enter(cursor *int64, emit func([]byte) error) (int64, error) {
	if cursor == nil {
		return r.Head().Seq, nil
	}
	var newest, removed int64
	err := r.view(func(s snapshot) error {
		newest, removed = s.seq(), s.removed()
		return nil
	})
	switch at := *cursor; {
	case err != nil:
		return 0, fmt.Errorf("reading the firehose: %w", err)
	case at > newest:
		if err := emit(errorFrame("FutureCursor", fmt.Sprintf("the newest event is %d", newest))); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%w: %d is after %d", ErrFutureCursor, at, newest)
	case at >= removed:
		return at, nil
	case at != 0:
		info, err := infoFrame("OutdatedCursor", "some events after the cursor are no longer available")
		if err != nil {
			return 0, err
		}
		if err := emit(info); err != nil {
			return 0, err
		}
	}
	return removed, nil
}

// follow emits the events that there are after a seq, or waits for one, and
// returns the seq of the last that was emitted.
func (r *Repo) follow(ctx context.Context, at int64, emit func([]byte) error) (int64, error) {
	next := r.news.wait() // before the look at the log, else what comes in between would be slept through
	var frames [][]byte
	var removed, last int64
	err := r.view(func(s snapshot) error {
		removed = s.removed()
		frames, last = s.frames(at, replayBatch)
		return nil
	})
	if err != nil {
		return at, fmt.Errorf("reading the firehose: %w", err)
	}
	if at < removed {
		if err := emit(errorFrame("ConsumerTooSlow", "what follows has been removed")); err != nil {
			return at, err
		}
		return at, fmt.Errorf("%w: at %d, removed up to %d", ErrConsumerTooSlow, at, removed)
	}
	for _, frame := range frames {
		if err := r.ended(ctx); err != nil {
			return at, err
		}
		if err := emit(frame); err != nil {
			return at, err
		}
	}
	if len(frames) > 0 {
		return last, nil
	}
	select {
	case <-next:
		return at, nil
	case <-ctx.Done():
		return at, ctx.Err()
	case <-r.closing:
		return at, ErrClosed
	}
}

func (r *Repo) ended(ctx context.Context) error {
	select {
	case <-r.closing:
		return ErrClosed
	default:
		return ctx.Err()
	}
}
