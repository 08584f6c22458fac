package filesystem_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
)

const uploadID = "00112233445566778899aabbccddeeff"

func open(t testing.TB, dir string) *filesystem.Driver {
	t.Helper()
	d, err := filesystem.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// Whatever order parts come in, however often, broken off and across restarts,
// what is assembled is the last whole version of each part, by number.
func TestAssembledContentIsTheLastVersionOfEachPartInOrder(t *testing.T) {
	seeds := uint64(200)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { playHistory(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

type model struct {
	content map[int][]byte
	etags   map[int]string
}

func (m model) parts() (parts []blobs.Part, content []byte) {
	for _, n := range slices.Sorted(maps.Keys(m.content)) {
		parts = append(parts, blobs.Part{Number: n, ETag: m.etags[n]})
		content = append(content, m.content[n]...)
	}
	return parts, content
}

func playHistory(t *testing.T, rng *rand.Rand) {
	ctx, dir := t.Context(), t.TempDir()
	d := open(t, dir)
	u := blobs.Upload{ID: uploadID}
	if _, err := d.Begin(ctx, u.ID); err != nil {
		t.Fatal(err)
	}
	m := model{content: make(map[int][]byte), etags: make(map[int]string)}
	next := 1
	for range 2 + rng.IntN(25) {
		part := next
		switch rng.IntN(4) {
		case 0:
			part = 1 + rng.IntN(8)
		case 1:
			part = next + rng.IntN(3)
		}
		body := randomBytes(rng, rng.IntN(3)*rng.IntN(400_000))
		switch rng.IntN(8) {
		case 0: // a restart
			_ = d.Close()
			d = open(t, dir)
		case 1: // a broken body leaves what was there
			_, err := d.WritePart(ctx, u, part, io.MultiReader(bytes.NewReader(body), brokenReader{}), -1)
			if !errors.Is(err, errBroken) {
				t.Fatalf("broken body: %v", err)
			}
		case 2: // so does a short one
			_, err := d.WritePart(ctx, u, part, bytes.NewReader(body), int64(len(body)+1))
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("short body: %v", err)
			}
		case 3: // and a long one
			_, err := d.WritePart(ctx, u, part, bytes.NewReader(append(body, 1)), int64(len(body)))
			if err == nil {
				t.Fatal("a body longer than announced was accepted")
			}
		default:
			etag, err := d.WritePart(ctx, u, part, bytes.NewReader(body), int64(len(body)))
			if err != nil {
				t.Fatalf("part %d: %v", part, err)
			}
			m.content[part], m.etags[part] = body, etag
			next = max(next, part+1)
		}
	}
	parts, content := m.parts()
	if len(parts) > 0 {
		if _, err := d.Assemble(ctx, u, parts[1:]); !errors.Is(err, blobs.ErrMissingParts) {
			t.Fatalf("assembling without the first part: %v", err)
		}
	}
	if rng.IntN(2) == 0 {
		_ = d.Close()
		d = open(t, dir)
	}
	object, err := d.Assemble(ctx, u, parts)
	if err != nil {
		t.Fatalf("assembling: %v", err)
	}
	if object.Size != int64(len(content)) {
		t.Fatalf("size %d, want %d", object.Size, len(content))
	}
	if rng.IntN(2) == 0 {
		_ = d.Close()
		d = open(t, dir)
	}
	place(t, d, u, object, content)
	if err := d.Discard(ctx, u); err != nil {
		t.Fatal(err)
	}
	expectNoUploads(t, dir)
	expectStored(t, d, content)
}

// place checks that the content is refused under another digest and stored
// under its own, twice.
func place(t *testing.T, d *filesystem.Driver, u blobs.Upload, o blobs.Object, content []byte) {
	t.Helper()
	ctx := context.Background()
	wrong := digestOf(append([]byte("x"), content...))
	if _, err := d.Place(ctx, u, o, wrong); !errors.Is(err, blobs.ErrDigestMismatch) {
		t.Fatalf("placing under a wrong digest: %v", err)
	}
	if _, err := d.Stat(ctx, blobs.Key(wrong)); !errors.Is(err, blobs.ErrBlobNotFound) {
		t.Fatalf("a wrong digest has an object: %v", err)
	}
	right := digestOf(content)
	for range 2 {
		key, err := d.Place(ctx, u, o, right)
		if err != nil || key != blobs.Key(right) {
			t.Fatalf("placing: %q, %v", key, err)
		}
		if err := d.Verify(ctx, u, o, right); err != nil {
			t.Fatalf("verifying: %v", err)
		}
	}
}

func expectStored(t *testing.T, d *filesystem.Driver, content []byte) {
	t.Helper()
	file, err := d.Open(context.Background(), blobs.Key(digestOf(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got, err := io.ReadAll(file)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("stored %d bytes (%v), want %d others", len(got), err, len(content))
	}
}

func expectNoUploads(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(blobs.StagingPrefix)))
	if err != nil || len(entries) > 0 {
		t.Fatalf("uploads left: %v, %v", entries, err)
	}
}

var errBroken = errors.New("connection lost")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func digestOf(content []byte) blobs.Digest {
	return blobs.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(content)))
}
