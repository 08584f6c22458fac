package blobs

import (
	"context"
	"io"
	"time"
)

const (
	// MaxParts is the highest part number: what S3 allows.
	MaxParts = 10_000
	// MaxPartSize is the size of the largest part, in bytes: what S3 allows.
	MaxPartSize = 5 << 30

	// StagingPrefix is where drivers keep uploads in progress, one directory or
	// key space for each upload's ID.
	StagingPrefix = "caddyhold/uploads/"
)

// Driver keeps bytes: uploads in progress by ID, and objects by key. Its
// methods may be called concurrently. A driver reports ErrUnavailable when the
// storage is away and ErrInsufficientStorage when it is full; other errors need
// no sentinel but those named at a method.
type Driver interface {
	// Identity names the storage, for instance by path or by endpoint and bucket.
	// Two drivers of the same identity see the same uploads and objects.
	Identity() string

	// Begin prepares an upload. The handle it returns, which may be empty, is
	// given back in every later Upload. Discard must find what a Begin left that
	// failed, or whose handle was lost.
	Begin(ctx context.Context, id string) (handle string, err error)

	// WritePart stores a part of an upload that was begun and not assembled or
	// discarded since, else ErrInvalidUploadID, replacing an earlier one of that number once all of
	// it has come. size is the number of bytes to come or -1; a body of another
	// length is an error and leaves no part. The ETag is opaque and unquoted.
	WritePart(ctx context.Context, u Upload, part int, body io.Reader, size int64) (etag string, err error)

	// Assemble makes one object of the parts, which are in ascending order. They
	// must be all that were received, else ErrMissingParts and the upload goes on.
	// Afterwards no part can be written any more. Doing it again is no error.
	Assemble(ctx context.Context, u Upload, parts []Part) (Object, error)

	// Verify compares an assembled upload with d: nil or ErrDigestMismatch.
	Verify(ctx context.Context, u Upload, o Object, d Digest) error

	// Place verifies an assembled upload like Verify and makes it an object at
	// Key(d), durably, replacing what is there. It returns the key, which may be
	// another where the storage cannot move objects of that size: then the upload
	// is not discarded. Doing it again is no error as long as the upload was not
	// discarded. After ErrDigestMismatch there is nothing new at Key(d).
	Place(ctx context.Context, u Upload, o Object, d Digest) (key string, err error)

	// Discard removes everything an upload has left. An upload that does not exist
	// is no error.
	Discard(ctx context.Context, u Upload) error

	// Stat describes the object at key, or ErrBlobNotFound.
	Stat(ctx context.Context, key string) (Object, error)

	// Open opens the object at key for reading from its start, or ErrBlobNotFound.
	// If the object is deleted or replaced meanwhile, reading goes on or fails.
	Open(ctx context.Context, key string) (io.ReadSeekCloser, error)

	// Healthy says whether the storage can be used now.
	Healthy(ctx context.Context) error
}

// PartPresigner is a Driver to which clients can send parts themselves.
type PartPresigner interface {
	// PresignPart returns a request, good for lifetime, that stores one part.
	PresignPart(ctx context.Context, u Upload, part int, lifetime time.Duration) (Target, error)
}

// Presigner is a Driver from which clients can read objects themselves.
type Presigner interface {
	// Presign returns a URL of the object at key, good for lifetime and for
	// method, GET or HEAD, alone.
	Presign(ctx context.Context, key, method string, lifetime time.Duration) (string, error)
}

// Upload names an upload towards a driver.
type Upload struct {
	ID     string // 128 random bits in hexadecimal digits, fit for a file name
	Handle string // what Begin returned, empty where it was lost
}

// Part names a part of an upload by its number, from 1, and the ETag that
// storing it returned.
type Part struct {
	Number int
	ETag   string
}

// Object describes what is stored at a key.
type Object struct {
	Size    int64  // bytes
	Version string // changes with the content: an ETag, a time; opaque
}

// Target is a request a client makes to send a part.
type Target struct {
	URL     string
	Method  string
	Headers map[string]string // must be sent, never nil
}
