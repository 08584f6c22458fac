package pds

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// privateKeyLen is the length of a K-256 private key, in bytes.
const privateKeyLen = 32

// LoadOrCreateKey reads a K-256 private key: multibase, hex, or 32 raw bytes.
// Where there is no file, it makes a key and writes it as multibase, readable
// by its owner alone; the file is there as a whole or not at all.
func LoadOrCreateKey(path string) (*atcrypto.PrivateKeyK256, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createKey(path); err != nil {
			return nil, fmt.Errorf("making signing key %s: %w", path, err)
		}
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the signing key: %w", err)
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return key, nil
}

func parseKey(data []byte) (*atcrypto.PrivateKeyK256, error) {
	if len(data) == privateKeyLen {
		return atcrypto.ParsePrivateBytesK256(data)
	}
	text := string(bytes.TrimSpace(data))
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == privateKeyLen {
		return atcrypto.ParsePrivateBytesK256(raw)
	}
	parsed, err := atcrypto.ParsePrivateMultibase(text)
	if err != nil {
		return nil, errors.New("neither multibase, hex, nor 32 bytes") // the cause might show the key
	}
	key, ok := parsed.(*atcrypto.PrivateKeyK256)
	if !ok {
		return nil, errors.New("not a K-256 key")
	}
	return key, nil
}

// createKey writes a new key to path, unless another process was faster.
func createKey(path string) error {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	draft, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.WriteString(key.Multibase() + "\n")
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces a key.
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
