package blobs

import (
	"context"
	"errors"
	"fmt"
)

// What callers branch on. Each error of this package and its drivers wraps at
// most one of them, save ErrDigestMismatch, which is also an ErrInvalidDigest.
var (
	// ErrInvalidDigest: not a digest, or not one of what was uploaded.
	ErrInvalidDigest = errors.New("invalid digest")
	// ErrDigestMismatch: the uploaded content hashes to another digest.
	ErrDigestMismatch = fmt.Errorf("%w: the content has another one", ErrInvalidDigest)
	// ErrInvalidUploadID: no open upload of that name, owner and storage.
	ErrInvalidUploadID = errors.New("invalid upload id")
	// ErrInvalidPartNumber: not in 1…MaxParts.
	ErrInvalidPartNumber = errors.New("invalid part number")
	// ErrPartTooLarge: more than MaxPartSize.
	ErrPartTooLarge = errors.New("part too large")
	// ErrTooManyUploads: the owner has MaxOpenUploads that are not ended.
	ErrTooManyUploads = errors.New("too many open uploads")
	// ErrMissingParts: the parts named are not those that were received.
	ErrMissingParts = errors.New("missing parts")
	// ErrUploadFailed: a part could not be read or stored.
	ErrUploadFailed = errors.New("upload failed")
	// ErrCompletionFailed: an upload could not be made a blob; it stays as it is.
	ErrCompletionFailed = errors.New("completion failed")
	// ErrAbortFailed: what an aborted upload left could not be removed yet.
	ErrAbortFailed = errors.New("abort failed")
	// ErrBlobNotFound: no verified blob of that digest.
	ErrBlobNotFound = errors.New("blob not found")
	// ErrInsufficientStorage: the storage is full.
	ErrInsufficientStorage = errors.New("insufficient storage")
	// ErrUnavailable: the storage is away or overloaded; trying later may help.
	ErrUnavailable = errors.New("storage unavailable")
	// ErrBadSignature: a signed URL that is not ours, was altered or has expired.
	ErrBadSignature = errors.New("bad signature")
)

// failed wraps err with sentinel unless err already says what went wrong in
// terms that callers know.
func failed(sentinel, err error) error {
	for _, known := range []error{
		ErrInvalidDigest, ErrInvalidUploadID, ErrInvalidPartNumber, ErrPartTooLarge, ErrTooManyUploads, ErrMissingParts, ErrUploadFailed, ErrCompletionFailed,
		ErrAbortFailed, ErrInsufficientStorage, ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}
