package blobs

import (
	"context"
	"sync"
)

// locks is a set of locks by name. A lock exists while someone holds it or
// waits for it.
type locks struct {
	mu    sync.Mutex
	named map[string]*lock
}

type lock struct {
	free  chan struct{} // holds one token while nobody holds the lock
	users int           // holder and waiters
}

// acquire waits for the lock of that name until ctx ends.
func (l *locks) acquire(ctx context.Context, name string) (release func(), err error) {
	k := l.join(name)
	select {
	case <-k.free:
		return func() { l.leave(name, k, true) }, nil
	case <-ctx.Done():
		l.leave(name, k, false)
		return nil, ctx.Err()
	}
}

// try takes the lock of that name if nobody holds it.
func (l *locks) try(name string) (release func(), ok bool) {
	k := l.join(name)
	select {
	case <-k.free:
		return func() { l.leave(name, k, true) }, true
	default:
		l.leave(name, k, false)
		return nil, false
	}
}

func (l *locks) join(name string) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.named[name]
	if k == nil {
		k = &lock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		if l.named == nil {
			l.named = make(map[string]*lock)
		}
		l.named[name] = k
	}
	k.users++
	return k
}

func (l *locks) leave(name string, k *lock, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held {
		k.free <- struct{}{}
	}
	if k.users--; k.users == 0 {
		delete(l.named, name)
	}
}
