package caddyhold

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// canonicalPath is one name for a directory or file, however a configuration spells it:
// absolute, without symbolic links. It need not exist yet.
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
