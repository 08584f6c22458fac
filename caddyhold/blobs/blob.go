package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Blob is a verified blob.
type Blob struct {
	Digest     Digest
	Size       int64     // bytes
	VerifiedAt time.Time // UTC
}

// Stat describes a blob, or returns ErrBlobNotFound. An object that lies at the
// blob's key but was not uploaded here is hashed first, which may take a while:
// when ctx ends before, that goes on, and a later call finds its result.
func (s *Service) Stat(ctx context.Context, d Digest) (Blob, error) {
	r, err := s.find(ctx, d)
	if err != nil {
		return Blob{}, err
	}
	return r.blob(d), nil
}

// UploadedBy says whether owner has uploaded the content of d.
func (s *Service) UploadedBy(d Digest, owner string) (bool, error) {
	var has bool
	err := s.store.db.View(func(tx *bbolt.Tx) error {
		has = hasUploader(tx, d, owner)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("reading uploaders: %w", err)
	}
	return has, nil
}

// URL returns a URL from which anybody can GET or HEAD, as method says, the
// blob for the configured lifetime: at the storage where Direct, else at the
// hold. Errors: ErrBlobNotFound, ErrUnavailable. It is a secret.
func (s *Service) URL(ctx context.Context, d Digest, method string) (string, error) {
	if method != http.MethodGet && method != http.MethodHead {
		return "", fmt.Errorf("making a URL: method %q is neither GET nor HEAD", method)
	}
	r, err := s.find(ctx, d)
	if err != nil {
		return "", err
	}
	if s.urls == nil {
		return s.signedBlobURL(d, method), nil
	}
	url, err := s.urls.Presign(ctx, r.key(d), method, s.lifetime)
	if err != nil {
		return "", fmt.Errorf("presigning %s: %w", d, err)
	}
	return url, nil
}

// find returns the row of a blob someone asks for.
func (s *Service) find(ctx context.Context, d Digest) (row, error) {
	if _, err := ParseDigest(string(d)); err != nil {
		return row{}, err
	}
	r, err := s.store.row(s.storage, d)
	if errors.Is(err, ErrBlobNotFound) {
		r, err = s.adopt(ctx, d)
	}
	if err != nil {
		return row{}, err
	}
	s.store.touched.row(s.storage, d, s.store.now())
	return r, nil
}

// adopt looks for an object at the blob's key and makes it a blob if its
// content is right.
func (s *Service) adopt(ctx context.Context, d Digest) (row, error) {
	object, err := s.driver.Stat(ctx, Key(d))
	if err != nil {
		return row{}, fmt.Errorf("looking for %s: %w", d, err)
	}
	if s.store.rejected.has(storedDigest{s.storage, d}, object) {
		return row{}, ErrBlobNotFound
	}
	release, err := s.store.digests.acquire(ctx, lockName(s.storage, d))
	if err != nil {
		return row{}, err
	}
	return detached(ctx, s.store, release, func(ctx context.Context) (row, error) {
		return s.adoptLocked(ctx, d)
	})
}

// adoptLocked is adopt for who holds the digest's lock.
func (s *Service) adoptLocked(ctx context.Context, d Digest) (row, error) {
	if r, err := s.store.row(s.storage, d); !errors.Is(err, ErrBlobNotFound) {
		return r, err
	}
	object, err := s.driver.Stat(ctx, Key(d))
	if err != nil {
		return row{}, fmt.Errorf("looking for %s: %w", d, err)
	}
	at := storedDigest{s.storage, d}
	if s.store.rejected.has(at, object) {
		return row{}, ErrBlobNotFound
	}
	found, err := s.hash(ctx, Key(d), object.Size)
	if err != nil {
		return row{}, fmt.Errorf("hashing %s: %w", d, err)
	}
	if found != d {
		s.store.rejected.add(at, object)
		s.log.Error("object in the storage has not the content its key says",
			zap.String("digest", string(d)), zap.String("content", string(found)), zap.Int64("size", object.Size))
		return row{}, ErrBlobNotFound
	}
	r := s.verifiedRow(object.Size)
	if err := s.store.db.Update(func(tx *bbolt.Tx) error { return putRow(tx, s.storage, d, r) }); err != nil {
		return row{}, fmt.Errorf("recording blob %s: %w", d, err)
	}
	return r, nil
}

// hash returns the digest of the object at key, which must have that size.
func (s *Service) hash(ctx context.Context, key string, size int64) (Digest, error) {
	select {
	case s.store.hashing <- struct{}{}:
		defer func() { <-s.store.hashing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	object, err := s.driver.Open(ctx, key)
	if err != nil {
		return "", err
	}
	defer object.Close()
	h := sha256.New()
	n, err := CopyContext(ctx, h, object)
	if err != nil {
		return "", err
	}
	if n != size {
		return "", fmt.Errorf("read %d bytes where there should be %d: %w", n, size, io.ErrUnexpectedEOF)
	}
	return DigestOf(h), nil
}

// present is find for who holds the digest's lock and is about to rely on the
// object itself: a row whose object is gone or has another size is dropped.
func (s *Service) present(ctx context.Context, d Digest) (row, error) {
	r, err := s.store.row(s.storage, d)
	if errors.Is(err, ErrBlobNotFound) {
		return s.adoptLocked(ctx, d)
	}
	if err != nil {
		return row{}, err
	}
	object, err := s.driver.Stat(ctx, r.key(d))
	if err != nil && !errors.Is(err, ErrBlobNotFound) {
		return row{}, fmt.Errorf("looking for %s: %w", d, err)
	}
	if err == nil && object.Size == r.Size {
		return r, nil
	}
	return row{}, s.lost(d)
}

// lost drops the row of a blob whose object is not there any more, so that it
// can be uploaded again, and returns ErrBlobNotFound.
func (s *Service) lost(d Digest) error {
	s.log.Error("blob is missing in the storage", zap.String("digest", string(d)))
	err := s.store.db.Update(func(tx *bbolt.Tx) error { return deleteRow(tx, s.storage, d) })
	if err != nil && !errors.Is(err, errNoRow) {
		return fmt.Errorf("dropping blob %s: %w", d, err)
	}
	return ErrBlobNotFound
}

func (s *Service) verifiedRow(size int64) row {
	now := s.store.now().UTC()
	return row{State: rowVerified, Size: size, VerifiedAt: now, LastUsed: now}
}

func lockName(storage string, d Digest) string { return storage + "\x00" + string(d) }

// rejected remembers objects whose content is not what their key says, so that
// asking for one again does not hash it again.
type rejected struct {
	mu      sync.Mutex
	objects map[storedDigest]Object
}

func (r *rejected) has(at storedDigest, o Object) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.objects[at]
	return ok && known == o
}

func (r *rejected) add(at storedDigest, o Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.objects == nil {
		r.objects = make(map[storedDigest]Object)
	}
	r.objects[at] = o
}
