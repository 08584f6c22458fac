package caddyhold

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
)

func init() {
	caddy.RegisterModule(FileSystem{})
}

// FileSystem keeps blobs in a directory.
type FileSystem struct {
	// The directory, made if absent. Default: `blobs` in the hold's data directory.
	Root string `json:"root,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (FileSystem) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "atcr_hold.storage.filesystem",
		New: func() caddy.Module { return new(FileSystem) },
	}
}

// Provision resolves placeholders.
func (f *FileSystem) Provision(caddy.Context) error {
	return replacePlaceholders(field{"root", &f.Root})
}

// UnmarshalCaddyfile sets up the storage from Caddyfile tokens. Syntax:
//
//	filesystem {
//	    root <path>
//	}
func (f *FileSystem) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	return parseBlock(d, map[string]argument{"root": text(&f.Root)})
}

// roots keeps the open drivers of this process, by canonical root: a driver remembers how
// far the hash of each open upload has come, so there must be one only.
var roots = caddy.NewUsagePool()

// openRoot is a driver in the pool.
type openRoot struct{ *filesystem.Driver }

// Destruct closes the driver.
func (r openRoot) Destruct() error { return r.Close() }

// OpenStorage implements [Storage].
func (f *FileSystem) OpenStorage(_ context.Context, dataDir string) (blobs.Driver, func() error, error) {
	root := f.Root
	if root == "" {
		root = filepath.Join(dataDir, "blobs")
	}
	root, err := canonicalPath(root)
	if err != nil {
		return nil, nil, fmt.Errorf("root: %w", err)
	}
	value, _, err := roots.LoadOrNew(root, func() (caddy.Destructor, error) {
		driver, err := filesystem.Open(root)
		return openRoot{driver}, err
	})
	if err != nil {
		return nil, nil, err
	}
	release := func() error {
		_, err := roots.Delete(root)
		return err
	}
	return value.(openRoot).Driver, release, nil
}

// Interface guards
var (
	_ Storage               = (*FileSystem)(nil)
	_ caddy.Provisioner     = (*FileSystem)(nil)
	_ caddyfile.Unmarshaler = (*FileSystem)(nil)
)
