package caddyhold

import "sync"

// requests counts what is under way, so that the last one out can turn off the light.
// The zero value is ready for use.
type requests struct {
	mu     sync.Mutex
	active int
	idle   func() // set by whenIdle, until called
}

func (r *requests) enter() {
	r.mu.Lock()
	r.active++
	r.mu.Unlock()
}

func (r *requests) leave() {
	r.mu.Lock()
	r.active--
	idle := r.takeIdle()
	r.mu.Unlock()
	if idle != nil {
		idle()
	}
}

// whenIdle has f called once, as soon as nothing is under way: now or by the last to leave.
func (r *requests) whenIdle(f func()) {
	r.mu.Lock()
	r.idle = f
	idle := r.takeIdle()
	r.mu.Unlock()
	if idle != nil {
		idle()
	}
}

func (r *requests) takeIdle() func() {
	if r.active > 0 {
		return nil
	}
	idle := r.idle
	r.idle = nil
	return idle
}
