package bench_test

import (
	"testing"

	"golang.org/x/sync/errgroup"
)

// uploadsAtOnce is how many uploads the promise about memory speaks of.
const uploadsAtOnce = 8

// BenchmarkMemory sends eight blobs at once to a hold, and to a registry, that have done nothing before, and reports the
// most memory that either was ever resident with.
func BenchmarkMemory(b *testing.B) {
	blobs := make([]*content, uploadsAtOnce)
	for i := range blobs {
		blobs[i] = newContent(*size << 20)
	}
	measured := make(samples)
	for b.Loop() {
		h := newHold(b, onDisk)
		measured.memory(b, contender{h, "hold", h.process.PID()}, blobs)
		h.process.Kill()
		g := newRegistry(b)
		measured.memory(b, contender{g, "registry", g.process.PID()}, blobs)
		g.process.Kill()
	}
	measured.report(b)
}

func (s samples) memory(b *testing.B, c contender, blobs []*content) {
	b.Helper()
	idle, _ := resident(b, c.pid)
	var uploads errgroup.Group
	for _, blob := range blobs {
		uploads.Go(func() error { return c.upload(blob) })
	}
	if err := uploads.Wait(); err != nil {
		b.Fatalf("uploading to %s: %v", c.name, err)
	}
	_, most := resident(b, c.pid)
	s.add(c.name+"-idle-MB", idle)
	s.add(c.name+"-MB", most)
	for _, blob := range blobs {
		remove(b, c.path(blob))
	}
}
