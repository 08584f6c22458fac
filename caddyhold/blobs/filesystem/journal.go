package filesystem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// load reads the state of an upload from its directory.
func (u *upload) load(ctx context.Context) error {
	if u.ended {
		return errEnded
	}
	if u.loaded {
		return nil
	}
	entries, err := fs.ReadDir(u.root.FS(), filepath.ToSlash(u.dir))
	if missing(err) {
		return errEnded
	}
	if err != nil {
		return fmt.Errorf("reading the upload's directory: %w", err)
	}
	u.parts, u.size, u.hash, u.head, u.sealed = nil, 0, newHash(), nil, false
	u.waiting = make(map[int]string)
	for _, entry := range entries {
		u.sealed = u.sealed || entry.Name() == sealedName
	}
	if u.sealed {
		err = u.loadSealed(ctx)
	} else {
		err = u.loadParts(ctx, entries)
	}
	if err != nil {
		return fmt.Errorf("reading the upload back: %w", err)
	}
	u.loaded = true
	return nil
}

// loadSealed hashes an assembled upload.
func (u *upload) loadSealed(ctx context.Context) error {
	file, err := u.root.Open(u.file(sealedName))
	if err != nil {
		return err
	}
	defer file.Close()
	u.size, err = blobs.CopyContext(ctx, u.hash, file)
	return err
}

// loadParts reads the parts in data, as far as the journal and their checksums
// vouch for them, and takes note of those in files of their own.
func (u *upload) loadParts(ctx context.Context, entries []fs.DirEntry) error {
	journal, err := u.readJournal()
	if err != nil {
		return err
	}
	for _, part := range journal {
		ok, err := u.loadSegment(ctx, part)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
	}
	if err := u.writeJournal(u.parts); err != nil {
		return err
	}
	if err := u.truncate(u.size); err != nil {
		return err
	}
	for _, entry := range entries {
		if err := u.loadFile(entry.Name()); err != nil {
			return err
		}
	}
	return nil
}

// loadSegment hashes one part in data, if it is there and undamaged.
func (u *upload) loadSegment(ctx context.Context, part segment) (ok bool, err error) {
	before, err := stateOf(u.hash)
	if err != nil {
		return false, err
	}
	data, err := u.root.Open(u.file(dataName))
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer data.Close()
	sum, ahead := crc32.New(castagnoli), newHash()
	if err := restore(ahead, before); err != nil {
		return false, err
	}
	n, err := blobs.CopyContext(ctx, io.MultiWriter(ahead, sum), io.NewSectionReader(data, u.size, part.size))
	if err != nil {
		return false, err
	}
	if n != part.size || etag(sum.Sum32(), n) != part.etag {
		return false, nil
	}
	part.start, part.before = u.size, before
	u.parts, u.size, u.hash = append(u.parts, part), u.size+n, ahead
	return true, nil
}

// loadFile takes note of a part in a file of its own, unless it is in data too
// or was never received to its end.
func (u *upload) loadFile(name string) error {
	number, tag, isPart := parsePartName(name)
	_, appended := u.position(number)
	switch {
	case isPart && !appended:
		u.waiting[number] = tag
		return nil
	case isPart, strings.HasPrefix(name, tempPrefix):
		return u.root.Remove(u.file(name))
	default:
		return nil
	}
}

func parsePartName(name string) (number int, tag string, ok bool) {
	if _, err := fmt.Sscanf(name, "part-%d-%s", &number, &tag); err != nil {
		return 0, "", false
	}
	_, err := sizeOf(tag)
	return number, tag, err == nil && partName(number, tag) == name
}

// readJournal returns numbers, ETags and sizes of the parts in data, up to the
// first line that is not whole.
func (u *upload) readJournal() ([]segment, error) {
	content, err := u.root.ReadFile(u.file(journalName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var parts []segment
	for line := range bytes.Lines(content) {
		var part segment
		if _, err := fmt.Sscanf(string(line), "%d %s\n", &part.number, &part.etag); err != nil || journalLine(part) != string(line) {
			break
		}
		if part.size, err = sizeOf(part.etag); err != nil {
			break
		}
		if len(parts) > 0 && part.number <= parts[len(parts)-1].number {
			break
		}
		parts = append(parts, part)
	}
	return parts, nil
}

func journalLine(part segment) string { return fmt.Sprintf("%d %s\n", part.number, part.etag) }

// appendJournal notes that a part is in data.
func (u *upload) appendJournal(part segment) error {
	file, err := u.root.OpenFile(u.file(journalName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return full(err)
	}
	_, err = file.WriteString(journalLine(part))
	return full(errors.Join(err, file.Close()))
}

// writeJournal replaces the journal at once.
func (u *upload) writeJournal(parts []segment) error {
	var lines strings.Builder
	for _, part := range parts {
		lines.WriteString(journalLine(part))
	}
	temp := u.file(tempPrefix + journalName)
	if err := u.root.WriteFile(temp, []byte(lines.String()), fileMode); err != nil {
		return full(err)
	}
	return full(u.root.Rename(temp, u.file(journalName)))
}
