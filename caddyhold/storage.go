package caddyhold

import (
	"context"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Storage is what a Caddy module in the namespace atcr_hold.storage implements: a place where
// blobs are kept. Like all of a configuration it must open nothing when it is provisioned.
type Storage interface {
	// OpenStorage opens the storage for a hold whose data directory is dataDir. It is called
	// when a configuration starts, while an older one may be using the same storage, and must
	// not fail because a remote storage is away.
	//
	// Release is called once, when the last request of that configuration has ended.
	OpenStorage(ctx context.Context, dataDir string) (driver blobs.Driver, release func() error, err error)
}
