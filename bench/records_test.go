package bench_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

const collection = "app.bsky.feed.post"

// record is what each createRecord creates.
const record = `{"$type":"app.bsky.feed.post","text":"@captain.test pushed bench:latest · 5 layers · 1.0 GB","createdAt":"2026-01-01T00:00:00Z"}`

// batch is how many records one applyWrites makes at most.
const batch = 200

// BenchmarkCreateRecord creates records over one connection, where each waits for its commit to be durable, and over many,
// which share commits to disk; and puts the same bytes into a bbolt database, each put durable before the next.
func BenchmarkCreateRecord(b *testing.B) {
	h, bolt := newHold(b, onDisk), newBolt(b)
	h.fill(b, *records)
	bolt.fill(b, *records)
	address := strings.TrimPrefix(h.url, "http://")
	body := fmt.Appendf(nil, `{"repo":%q,"collection":%q,"record":%s}`, h.did, collection, record)
	for _, callers := range []int{1, *connections} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			measured := make(samples)
			for b.Loop() {
				puts := bolt.puts(b)
				create := post(address, "/xrpc/com.atproto.repo.createRecord", h.authorization(), body)
				creates := load(b, address, create, callers)
				measured.add("hold-records/s", creates)
				measured.add("bbolt-puts/s", puts)
				measured.add("x-bbolt", creates/puts)
			}
			measured.report(b)
		})
	}
}

// fill creates n records.
func (h *hold) fill(b *testing.B, n int) {
	b.Helper()
	type write struct {
		Type       string          `json:"$type"`
		Collection string          `json:"collection"`
		Value      json.RawMessage `json:"value"`
	}
	for n > 0 {
		writes := make([]write, min(n, batch))
		for i := range writes {
			writes[i] = write{"com.atproto.repo.applyWrites#create", collection, json.RawMessage(record)}
		}
		if err := h.call("com.atproto.repo.applyWrites", map[string]any{"repo": h.did, "writes": writes}, nil); err != nil {
			b.Fatalf("filling the repository: %v", err)
		}
		n -= len(writes)
	}
}

// bolt is a database that does nothing but put.
type bolt struct {
	db  *bbolt.DB
	seq int
}

var bucket = []byte("records")

// newBolt makes an empty database beside where holds have theirs.
func newBolt(b *testing.B) *bolt {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatalf("opening bbolt: %v", err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return &bolt{db: db}
}

// put puts n records in one transaction.
func (d *bolt) put(b *testing.B, n int) {
	b.Helper()
	err := d.db.Update(func(tx *bbolt.Tx) error {
		records, err := tx.CreateBucketIfNotExists(bucket)
		for range n {
			if err != nil {
				return err
			}
			d.seq++
			err = records.Put(fmt.Appendf(nil, "%s/%013d", collection, d.seq), []byte(record))
		}
		return err
	})
	if err != nil {
		b.Fatalf("putting into bbolt: %v", err)
	}
}

func (d *bolt) fill(b *testing.B, n int) {
	for ; n > 0; n -= batch {
		d.put(b, min(n, batch))
	}
}

// puts puts single records for -duration and returns how many it put in a second.
func (d *bolt) puts(b *testing.B) float64 {
	b.Helper()
	n, start := 0, time.Now()
	for time.Since(start) < *duration {
		d.put(b, 1)
		n++
	}
	return float64(n) / time.Since(start).Seconds()
}
