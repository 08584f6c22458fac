package filesystem_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
)

func begin(t *testing.T) (*filesystem.Driver, string, blobs.Upload) {
	t.Helper()
	dir := t.TempDir()
	d := open(t, dir)
	if _, err := d.Begin(t.Context(), uploadID); err != nil {
		t.Fatal(err)
	}
	return d, dir, blobs.Upload{ID: uploadID}
}

func write(t *testing.T, d *filesystem.Driver, u blobs.Upload, part int, content string) blobs.Part {
	t.Helper()
	etag, err := d.WritePart(t.Context(), u, part, strings.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("part %d: %v", part, err)
	}
	return blobs.Part{Number: part, ETag: etag}
}

func expectContent(t *testing.T, d *filesystem.Driver, u blobs.Upload, parts []blobs.Part, content string) {
	t.Helper()
	object, err := d.Assemble(t.Context(), u, parts)
	if err != nil {
		t.Fatalf("assembling: %v", err)
	}
	place(t, d, u, object, []byte(content))
	expectStored(t, d, []byte(content))
}

func TestRetriedPartWinsOverOneWhoseConnectionHangs(t *testing.T) {
	d, _, u := begin(t)
	hung := newHangingBody("lost ")
	failed := make(chan error, 1)
	go func() {
		_, err := d.WritePart(t.Context(), u, 1, hung, -1)
		failed <- err
	}()
	<-hung.started
	one := write(t, d, u, 1, "one ")
	two := write(t, d, u, 2, "two")
	hung.release()
	if err := <-failed; err == nil {
		t.Error("the part that hung was accepted after its retry")
	}
	expectContent(t, d, u, []blobs.Part{one, two}, "one two")
}

func TestPartThatHangsDoesNotKeepAnUploadFromCompleting(t *testing.T) {
	d, _, u := begin(t)
	one := write(t, d, u, 1, "one")
	hung := newHangingBody("two")
	failed := make(chan error, 1)
	go func() {
		_, err := d.WritePart(t.Context(), u, 2, hung, -1)
		failed <- err
	}()
	<-hung.started
	expectContent(t, d, u, []blobs.Part{one}, "one")
	hung.release()
	if err := <-failed; err == nil {
		t.Error("a part was accepted after the upload was assembled")
	}
	expectStored(t, d, []byte("one"))
}

func TestPartsInParallelComeTogether(t *testing.T) {
	d, _, u := begin(t)
	const count = 40
	rng := rand.New(rand.NewPCG(7, 7))
	var content []byte
	parts := make([]blobs.Part, count)
	var sending sync.WaitGroup
	for i := range count {
		body := randomBytes(rng, 1+rng.IntN(600_000))
		content = append(content, body...)
		sending.Go(func() {
			etag, err := d.WritePart(t.Context(), u, i+1, bytes.NewReader(body), int64(len(body)))
			if err != nil {
				t.Error(err)
			}
			parts[i] = blobs.Part{Number: i + 1, ETag: etag}
		})
	}
	sending.Wait()
	expectContent(t, d, u, parts, string(content))
}

func TestEndedUploadTakesNoPart(t *testing.T) {
	for name, end := range map[string]func(d *filesystem.Driver, u blobs.Upload, p []blobs.Part) error{
		"assembled": func(d *filesystem.Driver, u blobs.Upload, p []blobs.Part) error {
			_, err := d.Assemble(t.Context(), u, p)
			return err
		},
		"discarded": func(d *filesystem.Driver, u blobs.Upload, _ []blobs.Part) error { return d.Discard(t.Context(), u) },
	} {
		t.Run(name, func(t *testing.T) {
			d, dir, u := begin(t)
			if err := end(d, u, []blobs.Part{write(t, d, u, 1, "one")}); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for _, part := range []int{1, 2, 3} {
					if _, err := d.WritePart(t.Context(), u, part, strings.NewReader("x"), 1); !errors.Is(err, blobs.ErrInvalidUploadID) {
						t.Errorf("part %d: %v", part, err)
					}
				}
				_ = d.Close()
				d = open(t, dir)
			}
		})
	}
}

func TestWhatAPowerFailureHasDamagedIsMissingNotWrong(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"data lost":       func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "data"), 5) },
		"data zeroed":     func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "data"), 4, "\x00\x00") },
		"journal lost":    func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "journal")) },
		"journal torn":    func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "journal"), 20) },
		"journal garbage": func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "journal"), 3, "\x00\xff") },
	} {
		t.Run(name, func(t *testing.T) {
			d, dir, u := begin(t)
			parts := []blobs.Part{write(t, d, u, 1, "one "), write(t, d, u, 2, "two ")}
			_ = d.Close()
			damage(t, filepath.Join(dir, filepath.FromSlash(blobs.StagingPrefix), uploadID))
			d = open(t, dir)
			if _, err := d.Assemble(t.Context(), u, parts); !errors.Is(err, blobs.ErrMissingParts) {
				t.Fatalf("assembling: %v", err)
			}
			parts = []blobs.Part{write(t, d, u, 1, "one "), write(t, d, u, 2, "two "), write(t, d, u, 3, "three")}
			expectContent(t, d, u, parts, "one two three")
		})
	}
}

func TestDamagedPartThatWaitedIsMissingNotWrong(t *testing.T) {
	d, dir, u := begin(t)
	two := write(t, d, u, 2, "two")
	overwrite(t, filepath.Join(dir, filepath.FromSlash(blobs.StagingPrefix), uploadID, "part-2-"+two.ETag), 0, "x")
	one := write(t, d, u, 1, "one ")
	if _, err := d.Assemble(t.Context(), u, []blobs.Part{one, two}); !errors.Is(err, blobs.ErrMissingParts) {
		t.Fatalf("assembling: %v", err)
	}
	two = write(t, d, u, 2, "two")
	expectContent(t, d, u, []blobs.Part{one, two}, "one two")
}

func TestNothingOutsideTheDirectoryCanBeNamed(t *testing.T) {
	d := open(t, t.TempDir())
	for _, id := range []string{"", "..", "../../x", "a/b", "ABC", strings.Repeat("g", 32)} {
		if _, err := d.Begin(t.Context(), id); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("Begin(%q): %v", id, err)
		}
		if err := d.Discard(t.Context(), blobs.Upload{ID: id}); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("Discard(%q): %v", id, err)
		}
	}
	if _, err := d.Open(t.Context(), "../../../../etc/passwd"); err == nil {
		t.Error("a file outside was opened")
	}
	if _, err := d.Stat(t.Context(), "."); !errors.Is(err, blobs.ErrBlobNotFound) {
		t.Errorf("a directory is an object: %v", err)
	}
}

func TestBlobIsPlacedThoughItsDirectoriesWereRemovedMeanwhile(t *testing.T) {
	d, dir, u := begin(t)
	expectContent(t, d, u, []blobs.Part{write(t, d, u, 1, "one")}, "one")
	if err := d.Discard(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "docker")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin(t.Context(), uploadID); err != nil {
		t.Fatal(err)
	}
	expectContent(t, d, u, []blobs.Part{write(t, d, u, 1, "one")}, "one")
}

func TestWhatLiesAtTheKeyIsReplaced(t *testing.T) {
	d, dir, u := begin(t)
	file := filepath.Join(dir, filepath.FromSlash(blobs.Key(digestOf([]byte("one")))))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("rotten"), 0o600); err != nil {
		t.Fatal(err)
	}
	expectContent(t, d, u, []blobs.Part{write(t, d, u, 1, "one")}, "one")
}

// hangingBody gives its content, then nothing until it is released.
type hangingBody struct {
	content io.Reader
	started chan struct{}
	once    sync.Once
	end     chan struct{}
}

// The content is larger than any buffer, so some of it is surely written.
func newHangingBody(content string) *hangingBody {
	return &hangingBody{
		content: strings.NewReader(strings.Repeat(content, 300_000)),
		started: make(chan struct{}), end: make(chan struct{}),
	}
}

func (b *hangingBody) Read(p []byte) (int, error) {
	n, err := b.content.Read(p)
	if err == nil {
		return n, nil
	}
	b.once.Do(func() { close(b.started) })
	select {
	case <-b.end:
	case <-time.After(time.Minute):
	}
	return 0, io.EOF
}

func (b *hangingBody) release() { close(b.end) }

func truncate(t *testing.T, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, file string, at int64, content string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(content), at); err != nil {
		t.Fatal(err)
	}
}
