package pds

import "errors"

// What callers branch on. All arrive wrapped, with what they are about.
var (
	ErrBlobNotFound     = errors.New("blob not found")
	ErrBlobTooLarge     = errors.New("blob too large")
	ErrBlockNotFound    = errors.New("block not found")
	ErrClosed           = errors.New("repository is closed")
	ErrConsumerTooSlow  = errors.New("consumer too slow")
	ErrFutureCursor     = errors.New("cursor in the future")
	ErrIdentityMismatch = errors.New("the database belongs to another identity")
	ErrInvalidCursor    = errors.New("invalid cursor")
	ErrInvalidPath      = errors.New("invalid record path")
	ErrInvalidRecord    = errors.New("invalid record")
	ErrInvalidSwap      = errors.New("the repository has changed")
	ErrRecordExists     = errors.New("record exists")
	ErrRecordNotFound   = errors.New("record not found")
)
