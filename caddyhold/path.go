package caddyhold

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
)

func defaultDataDir() string {
	return filepath.Join(caddy.AppDataDir(), "atcr_hold")
}

// canonicalPath is the one name under which a directory is pooled, however a configuration
// spells it: absolute, without symbolic links. The directory need not exist yet.
func canonicalPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		return resolved, nil
	}
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		parent, err := canonicalPath(parent)
		return filepath.Join(parent, filepath.Base(path)), err
	}
	return "", err
}
