package blobs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// MaxOpenUploads bounds the uploads that one owner can have open.
const MaxOpenUploads = 1000

// maxHint bounds what a client may say it is going to upload.
const maxHint = 128

// Initiate opens an upload that belongs to owner. hint is what the client says
// it will upload, often a placeholder: it must be there, and means nothing.
// Errors: ErrInvalidDigest for the hint, ErrTooManyUploads, ErrUnavailable,
// ErrUploadFailed.
func (s *Service) Initiate(ctx context.Context, owner, hint string) (uploadID string, err error) {
	if hint == "" || len(hint) > maxHint {
		return "", fmt.Errorf("%w: 1 to %d bytes are wanted", ErrInvalidDigest, maxHint)
	}
	id := newUploadID()
	now := s.store.now().UTC()
	sess := session{Owner: owner, Storage: s.storage, State: stateOpen, Created: now, LastUsed: now}
	// The row comes first: what Begin leaves in the storage is found by it.
	err = s.store.db.Update(func(tx *bbolt.Tx) error {
		if openUploads(tx, owner, MaxOpenUploads) == MaxOpenUploads {
			return fmt.Errorf("%w: complete or abort some of them", ErrTooManyUploads)
		}
		return putSession(tx, id, sess)
	})
	if err != nil {
		return "", failed(ErrUploadFailed, err)
	}
	s.store.crash("initiate: written")
	handle, err := s.driver.Begin(ctx, id)
	if err != nil {
		s.dropFailed(id, sess)
		return "", failed(ErrUploadFailed, fmt.Errorf("beginning an upload: %w", err))
	}
	s.store.crash("initiate: begun")
	if handle == "" {
		return id, nil
	}
	sess.Handle = handle
	if err := s.store.writeSession(id, sess); err != nil {
		return "", failed(ErrUploadFailed, err)
	}
	return id, nil
}

// dropFailed leaves a session that could not begin to the sweep: the storage
// may have begun though it did not answer.
func (s *Service) dropFailed(id string, sess session) {
	sess.State = stateAborted
	if err := s.store.writeSession(id, sess); err != nil {
		s.log.Warn("upload could not be marked as aborted", zap.String("upload", id), zap.Error(err))
	}
}

// newUploadID returns 128 random bits. It is also part of the staging key,
// which nobody else may guess.
func newUploadID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// PartURL returns the request with which a client sends one part: to the
// storage itself, or to the hold at a URL that needs no other authorization.
// Errors: ErrInvalidUploadID, ErrInvalidPartNumber, ErrUnavailable, ErrUploadFailed.
func (s *Service) PartURL(ctx context.Context, owner, uploadID string, part int) (Target, error) {
	upload, err := s.open(owner, uploadID, part)
	if err != nil {
		return Target{}, err
	}
	if s.parts == nil {
		return Target{URL: s.signedPartURL(uploadID, part), Method: http.MethodPut, Headers: map[string]string{}}, nil
	}
	target, err := s.parts.PresignPart(ctx, upload, part, s.lifetime)
	if err != nil {
		return Target{}, failed(ErrUploadFailed, fmt.Errorf("presigning part %d: %w", part, err))
	}
	return target, nil
}

// WritePart stores a part that came to the hold, and returns its ETag,
// unquoted. A part number that is sent again replaces the earlier part. size is
// what the body must have, or -1 if that is not known. Errors:
// ErrInvalidUploadID, ErrInvalidPartNumber, ErrPartTooLarge,
// ErrInsufficientStorage, ErrUnavailable, ErrUploadFailed.
func (s *Service) WritePart(ctx context.Context, owner, uploadID string, part int, body io.Reader, size int64) (etag string, err error) {
	upload, err := s.open(owner, uploadID, part)
	if err != nil {
		return "", err
	}
	if size > MaxPartSize {
		return "", fmt.Errorf("%w: %d bytes", ErrPartTooLarge, size)
	}
	if size < 0 {
		body = &boundedReader{body: body, left: MaxPartSize}
	}
	etag, err = s.driver.WritePart(ctx, upload, part, body, size)
	if err != nil {
		return "", failed(ErrUploadFailed, fmt.Errorf("writing part %d: %w", part, err))
	}
	s.store.touched.session(uploadID, s.store.now())
	return etag, nil
}

// boundedReader fails where a part of unknown size becomes too large.
type boundedReader struct {
	body io.Reader
	left int64
}

func (r *boundedReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p[:min(int64(len(p)), r.left+1)])
	if r.left -= int64(n); r.left < 0 {
		return 0, ErrPartTooLarge
	}
	return n, err
}

// Abort ends an upload and removes its parts. Errors: ErrInvalidUploadID,
// ErrUnavailable, ErrAbortFailed; after the latter two the upload has ended all
// the same, and its parts are removed later.
func (s *Service) Abort(ctx context.Context, owner, uploadID string) error {
	if _, err := s.owned(owner, uploadID); err != nil {
		return err
	}
	release, err := s.store.sessions.acquire(ctx, uploadID)
	if err != nil {
		return err
	}
	_, err = detached(ctx, s.store, release, func(ctx context.Context) (struct{}, error) {
		sess, err := s.owned(owner, uploadID)
		if err != nil {
			return struct{}{}, err
		}
		if sess.State == stateDone {
			return struct{}{}, fmt.Errorf("%w: the upload is completed", ErrInvalidUploadID)
		}
		return struct{}{}, s.abort(ctx, uploadID, sess)
	})
	if err != nil {
		return failed(ErrAbortFailed, err)
	}
	return nil
}

// abort ends a session whose lock is held.
func (s *Service) abort(ctx context.Context, id string, sess session) error {
	if sess.State != stateAborted {
		sess.State = stateAborted
		if err := s.store.writeSession(id, sess); err != nil {
			return err
		}
		s.store.crash("abort: marked")
	}
	if err := s.driver.Discard(ctx, Upload{ID: id, Handle: sess.Handle}); err != nil {
		return fmt.Errorf("removing the parts: %w", err)
	}
	s.store.crash("abort: discarded")
	return s.store.dropSession(id)
}

// open returns the upload if it is owner's and takes parts, and notes that it
// is in use.
func (s *Service) open(owner, uploadID string, part int) (Upload, error) {
	sess, err := s.owned(owner, uploadID)
	if err != nil {
		return Upload{}, err
	}
	if sess.State != stateOpen {
		return Upload{}, fmt.Errorf("%w: the upload takes no more parts", ErrInvalidUploadID)
	}
	if part < 1 || part > MaxParts {
		return Upload{}, fmt.Errorf("%w: not in 1 to %d", ErrInvalidPartNumber, MaxParts)
	}
	s.store.touched.session(uploadID, s.store.now())
	return Upload{ID: uploadID, Handle: sess.Handle}, nil
}

// owned returns a session that belongs to owner.
func (s *Service) owned(owner, uploadID string) (session, error) {
	sess, err := s.store.session(uploadID, s.storage)
	if err != nil {
		return session{}, err
	}
	if sess.Owner != owner {
		// As for one that does not exist: the ID tells nothing to others.
		return session{}, fmt.Errorf("%w: no such upload", ErrInvalidUploadID)
	}
	return sess, nil
}

// unquoted returns an ETag as it is compared: clients send them as headers show
// them, or without quotes.
func unquoted(etag string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(etag), "W/"), `"`)
}
