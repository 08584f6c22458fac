package blobs

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// touchPrecision is how far behind the lastUsed of a row may be. It spares
// reads and part uploads a transaction each.
const touchPrecision = time.Hour

// touched remembers until the next flush when rows were used, and whose
// staging was removed.
type touched struct {
	mu       sync.Mutex
	sessions map[string]time.Time
	rows     map[storedDigest]time.Time
	cleaned  map[string]bool
}

type storedDigest struct {
	storage string
	digest  Digest
}

func (t *touched) session(id string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions == nil {
		t.sessions = make(map[string]time.Time)
	}
	t.sessions[id] = now
}

func (t *touched) row(storage string, d Digest, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = make(map[storedDigest]time.Time)
	}
	t.rows[storedDigest{storage, d}] = now
}

func (t *touched) clean(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cleaned == nil {
		t.cleaned = make(map[string]bool)
	}
	t.cleaned[id] = true
}

func (t *touched) take() (sessions map[string]time.Time, rows map[storedDigest]time.Time, cleaned map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sessions, rows, cleaned = t.sessions, t.rows, t.cleaned
	t.sessions, t.rows, t.cleaned = nil, nil, nil
	return sessions, rows, cleaned
}

// flushTouched writes what was touched, in one transaction and only if a row is
// more than touchPrecision behind.
func (s *Store) flushTouched() error {
	sessions, rows, cleaned := s.touched.take()
	due, err := s.dueTouches(sessions, rows)
	if err != nil {
		return fmt.Errorf("reading what was used: %w", err)
	}
	if len(cleaned) == 0 && !due {
		return nil
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for id, used := range sessions {
			if err := touchSession(tx, id, used); err != nil {
				return err
			}
		}
		for at, used := range rows {
			if err := touchRow(tx, at, used); err != nil {
				return err
			}
		}
		for id := range cleaned {
			if err := markClean(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing what was used: %w", err)
	}
	return nil
}

// dueTouches says whether any row is behind.
func (s *Store) dueTouches(sessions map[string]time.Time, rows map[storedDigest]time.Time) (due bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		for id, used := range sessions {
			sess, err := getSession(tx, id)
			if err == nil && behind(sess.LastUsed, used) {
				due = true
			}
		}
		for at, used := range rows {
			r, err := getRow(tx, at.storage, at.digest)
			if err == nil && behind(r.LastUsed, used) {
				due = true
			}
		}
		return nil
	})
	return due, err
}

func behind(last, used time.Time) bool { return used.Sub(last) >= touchPrecision }

func touchSession(tx *bbolt.Tx, id string, used time.Time) error {
	sess, err := getSession(tx, id)
	if errors.Is(err, errNoRow) || err == nil && !behind(sess.LastUsed, used) {
		return nil
	}
	if err != nil {
		return err
	}
	sess.LastUsed = used
	return putSession(tx, id, sess)
}

func touchRow(tx *bbolt.Tx, at storedDigest, used time.Time) error {
	r, err := getRow(tx, at.storage, at.digest)
	if errors.Is(err, errNoRow) || err == nil && !behind(r.LastUsed, used) {
		return nil
	}
	if err != nil {
		return err
	}
	r.LastUsed = used
	return putRow(tx, at.storage, at.digest, r)
}

func markClean(tx *bbolt.Tx, id string) error {
	sess, err := getSession(tx, id)
	if errors.Is(err, errNoRow) || err == nil && !sess.Leftover {
		return nil
	}
	if err != nil {
		return err
	}
	sess.Leftover = false
	return putSession(tx, id, sess)
}
