package blobs

import (
	"context"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

const (
	// SessionLifetime is how long an upload may be idle before it is aborted.
	SessionLifetime = 24 * time.Hour

	sweepInterval = time.Minute
)

// Run does the work of a configuration until ctx ends: at once and then every
// minute, it completes what was assembled but not verified, aborts uploads that
// were idle for SessionLifetime, forgets those that ended that long ago, and
// writes when blobs were last asked for.
func (s *Service) Run(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		s.round(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// round does once what Run does.
func (s *Service) round(ctx context.Context) {
	if err := s.store.flushTouched(); err != nil {
		s.log.Warn("use of blobs could not be recorded", zap.Error(err))
	}
	s.sweep(ctx)
}

// sweep looks once at all sessions of the storage.
func (s *Service) sweep(ctx context.Context) {
	now := s.store.now()
	var due []string
	err := s.store.db.View(func(tx *bbolt.Tx) error {
		return eachSession(tx, s.storage, func(id string, sess session) {
			if dueFor(sess, now) != nothing {
				due = append(due, id)
			}
		})
	})
	if err != nil {
		s.log.Warn("uploads could not be swept", zap.Error(err))
	}
	for _, id := range due {
		if ctx.Err() != nil {
			return
		}
		if err := s.settle(ctx, id, now); err != nil && ctx.Err() == nil {
			s.log.Warn("upload could not be settled, will be tried again", zap.String("upload", id), zap.Error(err))
		}
	}
}

// task is what is to be done for a session without its client.
type task int

const (
	nothing task = iota
	abort
	resume
	clean
	forget
)

func dueFor(sess session, now time.Time) task {
	idle := now.Sub(sess.LastUsed)
	switch {
	case sess.State == stateAborted, sess.live() && idle > SessionLifetime:
		return abort
	case sess.State == stateAssembled:
		return resume
	case sess.State == stateDone && sess.Leftover && idle > sweepInterval: // after the completion had its chance
		return clean
	case sess.State == stateDone && idle > SessionLifetime:
		return forget
	}
	return nothing
}

// settle does what is due for one session, unless somebody works on it.
func (s *Service) settle(ctx context.Context, id string, now time.Time) error {
	release, ok := s.store.sessions.try(id)
	if !ok {
		return nil
	}
	_, err := detached(ctx, s.store, release, func(ctx context.Context) (struct{}, error) {
		sess, err := s.store.session(id, s.storage)
		if err != nil {
			return struct{}{}, err
		}
		switch dueFor(sess, now) {
		case abort:
			err = s.abort(ctx, id, sess)
		case resume:
			_, err = s.complete(ctx, id, sess, sess.Digest, nil, false)
		case clean:
			s.clean(ctx, id, sess)
		case forget:
			err = s.store.dropSession(id)
		case nothing:
		}
		return struct{}{}, err
	})
	return err
}
