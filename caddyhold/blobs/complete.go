package blobs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Complete makes the upload the blob of d. parts names all parts that were
// sent, in any order. It returns when the blob is verified and durable; when
// ctx ends before, the work goes on, and completing again waits for its result.
// mayRead says that owner may read the blob if it exists already: then the
// upload is dropped without a look at its content.
//
// Errors: ErrInvalidUploadID; ErrInvalidDigest and ErrDigestMismatch, which end
// the upload; ErrMissingParts, ErrCompletionFailed, ErrInsufficientStorage and
// ErrUnavailable, which do not.
func (s *Service) Complete(ctx context.Context, owner, uploadID string, d Digest, parts []Part, mayRead bool) (Blob, error) {
	if _, err := s.owned(owner, uploadID); err != nil {
		return Blob{}, err
	}
	release, err := s.store.sessions.acquire(ctx, uploadID)
	if err != nil {
		return Blob{}, err
	}
	blob, err := detached(ctx, s.store, release, func(ctx context.Context) (Blob, error) {
		sess, err := s.owned(owner, uploadID)
		if err != nil {
			return Blob{}, err
		}
		return s.complete(ctx, uploadID, sess, d, parts, mayRead)
	})
	if err != nil {
		return Blob{}, failed(ErrCompletionFailed, err)
	}
	return blob, nil
}

// complete takes a session, whose lock is held, to its end from whatever state
// it is in.
func (s *Service) complete(ctx context.Context, id string, sess session, d Digest, parts []Part, mayRead bool) (Blob, error) {
	switch sess.State {
	case stateDone:
		return s.completedBefore(sess, d)
	case stateAborted:
		return Blob{}, fmt.Errorf("%w: the upload was aborted", ErrInvalidUploadID)
	case stateOpen, stateAssembled:
	}
	if _, err := ParseDigest(string(d)); err != nil {
		return Blob{}, s.reject(ctx, id, sess, err)
	}
	release, err := s.store.digests.acquire(ctx, lockName(s.storage, d))
	if err != nil {
		return Blob{}, err
	}
	defer release()

	existing, err := s.present(ctx, d)
	exists := err == nil
	if err != nil && !errors.Is(err, ErrBlobNotFound) {
		return Blob{}, err
	}
	if exists && mayRead {
		return s.finish(ctx, id, sess, d, existing, outcome{leftover: true})
	}
	sess, err = s.assemble(ctx, id, sess, d, parts)
	if err != nil {
		return Blob{}, err
	}
	upload, object := Upload{ID: id, Handle: sess.Handle}, Object{Size: sess.Size, Version: sess.Version}
	placed, end := existing, outcome{leftover: true, proved: true}
	if exists {
		err = s.driver.Verify(ctx, upload, object, d)
	} else {
		placed, err = s.place(ctx, upload, object, d)
		end.leftover = placed.Object == "" // else the blob is the upload's object
	}
	if errors.Is(err, ErrDigestMismatch) {
		return Blob{}, s.reject(ctx, id, sess, err)
	}
	if err != nil {
		return Blob{}, fmt.Errorf("verifying %s: %w", d, err)
	}
	s.store.crash("complete: placed")
	return s.finish(ctx, id, sess, d, placed, end)
}

// completedBefore answers for a session that is done.
func (s *Service) completedBefore(sess session, d Digest) (Blob, error) {
	if sess.Digest != d {
		return Blob{}, fmt.Errorf("%w: the upload was completed with another digest", ErrInvalidUploadID)
	}
	r, err := s.store.row(s.storage, d)
	if errors.Is(err, ErrBlobNotFound) {
		return Blob{}, fmt.Errorf("%w: the upload was completed and its blob is gone since", ErrInvalidUploadID)
	}
	return r.blob(d), err
}

// reject ends a session because of err, which it returns.
func (s *Service) reject(ctx context.Context, id string, sess session, err error) error {
	if abortErr := s.abort(ctx, id, sess); abortErr != nil {
		s.log.Warn("rejected upload could not be removed", zap.String("upload", id), zap.Error(abortErr))
	}
	return err
}

// assemble makes the parts one object and records that, with the digest it
// should have, so that a start can go on from there.
func (s *Service) assemble(ctx context.Context, id string, sess session, d Digest, parts []Part) (session, error) {
	if sess.State == stateAssembled && sess.Digest == d {
		return sess, nil
	}
	if sess.State == stateOpen {
		parts, err := ordered(parts)
		if err != nil {
			return sess, err
		}
		object, err := s.driver.Assemble(ctx, Upload{ID: id, Handle: sess.Handle}, parts)
		if err != nil {
			return sess, fmt.Errorf("assembling the parts: %w", err)
		}
		sess.State, sess.Size, sess.Version = stateAssembled, object.Size, object.Version
		s.store.crash("complete: assembled")
	}
	sess.Digest, sess.LastUsed = d, s.store.now().UTC()
	if err := s.store.writeSession(id, sess); err != nil {
		return sess, err
	}
	s.store.crash("complete: recorded")
	return sess, nil
}

// place moves a verified upload to its final key.
func (s *Service) place(ctx context.Context, u Upload, o Object, d Digest) (row, error) {
	key, err := s.driver.Place(ctx, u, o, d)
	if err != nil {
		return row{}, err
	}
	r := s.verifiedRow(o.Size)
	if key != Key(d) {
		r.Object = key
	}
	return r, nil
}

// outcome is how an upload came to its end.
type outcome struct {
	leftover bool // it has left something in the storage
	proved   bool // its content was verified, so its owner has that content
}

// finish makes the blob exist and the session done, at once, and removes what
// the upload has left in the storage, if anything.
func (s *Service) finish(ctx context.Context, id string, sess session, d Digest, r row, end outcome) (Blob, error) {
	now := s.store.now().UTC()
	r.LastUsed = now
	sess.State, sess.Digest, sess.LastUsed, sess.Leftover = stateDone, d, now, end.leftover
	err := s.store.db.Update(func(tx *bbolt.Tx) error {
		if err := putRow(tx, s.storage, d, r); err != nil {
			return err
		}
		if end.proved {
			if err := putUploader(tx, d, sess.Owner, now); err != nil {
				return err
			}
		}
		return putSession(tx, id, sess)
	})
	if err != nil {
		return Blob{}, fmt.Errorf("recording blob %s: %w", d, err)
	}
	s.store.crash("complete: verified")
	if end.leftover {
		s.clean(ctx, id, sess)
	}
	return r.blob(d), nil
}

// clean removes what a completed upload has left; what fails is done by the
// sweep.
func (s *Service) clean(ctx context.Context, id string, sess session) {
	if err := s.driver.Discard(ctx, Upload{ID: id, Handle: sess.Handle}); err != nil {
		s.log.Warn("leftovers of an upload could not be removed", zap.String("upload", id), zap.Error(err))
		return
	}
	s.store.touched.clean(id)
}

// ordered returns parts by number and with bare ETags. A part may be named
// twice if both are the same.
func ordered(parts []Part) ([]Part, error) {
	sorted := make([]Part, len(parts))
	for i, p := range parts {
		sorted[i] = Part{Number: p.Number, ETag: unquoted(p.ETag)}
	}
	slices.SortFunc(sorted, func(a, b Part) int { return a.Number - b.Number })
	sorted = slices.Compact(sorted)
	for i, p := range sorted {
		if p.Number < 1 || p.Number > MaxParts {
			return nil, fmt.Errorf("%w: there is no part %d", ErrMissingParts, p.Number)
		}
		if i > 0 && sorted[i-1].Number == p.Number {
			return nil, fmt.Errorf("%w: part %d is named with two etags", ErrMissingParts, p.Number)
		}
	}
	return sorted, nil
}
