package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

func TestPushedBlobIsPulledUnchanged(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		for _, size := range []int{0, 1, 5 << 20, 6<<20 + 1, 13 << 20} {
			content := bytesOf(size, uint64(size))
			h.expectNone(digestOf(content))
			h.push(alice, content)
			h.expectBlob(content)
		}
		h.expectNoLeftovers()
		usage, err := h.Usage()
		if want := (blobs.Usage{Blobs: 5, Bytes: 1 + 5<<20 + 6<<20 + 1 + 13<<20}); err != nil || usage != want {
			t.Errorf("usage %+v, %v, want %+v", usage, err, want)
		}
		h.restart()
		h.expectBlob(bytesOf(13<<20, 13<<20))
	})
}

func TestEmptyBlobMayBeSentAsOneEmptyPart(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		id := h.initiate(alice)
		part := h.send(alice, id, 1, nil)
		if _, err := h.Complete(t.Context(), alice, id, digestOf(nil), []blobs.Part{part}, false); err != nil {
			t.Fatal(err)
		}
		h.expectBlob(nil)
		h.expectNoLeftovers()
	})
}

func TestPartsMayComeInAnyOrderAndTwice(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(16<<20, 3)
		id := h.initiate(alice)
		three := h.send(alice, id, 3, content[12<<20:])
		h.send(alice, id, 1, bytesOf(5<<20, 9))
		two := h.send(alice, id, 2, content[6<<20:12<<20])
		one := h.send(alice, id, 1, content[:6<<20])
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), []blobs.Part{two, three, one, two}, false); err != nil {
			t.Fatal(err)
		}
		h.expectBlob(content)
	})
}

func TestWrongDigestEndsTheUploadAndLeavesNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 4)
		for name, d := range map[string]blobs.Digest{"another": digestOf([]byte("other")), "malformed": "sha256:12"} {
			id, parts := h.upload(alice, content, 5<<20)
			_, err := h.Complete(t.Context(), alice, id, d, parts, false)
			if !errors.Is(err, blobs.ErrInvalidDigest) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); !errors.Is(err, blobs.ErrInvalidUploadID) {
				t.Errorf("%s: completing again: %v", name, err)
			}
		}
		h.expectNone(digestOf([]byte("other")))
		h.expectNone(digestOf(content))
		h.expectNoLeftovers()
		if _, err := os.Stat(h.path(digestOf([]byte("other")))); !os.IsNotExist(err) {
			t.Errorf("the wrong content is at the final key: %v", err)
		}
	})
}

func TestMissingPartsAreNamedAndTheUploadGoesOn(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(11<<20, 5)
		id, parts := h.upload(alice, content, 5<<20)
		for name, named := range map[string][]blobs.Part{
			"none":           nil,
			"one left out":   parts[1:],
			"last left out":  parts[:2],
			"one too many":   append([]blobs.Part{{Number: 4, ETag: parts[0].ETag}}, parts...),
			"wrong etag":     {parts[0], parts[1], {Number: 3, ETag: parts[0].ETag}},
			"no etag":        {parts[0], parts[1], {Number: 3}},
			"two etags":      {parts[0], parts[1], parts[2], {Number: 3, ETag: parts[0].ETag}},
			"number 0":       {parts[0], parts[1], parts[2], {Number: 0, ETag: parts[0].ETag}},
			"number too big": {parts[0], parts[1], parts[2], {Number: blobs.MaxParts + 1, ETag: parts[0].ETag}},
		} {
			if _, err := h.Complete(t.Context(), alice, id, digestOf(content), named, false); !errors.Is(err, blobs.ErrMissingParts) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); err != nil {
			t.Fatal(err)
		}
		h.expectBlob(content)
	})
}

func TestUploadBelongsToWhoOpenedIt(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := []byte("alice's")
		id, parts := h.upload(alice, content, 100)
		ctx := t.Context()
		errs := map[string]error{}
		_, errs["part url"] = h.PartURL(ctx, bob, id, 1)
		_, errs["write part"] = h.WritePart(ctx, bob, id, 1, bytes.NewReader(content), -1)
		_, errs["complete"] = h.Complete(ctx, bob, id, digestOf(content), parts, true)
		errs["abort"] = h.Abort(ctx, bob, id)
		_, errs["unknown"] = h.PartURL(ctx, alice, "00112233445566778899aabbccddeeff", 1)
		_, errs["a path"] = h.PartURL(ctx, alice, "../"+id, 1)
		errs["empty"] = h.Abort(ctx, alice, "")
		for name, err := range errs {
			if !errors.Is(err, blobs.ErrInvalidUploadID) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := h.Complete(ctx, alice, id, digestOf(content), parts, false); err != nil {
			t.Error(err)
		}
	})
}

func TestPartNumbersHaveBounds(t *testing.T) {
	h := onDisk(t)
	id := h.initiate(alice)
	for part, want := range map[int]error{-1: blobs.ErrInvalidPartNumber, 0: blobs.ErrInvalidPartNumber, 1: nil, blobs.MaxParts: nil, blobs.MaxParts + 1: blobs.ErrInvalidPartNumber} {
		if _, err := h.PartURL(t.Context(), alice, id, part); !errors.Is(err, want) {
			t.Errorf("url of part %d: %v", part, err)
		}
		if _, err := h.WritePart(t.Context(), alice, id, part, bytes.NewReader(nil), 0); !errors.Is(err, want) {
			t.Errorf("part %d: %v", part, err)
		}
	}
}

func TestHintMayBeAnythingButEmptyOrLong(t *testing.T) {
	h := onDisk(t)
	for hint, want := range map[string]error{
		"": blobs.ErrInvalidDigest, string(bytes.Repeat([]byte("x"), 129)): blobs.ErrInvalidDigest,
		"uploads/temp-17": nil, "../../etc": nil, string(digestOf(nil)): nil,
	} {
		if _, err := h.Initiate(t.Context(), alice, hint); !errors.Is(err, want) {
			t.Errorf("%q: %v", hint, err)
		}
	}
}

func TestBrokenBodyIsNoPart(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 6)
		id := h.initiate(alice)
		for name, send := range map[string]func() (io.Reader, int64){
			"short":           func() (io.Reader, int64) { return bytes.NewReader(content[:5<<20]), 6 << 20 },
			"long":            func() (io.Reader, int64) { return bytes.NewReader(content), 5 << 20 },
			"long empty":      func() (io.Reader, int64) { return bytes.NewReader(content), 0 },
			"broken":          func() (io.Reader, int64) { return io.MultiReader(bytes.NewReader(content[:1<<20]), broken{}), 6 << 20 },
			"broken, no size": func() (io.Reader, int64) { return io.MultiReader(bytes.NewReader(content[:1<<20]), broken{}), -1 },
		} {
			body, size := send()
			_, err := h.WritePart(t.Context(), alice, id, 1, body, size)
			if !errors.Is(err, blobs.ErrUploadFailed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// A server may store what it got of a broken part, even later than a retry:
		// then that is missing and the client sends it once more.
		for attempt := 0; ; attempt++ {
			part := h.send(alice, id, 1, content)
			_, err := h.Complete(t.Context(), alice, id, digestOf(content), []blobs.Part{part}, false)
			if err == nil {
				break
			}
			if !errors.Is(err, blobs.ErrMissingParts) || h.bucket == nil || attempt == 10 {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		h.expectBlob(content)
	})
}

func TestSizeOfPartNeedNotBeKnown(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 7)
		id := h.initiate(alice)
		etag, err := h.WritePart(t.Context(), alice, id, 1, io.MultiReader(bytes.NewReader(content)), -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), []blobs.Part{{Number: 1, ETag: etag}}, false); err != nil {
			t.Fatal(err)
		}
		h.expectBlob(content)
	})
}

func TestCompletingAgainSucceeds(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 8)
		id, parts := h.upload(alice, content, 5<<20)
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		h.restart()
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), nil, false); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		if _, err := h.Complete(t.Context(), alice, id, digestOf(nil), parts, false); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("with another digest: %v", err)
		}
		if err := h.Abort(t.Context(), alice, id); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("aborting what is completed: %v", err)
		}
		if _, err := h.PartURL(t.Context(), alice, id, 3); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("a part of what is completed: %v", err)
		}
		h.expectBlob(content)
		if usage, _ := h.Usage(); usage != (blobs.Usage{Blobs: 1, Bytes: 6 << 20}) {
			t.Errorf("usage %+v", usage)
		}
	})
}

func TestOneDigestFromManyUploadsIsOneBlob(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 9)
		var calls sync.WaitGroup
		for i := range 6 {
			owner := fmt.Sprint("did:plc:user", i)
			id, parts := h.upload(owner, content, 5<<20)
			calls.Go(func() {
				if _, err := h.Complete(t.Context(), owner, id, digestOf(content), parts, i%2 == 0); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		h.expectBlob(content)
		h.expectNoLeftovers()
		if usage, _ := h.Usage(); usage != (blobs.Usage{Blobs: 1, Bytes: 6 << 20}) {
			t.Errorf("usage %+v", usage)
		}
		for owner, want := range map[string]bool{"did:plc:user0": true, "did:plc:user5": true, "did:plc:user": false, bob: false} {
			if has, err := h.UploadedBy(digestOf(content), owner); has != want || err != nil {
				t.Errorf("uploaded by %s: %t, %v", owner, has, err)
			}
		}
	})
}

func TestExistingBlobIsOnlyTakenOnTrustFromWhoMayReadIt(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 10)
		d := h.push(alice, content)
		junk := []byte("junk")

		id, parts := h.upload(bob, junk, 100)
		if _, err := h.Complete(t.Context(), bob, id, d, parts, false); !errors.Is(err, blobs.ErrDigestMismatch) {
			t.Errorf("junk by who may not read: %v", err)
		}
		if has, _ := h.UploadedBy(d, bob); has {
			t.Error("who uploaded junk counts as uploader")
		}
		h.expectBlob(content)

		id = h.initiate(bob)
		if _, err := h.Complete(t.Context(), bob, id, d, nil, true); err != nil {
			t.Errorf("nothing by who may read: %v", err)
		}
		if has, _ := h.UploadedBy(d, bob); has {
			t.Error("who uploaded nothing counts as uploader")
		}
		h.expectBlob(content)
		h.expectNoLeftovers()
	})
}

func TestAbortedUploadIsGone(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 11)
		id, parts := h.upload(alice, content, 5<<20)
		if err := h.Abort(t.Context(), alice, id); err != nil {
			t.Fatal(err)
		}
		h.expectNoLeftovers()
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("completing: %v", err)
		}
		if err := h.Abort(t.Context(), alice, id); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("aborting again: %v", err)
		}
		if usage, _ := h.Usage(); usage != (blobs.Usage{}) {
			t.Errorf("usage %+v", usage)
		}
	})
}

func TestUploadSurvivesARestart(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(16<<20, 12)
		id := h.initiate(alice)
		parts := []blobs.Part{h.send(alice, id, 1, content[:5<<20]), h.send(alice, id, 3, content[10<<20:])}
		h.restart()
		parts = append(parts, h.send(alice, id, 2, content[5<<20:10<<20]))
		h.restart()
		if usage, _ := h.Usage(); usage != (blobs.Usage{Uploads: 1}) {
			t.Errorf("usage %+v", usage)
		}
		if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); err != nil {
			t.Fatal(err)
		}
		h.expectBlob(content)
	})
}

func TestIdleUploadsEndAfterADayAndUsedOnesDoNot(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(6<<20, 13)
		idle, _ := h.upload(alice, content, 5<<20)
		used, parts := h.upload(alice, content[:5<<20], 5<<20)
		done, doneParts := h.upload(alice, []byte("done"), 100)
		if _, err := h.Complete(t.Context(), alice, done, digestOf([]byte("done")), doneParts, false); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			h.clock.pass(6 * time.Hour)
			parts = append(parts[:1:1], h.send(alice, used, 2, content[5<<20:]))
			h.background()
		}
		if _, err := h.PartURL(t.Context(), alice, idle, 1); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("the idle upload: %v", err)
		}
		if _, err := h.Complete(t.Context(), alice, done, digestOf([]byte("done")), doneParts, false); !errors.Is(err, blobs.ErrInvalidUploadID) {
			t.Errorf("the upload that was done long ago: %v", err)
		}
		if usage, _ := h.Usage(); usage != (blobs.Usage{Blobs: 1, Bytes: 4, Uploads: 1}) {
			t.Errorf("usage %+v", usage)
		}
		h.expectBlob([]byte("done"))
		if _, err := h.Complete(t.Context(), alice, used, digestOf(content), parts, false); err != nil {
			t.Errorf("the used upload: %v", err)
		}
		h.expectBlob(content)
		h.expectNoLeftovers()
	})
}

func TestRunWorksAtOnceAndEndsWithItsContext(t *testing.T) {
	h := onDisk(t)
	h.upload(alice, []byte("idle"), 100)
	h.clock.pass(25 * time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Run(ctx)
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		usage, err := h.Usage()
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("usage %+v, %v", usage, err)
		}
		if usage.Uploads == 0 {
			break
		}
	}
	cancel()
	<-ended
}

func TestUploadIsNotContinuedOnAnotherStorage(t *testing.T) {
	h := onDisk(t)
	content := []byte("here")
	id, parts := h.upload(alice, content, 100)
	d := h.push(alice, []byte("blob"))
	first := h.blobs
	h.blobs = filepath.Join(h.dir, "elsewhere")
	h.restart()
	if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); !errors.Is(err, blobs.ErrInvalidUploadID) {
		t.Errorf("completing: %v", err)
	}
	if _, err := h.WritePart(t.Context(), alice, id, 2, bytes.NewReader(nil), 0); !errors.Is(err, blobs.ErrInvalidUploadID) {
		t.Errorf("writing: %v", err)
	}
	h.expectNone(d)
	h.blobs = first
	h.restart()
	h.expectBlob([]byte("blob"))
	if _, err := h.Complete(t.Context(), alice, id, digestOf(content), parts, false); err != nil {
		t.Errorf("back on the first storage: %v", err)
	}
}

func TestCompletionGoesOnWhenItsCallerGoesAway(t *testing.T) {
	eachKind(t, func(t *testing.T, h *hold) {
		content := bytesOf(11<<20, 14)
		id, parts := h.upload(alice, content, 5<<20)
		for wait := time.Microsecond; ; wait *= 4 {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			_, err := h.Complete(ctx, alice, id, digestOf(content), parts, false)
			cancel()
			if err == nil {
				break
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		h.expectBlob(content)
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection lost") }

func TestPartsHaveALargestSize(t *testing.T) {
	h := onDisk(t)
	id := h.initiate(alice)
	_, err := h.WritePart(t.Context(), alice, id, 1, broken{}, blobs.MaxPartSize+1)
	if !errors.Is(err, blobs.ErrPartTooLarge) {
		t.Errorf("%v, want ErrPartTooLarge before the body is read", err)
	}
}

// sink is a driver that takes parts and keeps nothing.
type sink struct{ blobs.Driver }

func (sink) WritePart(ctx context.Context, _ blobs.Upload, _ int, body io.Reader, _ int64) (string, error) {
	_, err := blobs.CopyContext(ctx, io.Discard, body)
	return "etag", err
}

// endless is a body of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestPartsOfUnknownSizeHaveALargestSizeToo(t *testing.T) {
	h := onDisk(t)
	service := blobs.New(blobs.Config{Store: h.store, Driver: sink{h.driver()}})
	id := h.initiate(alice)
	largest := io.LimitReader(endless{}, blobs.MaxPartSize)
	if _, err := service.WritePart(t.Context(), alice, id, 1, largest, -1); err != nil {
		t.Errorf("the largest part: %v", err)
	}
	if _, err := service.WritePart(t.Context(), alice, id, 1, endless{}, -1); !errors.Is(err, blobs.ErrPartTooLarge) {
		t.Errorf("a part without end: %v", err)
	}
}

func TestOpenUploadsOfOneOwnerAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("opens a thousand uploads")
	}
	h := onDisk(t)
	var last string
	for range blobs.MaxOpenUploads {
		last = h.initiate(alice)
	}
	if _, err := h.Initiate(t.Context(), alice, "x"); !errors.Is(err, blobs.ErrTooManyUploads) {
		t.Errorf("%v, want ErrTooManyUploads", err)
	}
	h.initiate(bob)
	if err := h.Abort(t.Context(), alice, last); err != nil {
		t.Fatal(err)
	}
	h.initiate(alice)
}
