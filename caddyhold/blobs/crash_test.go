package blobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

// crashEnv makes the test binary a process that uploads and dies on the way.
const crashEnv = "BLOBS_TEST_CRASH"

func TestMain(m *testing.M) {
	if plan := os.Getenv(crashEnv); plan != "" {
		if err := crashAsPlanned(plan); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type crashPlan struct {
	Dir, Blobs string
	Bucket     *peer.S3 // nil: in Blobs
	Step       string
	Size       int
	Abort      bool
}

const crashStatus = 137

func crashAsPlanned(plan string) error {
	var p crashPlan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		return err
	}
	db, err := bbolt.Open(filepath.Join(p.Dir, "hold.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	store, err := blobs.Open(blobs.Options{DB: db, Crash: func(step string) {
		if step == p.Step {
			os.Exit(crashStatus)
		}
	}})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var driver blobs.Driver
	if p.Bucket != nil {
		driver, err = s3.New(ctx, bucketConfig(p.Bucket))
	} else {
		driver, err = filesystem.Open(p.Blobs)
	}
	if err != nil {
		return err
	}
	s := blobs.New(blobs.Config{Store: store, Driver: driver})
	id, err := s.Initiate(ctx, alice, "uploads/temp-1")
	if err != nil {
		return err
	}
	content := bytesOf(p.Size, 30)
	etag, err := s.WritePart(ctx, alice, id, 1, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return err
	}
	parts := []blobs.Part{{Number: 1, ETag: etag}}
	noted, err := json.Marshal(noted{id, parts})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.Dir, "noted"), noted, 0o600); err != nil {
		return err
	}
	if p.Abort {
		return s.Abort(ctx, alice, id)
	}
	_, err = s.Complete(ctx, alice, id, digestOf(content), parts, false)
	return err
}

// noted is what the client knows when the hold dies.
type noted struct {
	ID    string
	Parts []blobs.Part
}

func TestKilledBetweenAnyTwoStepsNothingIsLostOrWrong(t *testing.T) {
	for _, c := range []struct {
		step     string
		abort    bool
		resumes  bool // without the client
		finished bool // the client may get success by completing again
	}{
		{step: "initiate: written"},
		{step: "initiate: begun"},
		{step: "complete: assembled", finished: true},
		{step: "complete: recorded", resumes: true, finished: true},
		{step: "complete: placed", resumes: true, finished: true},
		{step: "complete: verified", resumes: true, finished: true},
		{step: "abort: marked", abort: true},
		{step: "abort: discarded", abort: true},
	} {
		t.Run(c.step, func(t *testing.T) {
			eachKindUnlessShort(t, func(t *testing.T, h *hold) {
				content := bytesOf(6<<20, 30)
				client := h.crash(c.step, len(content), c.abort)
				if usage, _ := h.Usage(); !c.resumes && usage.Blobs != 0 {
					t.Errorf("usage %+v before the blob was verified", usage)
				}
				h.background()
				if c.resumes {
					h.expectBlob(content)
				}
				_, err := h.Complete(t.Context(), alice, client.ID, digestOf(content), client.Parts, false)
				switch {
				case c.finished && err != nil:
					t.Errorf("completing again: %v", err)
				case !c.finished && !errors.Is(err, blobs.ErrInvalidUploadID) && !errors.Is(err, blobs.ErrMissingParts):
					t.Errorf("completing: %v", err)
				}
				h.push(bob, content)
				h.expectBlob(content)
				h.clock.pass(25 * time.Hour)
				h.background()
				h.expectBlob(content)
				h.expectNoLeftovers()
				if usage, _ := h.Usage(); usage != (blobs.Usage{Blobs: 1, Bytes: 6 << 20}) {
					t.Errorf("usage %+v", usage)
				}
			})
		})
	}
}

func TestClientThatComesBeforeTheBackgroundWorkCompletes(t *testing.T) {
	for _, step := range []string{"complete: assembled", "complete: recorded", "complete: placed", "complete: verified"} {
		t.Run(step, func(t *testing.T) {
			eachKindUnlessShort(t, func(t *testing.T, h *hold) {
				content := bytesOf(6<<20, 30)
				client := h.crash(step, len(content), false)
				if _, err := h.Complete(t.Context(), alice, client.ID, digestOf(content), client.Parts, false); err != nil {
					t.Fatal(err)
				}
				h.expectBlob(content)
				h.clock.pass(2 * time.Minute)
				h.background()
				h.expectNoLeftovers()
			})
		})
	}
}

// crash has another process upload and die at a step, and opens the hold again.
func (h *hold) crash(step string, size int, abort bool) noted {
	h.t.Helper()
	h.close()
	plan := crashPlan{Dir: h.dir, Blobs: h.blobs, Bucket: h.bucket, Step: step, Size: size, Abort: abort}
	encoded, err := json.Marshal(plan)
	if err != nil {
		h.t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = append(os.Environ(), crashEnv+"="+string(encoded))
	output, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != crashStatus {
		h.t.Fatalf("the process did not die at %q: %v\n%s", step, err, output)
	}
	// The process lived by the real clock.
	h.clock = &clock{now: time.Now()}
	h.open()
	var n noted
	content, err := os.ReadFile(filepath.Join(h.dir, "noted"))
	if err == nil {
		err = json.Unmarshal(content, &n)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	return n
}
