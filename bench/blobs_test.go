package bench_test

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// store is anything that blobs go to and come from.
type store interface {
	upload(*content) error
	download(*content) (size int64, err error)
	path(*content) string // of the file that is left
}

// contender is a store and the process whose work it is.
type contender struct {
	store
	name string
	pid  int
}

// newContenders starts the hold and its controls.
func newContenders(b *testing.B) []contender {
	b.Helper()
	h, g, f := newHold(b, onDisk), newRegistry(b), newFloor(b)
	return []contender{
		{h, "hold", h.process.PID()},
		{g, "registry", g.process.PID()},
		{f, "bare", f.process.PID()},
	}
}

// BenchmarkUpload sends one blob after the other to hold, registry and bare loop in turn.
func BenchmarkUpload(b *testing.B) {
	contenders := newContenders(b)
	measured := make(samples)
	for b.Loop() {
		blob := newContent(*size << 20)
		measured.transfers(b, contenders, blob, func(c contender) error {
			return c.upload(blob)
		})
		for _, c := range contenders {
			remove(b, c.path(blob))
		}
		rotate(contenders)
	}
	measured.report(b)
}

// BenchmarkDownload gets one blob from hold, registry and bare loop in turn. It comes from the page cache.
func BenchmarkDownload(b *testing.B) {
	contenders := newContenders(b)
	blob := newContent(*size << 20)
	for _, c := range contenders {
		if err := c.upload(blob); err != nil {
			b.Fatalf("uploading to %s: %v", c.name, err)
		}
	}
	measured := make(samples)
	for b.Loop() {
		measured.transfers(b, contenders, blob, func(c contender) error {
			n, err := c.download(blob)
			if err == nil && n != blob.size {
				err = fmt.Errorf("%d bytes of %d came", n, blob.size)
			}
			return err
		})
		rotate(contenders)
	}
	measured.report(b)
}

// transfers has every contender transfer the blob once.
func (s samples) transfers(b *testing.B, contenders []contender, blob *content, transfer func(contender) error) {
	b.Helper()
	rates := make(map[string]float64)
	for _, c := range contenders {
		worked, start := processorTime(b, c.pid), time.Now()
		if err := transfer(c); err != nil {
			b.Fatalf("transferring to or from %s: %v", c.name, err)
		}
		took := time.Since(start)
		rates[c.name] = float64(blob.size) / 1e6 / took.Seconds()
		s.add(c.name+"-MB/s", rates[c.name])
		s.add(c.name+"-cpu-s/GB", (processorTime(b, c.pid)-worked).Seconds()/float64(blob.size)*1e9)
	}
	s.add("x-registry", rates["hold"]/rates["registry"])
	s.add("x-bare", rates["hold"]/rates["bare"])
}

// rotate has another contender begin the next round.
func rotate(contenders []contender) {
	first := contenders[0]
	copy(contenders, contenders[1:])
	contenders[len(contenders)-1] = first
}

func remove(b *testing.B, file string) {
	b.Helper()
	if err := os.Remove(file); err != nil {
		b.Fatalf("removing a blob: %v", err)
	}
}
