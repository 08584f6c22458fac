package pds

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"

	"github.com/ipfs/go-cid"
)

// MaxBlobSize bounds a blob, in bytes: these are avatars and the like.
const MaxBlobSize = 5_000_000

const (
	unknownType = "application/octet-stream"
	maxMIMEType = 255
)

// Blob describes a blob of the account (https://atproto.com/specs/blob).
type Blob struct {
	CID      cid.Cid // of raw data
	MIMEType string
	Size     int64
}

// PutBlob stores a blob for records to refer to. A MIME type that is none
// becomes application/octet-stream; of a blob that is there already it stays
// as it was. It returns [ErrBlobTooLarge] for more than [MaxBlobSize] bytes.
func (r *Repo) PutBlob(ctx context.Context, mimeType string, body io.Reader) (Blob, error) {
	content, err := io.ReadAll(io.LimitReader(body, MaxBlobSize+1))
	if err != nil {
		return Blob{}, fmt.Errorf("reading a blob: %w", err)
	}
	if len(content) > MaxBlobSize {
		return Blob{}, fmt.Errorf("%w: more than %d bytes", ErrBlobTooLarge, MaxBlobSize)
	}
	if err := r.ended(ctx); err != nil {
		return Blob{}, err
	}
	if _, _, err := mime.ParseMediaType(mimeType); err != nil || len(mimeType) > maxMIMEType {
		mimeType = unknownType
	}
	c := sum(cid.Raw, content)
	err = r.update(func(s snapshot) error {
		if known, _, err := s.blob(c); err == nil {
			mimeType = known
			return nil
		}
		return s.putBlob(c, mimeType, content)
	})
	if err != nil {
		return Blob{}, fmt.Errorf("storing a blob: %w", err)
	}
	return Blob{CID: c, MIMEType: mimeType, Size: int64(len(content))}, nil
}

// OpenBlob returns a blob and its content, or [ErrBlobNotFound].
func (r *Repo) OpenBlob(c cid.Cid) (b Blob, content []byte, err error) {
	err = r.view(func(s snapshot) error {
		mimeType, stored, err := s.blob(c)
		content = bytes.Clone(stored)
		b = Blob{CID: c, MIMEType: mimeType, Size: int64(len(stored))}
		return err
	})
	if err != nil {
		return Blob{}, nil, err
	}
	return b, content, nil
}

// Blobs lists the blobs that records refer to, in the order of their CIDs,
// and returns the cursor of the next page, which is empty on the last one.
// With since, a rev, only records of later commits count. A cursor that is no
// CID is [ErrInvalidCursor].
func (r *Repo) Blobs(since, cursor string, limit int) (cids []cid.Cid, next string, err error) {
	var after cid.Cid
	if cursor != "" {
		if after, err = cid.Decode(cursor); err != nil {
			return nil, "", fmt.Errorf("%w %.80q: %w", ErrInvalidCursor, cursor, err)
		}
	}
	if limit <= 0 {
		limit = defaultPage
	}
	var more bool
	err = r.view(func(s snapshot) error {
		cids, more, err = s.referencedBlobs(since, after, limit)
		return err
	})
	if more {
		next = cids[len(cids)-1].String()
	}
	return cids, next, err
}
