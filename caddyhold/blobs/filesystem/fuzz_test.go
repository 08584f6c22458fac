package filesystem_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Whatever a power failure has left, an upload goes on from there.
func FuzzUploadReadBack(f *testing.F) {
	f.Add([]byte("1 e3069283-3\n"), []byte("one"), "part-2-e3069283-3", []byte("two"))
	f.Add([]byte("1 364b3fb7-9\n2 "), []byte("123456789"), "part-2-364b3fb7-9", []byte("x"))
	f.Add([]byte("2 00000000-0\n1 00000000-0\n"), []byte(""), "tmp-x", []byte(""))
	f.Add([]byte("1 00000000-9223372036854775807\n"), []byte("one"), "part-99999999999999999999-00000000-0", []byte(""))
	f.Add([]byte("1 00000000--1\n"), []byte("one"), "part--1-00000000-0", []byte(""))
	f.Fuzz(func(t *testing.T, journal, data []byte, name string, content []byte) {
		dir := t.TempDir()
		d := open(t, dir)
		u := blobs.Upload{ID: uploadID}
		if _, err := d.Begin(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		staging := filepath.Join(dir, filepath.FromSlash(blobs.StagingPrefix), uploadID)
		if err := errors.Join(os.WriteFile(filepath.Join(staging, "journal"), journal, 0o600), os.WriteFile(filepath.Join(staging, "data"), data, 0o600)); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(name) == name && name != "blob" && name != "data" && name != "journal" {
			_ = os.WriteFile(filepath.Join(staging, name), content, 0o600) // some are no file names
		}
		if _, err := d.Assemble(t.Context(), u, []blobs.Part{{Number: 7, ETag: "none"}}); !errors.Is(err, blobs.ErrMissingParts) {
			t.Fatalf("assembling what was not received: %v", err)
		}
		write(t, d, u, 1, "one")
	})
}
