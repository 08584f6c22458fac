package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Blobs and uploads may be private, so they are the hold's user's alone.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// Driver keeps blobs below a directory. It keeps the hash states of open
// uploads in memory, so there must be one driver for a directory at a time.
type Driver struct {
	root     *os.Root
	identity string

	mu      sync.Mutex
	uploads map[string]*upload // by ID, loaded when first used
	durable map[string]bool    // directories whose entry in their parent is synced
}

// Open returns the driver of a directory, which is made if it is not there.
// A relative path is relative to the working directory of now.
func Open(dir string) (*Driver, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening blob directory %s: %w", dir, err)
	}
	if err := os.MkdirAll(abs, dirMode); err != nil {
		return nil, fmt.Errorf("making blob directory: %w", err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("opening blob directory: %w", err)
	}
	return &Driver{
		root: root, identity: "filesystem:" + abs,
		uploads: make(map[string]*upload), durable: make(map[string]bool),
	}, nil
}

// Close gives up the directory. Open blobs can be read on.
func (d *Driver) Close() error { return d.root.Close() }

// Identity is the absolute path of the directory.
func (d *Driver) Identity() string { return d.identity }

// Begin makes the upload's directory, without which no part is taken.
func (d *Driver) Begin(_ context.Context, id string) (handle string, err error) {
	dir, err := stagingDir(id)
	if err != nil {
		return "", err
	}
	if err := d.root.MkdirAll(dir, dirMode); err != nil {
		return "", full(fmt.Errorf("making the upload's directory: %w", err))
	}
	return "", nil
}

// Discard removes the upload's directory.
func (d *Driver) Discard(_ context.Context, u blobs.Upload) error {
	up, err := d.upload(u.ID)
	if err != nil {
		return err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	up.ended = true
	up.head = nil
	if err := d.root.RemoveAll(up.dir); err != nil {
		return fmt.Errorf("removing the upload's directory: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uploads[u.ID] == up {
		delete(d.uploads, u.ID)
	}
	return nil
}

// Stat describes the regular file at key.
func (d *Driver) Stat(_ context.Context, key string) (blobs.Object, error) {
	info, err := d.root.Stat(filepath.FromSlash(key))
	if missing(err) || err == nil && !info.Mode().IsRegular() {
		return blobs.Object{}, blobs.ErrBlobNotFound
	}
	if err != nil {
		return blobs.Object{}, err
	}
	return blobs.Object{Size: info.Size(), Version: info.ModTime().UTC().String()}, nil
}

// Open opens the regular file at key.
func (d *Driver) Open(_ context.Context, key string) (io.ReadSeekCloser, error) {
	file, err := d.root.Open(filepath.FromSlash(key))
	if missing(err) {
		return nil, blobs.ErrBlobNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = blobs.ErrBlobNotFound
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Healthy says whether the directory is there and has room.
func (d *Driver) Healthy(context.Context) error {
	if _, err := d.root.Stat("."); err != nil {
		return fmt.Errorf("%w: %w", blobs.ErrUnavailable, err)
	}
	return d.room(0)
}

// upload returns the state of an upload, not yet loaded if it is new here.
func (d *Driver) upload(id string) (*upload, error) {
	dir, err := stagingDir(id)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	up := d.uploads[id]
	if up == nil {
		up = &upload{root: d.root, dir: dir}
		d.uploads[id] = up
	}
	return up, nil
}

// forget drops the state of an upload that turned out not to exist.
func (d *Driver) forget(id string, up *upload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uploads[id] == up {
		delete(d.uploads, id)
	}
}

func stagingDir(id string) (string, error) {
	if id == "" || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: not hexadecimal", blobs.ErrInvalidUploadID)
	}
	return filepath.FromSlash(blobs.StagingPrefix + id), nil
}

// reserve is kept free, so that the database, which is often on the same
// volume, can be written when there is no room for blobs: 256 MiB, or a fiftieth
// of a small volume.
func reserve(capacity uint64) uint64 { return min(256<<20, capacity/50) }

// room says whether size bytes more may be stored; -1 is unknown.
func (d *Driver) room(size int64) error {
	free, capacity, err := volume(d.root)
	if err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	if free < reserve(capacity) || free-reserve(capacity) < uint64(max(size, 0)) {
		return fmt.Errorf("%w: %d bytes are free", blobs.ErrInsufficientStorage, free)
	}
	return nil
}

// full wraps err with ErrInsufficientStorage if that is what it says.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blobs.ErrInsufficientStorage, err)
	}
	return err
}

// missing says whether err means that there is no such file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// makeBlobDir makes the directory of one blob, whose own entry is not durable
// yet: there are too many to remember.
func (d *Driver) makeBlobDir(dir string) error {
	if err := d.makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := d.root.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// makeDirs makes dir and its parents, and makes that durable. What somebody
// else has made may not be synced yet, so only what this driver has synced
// itself counts.
func (d *Driver) makeDirs(dir string) error {
	d.mu.Lock()
	durable := d.durable[dir]
	d.mu.Unlock()
	if durable || dir == "." {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := d.makeDirs(parent); err != nil {
		return err
	}
	if err := d.root.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.syncDir(parent); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable[dir] = true
	return nil
}

func (d *Driver) forgetDirs() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.durable)
}

// syncDir makes the entries of a directory durable, where the system can.
func (d *Driver) syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	file, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
