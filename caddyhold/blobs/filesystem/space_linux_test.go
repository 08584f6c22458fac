package filesystem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// smallVolumeEnv is set in the process that has a small volume of its own.
const smallVolumeEnv = "FILESYSTEM_TEST_SMALL_VOLUME"

// A volume of 16 MiB can be mounted by anybody in a namespace of their own.
func TestFullVolume(t *testing.T) {
	if dir := os.Getenv(smallVolumeEnv); dir != "" {
		if err := syscall.Mount("small", dir, "tmpfs", 0, "size=16m"); err != nil {
			t.Fatal(err)
		}
		t.Run("part that does not fit", func(t *testing.T) { partThatDoesNotFit(t, filepath.Join(dir, "a")) })
		t.Run("volume fills while a part comes", func(t *testing.T) { volumeFills(t, filepath.Join(dir, "b")) })
		t.Run("no room to put parts in order", func(t *testing.T) { noRoomToAssemble(t, filepath.Join(dir, "c")) })
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, "-test.run=^TestFullVolume$", "-test.v")
	cmd.Env = append(os.Environ(), smallVolumeEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	output, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(output), "operation not permitted") {
		t.Skipf("this system gives no namespaces to users: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func partThatDoesNotFit(t *testing.T, dir string) {
	d := open(t, dir)
	u := blobs.Upload{ID: uploadID}
	if _, err := d.Begin(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WritePart(t.Context(), u, 1, unread{t}, 17<<20); !errors.Is(err, blobs.ErrInsufficientStorage) {
		t.Errorf("a part larger than the volume: %v", err)
	}
	expectContent(t, d, u, []blobs.Part{write(t, d, u, 1, "one")}, "one")
}

func volumeFills(t *testing.T, dir string) {
	d := open(t, dir)
	u := blobs.Upload{ID: uploadID}
	if _, err := d.Begin(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	one := write(t, d, u, 1, "one ")
	for _, part := range []int{2, 4} { // into data, and beside it
		if _, err := d.WritePart(t.Context(), u, part, bytes.NewReader(make([]byte, 20<<20)), -1); !errors.Is(err, blobs.ErrInsufficientStorage) {
			t.Errorf("part %d of unknown size: %v", part, err)
		}
		if err := d.Healthy(t.Context()); err != nil {
			t.Errorf("the broken part %d still takes room: %v", part, err)
		}
	}
	expectContent(t, d, u, []blobs.Part{one, write(t, d, u, 2, "two")}, "one two")
}

func noRoomToAssemble(t *testing.T, dir string) {
	d := open(t, dir)
	u := blobs.Upload{ID: uploadID}
	if _, err := d.Begin(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	two := write(t, d, u, 2, strings.Repeat("2", 6<<20))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	one := write(t, d, u, 1, "1")
	parts := []blobs.Part{one, two}
	if _, err := d.Assemble(t.Context(), u, parts); !errors.Is(err, blobs.ErrInsufficientStorage) {
		t.Fatalf("assembling without room: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	expectContent(t, d, u, parts, "1"+strings.Repeat("2", 6<<20))
}

// unread fails the test when it is read.
type unread struct{ t *testing.T }

func (r unread) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, fmt.Errorf("the body was read")
}
