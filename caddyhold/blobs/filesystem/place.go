package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Assemble appends the parts that still wait, in order, and seals data: from
// then on it is called blob and takes no part, so that nothing can change the
// file that Place links.
func (d *Driver) Assemble(ctx context.Context, u blobs.Upload, parts []blobs.Part) (blobs.Object, error) {
	up, err := d.upload(u.ID)
	if err != nil {
		return blobs.Object{}, err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	err = up.load(ctx)
	if err == nil && !up.sealed {
		err = up.assemble(ctx, parts)
	}
	if errors.Is(err, errEnded) {
		// Nothing but a lost directory can be the reason: the caller knows the upload.
		d.forget(u.ID, up)
		err = fmt.Errorf("%w: the upload's directory is gone", blobs.ErrMissingParts)
	}
	if err != nil {
		return blobs.Object{}, err
	}
	return blobs.Object{Size: up.size}, nil
}

func (u *upload) assemble(ctx context.Context, parts []blobs.Part) error {
	if err := u.compare(parts); err != nil {
		return err
	}
	if u.head != nil { // a part that nobody waits for any more
		if err := u.rollback(); err != nil {
			return err
		}
	}
	for _, number := range slices.Sorted(maps.Keys(u.waiting)) {
		if err := u.appendWaiting(ctx, number); err != nil {
			return err
		}
	}
	data, err := u.openData() // there is none yet where there are no parts
	if err != nil {
		return err
	}
	if err := data.Close(); err != nil {
		return err
	}
	if err := u.root.Rename(u.file(dataName), u.file(sealedName)); err != nil {
		return full(err)
	}
	u.sealed = true
	return nil
}

// compare says whether parts are exactly what was received.
func (u *upload) compare(parts []blobs.Part) error {
	received := maps.Clone(u.waiting)
	for _, part := range u.parts {
		received[part.number] = part.etag
	}
	for _, part := range parts {
		tag, ok := received[part.Number]
		if !ok {
			return fmt.Errorf("%w: part %d was not received", blobs.ErrMissingParts, part.Number)
		}
		if tag != part.ETag {
			return fmt.Errorf("%w: part %d has another etag", blobs.ErrMissingParts, part.Number)
		}
		delete(received, part.Number)
	}
	if len(received) > 0 {
		return fmt.Errorf("%w: part %d was received and is not named", blobs.ErrMissingParts, slices.Min(slices.Collect(maps.Keys(received))))
	}
	return nil
}

// Verify compares the hash of an assembled upload with a digest.
func (d *Driver) Verify(ctx context.Context, u blobs.Upload, _ blobs.Object, digest blobs.Digest) error {
	up, err := d.upload(u.ID)
	if err != nil {
		return err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	return up.verify(ctx, digest)
}

func (u *upload) verify(ctx context.Context, digest blobs.Digest) error {
	err := u.load(ctx)
	if errors.Is(err, errEnded) || err == nil && !u.sealed {
		return fmt.Errorf("%w: the assembled upload is gone", blobs.ErrMissingParts)
	}
	if err != nil {
		return err
	}
	if found := blobs.DigestOf(u.hash); found != digest {
		return fmt.Errorf("%w (%s)", blobs.ErrDigestMismatch, found)
	}
	return nil
}

// Place verifies the upload, syncs it, and links it to the final key. The link
// in the upload's directory stays, so that all of this can be done again until
// the upload is discarded. Where a file system knows no hard links the file
// moves, and a crash right after that costs the client another upload.
func (d *Driver) Place(ctx context.Context, u blobs.Upload, _ blobs.Object, digest blobs.Digest) (string, error) {
	up, err := d.upload(u.ID)
	if err != nil {
		return "", err
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if err := up.verify(ctx, digest); err != nil {
		return "", err
	}
	if err := up.sync(); err != nil {
		return "", err
	}
	key := blobs.Key(digest)
	if err := d.link(up.file(sealedName), filepath.FromSlash(key)); err != nil {
		return "", full(fmt.Errorf("moving the upload to its key: %w", err))
	}
	return key, nil
}

// sync makes the content durable. When that fails the system may have dropped
// pages and call them clean, so the content is not trusted any more.
func (u *upload) sync() error {
	file, err := u.root.OpenFile(u.file(sealedName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = errors.Join(file.Sync(), file.Close())
	if err == nil {
		return nil
	}
	u.ended = true
	return full(fmt.Errorf("syncing the upload: %w", errors.Join(err, u.root.RemoveAll(u.dir))))
}

// link makes file appear at key, durably. What is there already belongs to no
// verified blob, or is the same file, from an attempt before.
func (d *Driver) link(file, key string) error {
	dir := filepath.Dir(key)
	parent := filepath.Dir(dir)
	err := d.makeBlobDir(dir)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed a directory that was there
		d.forgetDirs()
		err = d.makeBlobDir(dir)
	}
	if err != nil {
		return err
	}
	err = d.root.Link(file, key)
	if errors.Is(err, fs.ErrExist) {
		err = d.relink(file, key)
	}
	if err != nil { // no hard links here
		err = d.root.Rename(file, key)
	}
	if err != nil {
		return err
	}
	return errors.Join(d.syncDir(dir), d.syncDir(parent))
}

// relink replaces what is at key by file, unless it is the same.
func (d *Driver) relink(file, key string) error {
	here, err := d.root.Stat(file)
	if err != nil {
		return err
	}
	there, err := d.root.Stat(key)
	if err == nil && os.SameFile(here, there) {
		return nil
	}
	if err := d.root.Remove(key); err != nil {
		return err
	}
	return d.root.Link(file, key)
}
