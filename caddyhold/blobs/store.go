package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Options are what a Store works with.
type Options struct {
	DB     *bbolt.DB         // the hold's database; stays open until after Close
	Now    func() time.Time  // nil: time.Now
	Logger *zap.Logger       // nil: none
	Crash  func(step string) // called between any two durable steps, for tests; nil in production
}

// Store is what lasts: sessions, rows, and the work in progress on them. It is
// shared by the services of one hold and safe for concurrent use.
type Store struct {
	db     *bbolt.DB
	now    func() time.Time
	log    *zap.Logger
	crash  func(step string)
	urlKey []byte

	sessions locks // by upload ID: who ends the session
	digests  locks // by digest: who works on its final key
	hashing  chan struct{}
	touched  touched
	rejected rejected

	// Work that goes on when the request that began it goes away.
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex // guards closed and tasks.Add
	closed bool
	tasks  sync.WaitGroup
}

// adoptionsAtOnce bounds how many found objects are hashed at the same time.
const adoptionsAtOnce = 2

var errClosed = fmt.Errorf("%w: the blob store is closed", ErrUnavailable)

// Open prepares the buckets and the URL key in the database.
func Open(o Options) (*Store, error) {
	s := &Store{
		db: o.DB, now: o.Now, log: o.Logger, crash: o.Crash,
		hashing: make(chan struct{}, adoptionsAtOnce),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.crash == nil {
		s.crash = func(string) {}
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		if err := createBuckets(tx); err != nil {
			return err
		}
		meta := tx.Bucket(metaBucket)
		s.urlKey = append([]byte(nil), meta.Get(urlKeyName)...)
		if len(s.urlKey) > 0 {
			return nil
		}
		s.urlKey = make([]byte, 32)
		_, _ = rand.Read(s.urlKey) // never fails
		return meta.Put(urlKeyName, s.urlKey)
	})
	if err != nil {
		return nil, fmt.Errorf("opening the blob store: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close stops the work in progress, which a later start resumes, and writes
// what was only in memory. The database stays open.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tasks.Wait()
	return s.flushTouched()
}

// detached runs fn to its end even if ctx ends before, when only the wait for
// it ends. fn's context ends when the store is closed. release, of the lock that
// fn works under, is called when fn has ended or cannot start.
func detached[T any](ctx context.Context, s *Store, release func(), fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		release()
		var none T
		return none, errClosed
	}
	s.tasks.Add(1)
	s.mu.Unlock()
	done := make(chan result, 1)
	go func() {
		defer s.tasks.Done()
		defer release()
		value, err := fn(s.ctx)
		if err != nil && s.ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errClosed, err)
		}
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// session returns the session of that ID in a storage, or ErrInvalidUploadID.
func (s *Store) session(id, storage string) (session, error) {
	var found session
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		found, err = getSession(tx, id)
		return err
	})
	switch {
	case errors.Is(err, errNoRow):
		return session{}, fmt.Errorf("%w: no such upload", ErrInvalidUploadID)
	case err != nil:
		return session{}, fmt.Errorf("reading upload %s: %w", id, err)
	case found.Storage != storage:
		return session{}, fmt.Errorf("%w: the upload belongs to another storage", ErrInvalidUploadID)
	}
	return found, nil
}

// writeSession replaces the row of a session.
func (s *Store) writeSession(id string, sess session) error {
	err := s.db.Update(func(tx *bbolt.Tx) error { return putSession(tx, id, sess) })
	if err != nil {
		return fmt.Errorf("writing upload %s: %w", id, err)
	}
	return nil
}

// dropSession deletes the row of a session.
func (s *Store) dropSession(id string) error {
	err := s.db.Update(func(tx *bbolt.Tx) error { return deleteSession(tx, id) })
	if err != nil && !errors.Is(err, errNoRow) {
		return fmt.Errorf("deleting upload %s: %w", id, err)
	}
	return nil
}

// row returns the row of a verified blob in a storage, or ErrBlobNotFound.
func (s *Store) row(storage string, d Digest) (row, error) {
	var found row
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		found, err = getRow(tx, storage, d)
		return err
	})
	switch {
	case errors.Is(err, errNoRow), err == nil && found.State != rowVerified:
		return row{}, ErrBlobNotFound
	case err != nil:
		return row{}, fmt.Errorf("reading blob %s: %w", d, err)
	}
	return found, nil
}
