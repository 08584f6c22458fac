package pds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// Benchmarks of what the repository promises. The commits sync as they do in
// production; beside them stands what the database alone needs for a write.

const benchRecords = 10_000

// padded is a record of about 400 bytes, as those of holds are.
func padded(n int) []byte {
	b := []byte("\xa2" + text("$type") + text(collection) + text("value_") + "\x59\x01\x70")
	return append(b, bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 0x170/2)...)
}

// filled is a repository with n records, syncing from then on.
func filled(b *testing.B, n int) *Repo {
	b.Helper()
	db := newDB(b)
	r := open(b, db)
	for i := 0; i < n; {
		update(b, r, func(tx *Tx) error {
			for range min(200, n-i) {
				if _, err := tx.Create(path(tx.NextTID()), padded(i)); err != nil {
					return err
				}
				i++
			}
			return nil
		})
	}
	db.NoSync = false
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkBoltCommit is the control: one small write, durable.
func BenchmarkBoltCommit(b *testing.B) {
	db := openDB(b, filepath.Join(b.TempDir(), "control.db"))
	for i := 0; b.Loop(); i++ {
		err := db.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return bucket.Put(encodeSeq(int64(i)), padded(i))
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{0, benchRecords, 10 * benchRecords} {
		b.Run(fmt.Sprintf("of 1 record, %d there", n), func(b *testing.B) {
			r := filled(b, n)
			for i := 0; b.Loop(); i++ {
				create(b, r, i)
			}
		})
	}
	b.Run("of 1 record, without sync", func(b *testing.B) {
		r := filled(b, benchRecords)
		r.cfg.DB.NoSync = true
		for i := 0; b.Loop(); i++ {
			create(b, r, i)
		}
	})
	b.Run("of 200 records", func(b *testing.B) {
		r := filled(b, benchRecords)
		for i := 0; b.Loop(); i++ {
			if _, err := r.Update(context.Background(), func(tx *Tx) error {
				for range 200 {
					if _, err := tx.Create(path(tx.NextTID()), padded(i)); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(200*float64(b.N)/b.Elapsed().Seconds(), "records/s")
	})
	b.Run("of 1 record, 16 clients", func(b *testing.B) {
		r := filled(b, benchRecords)
		b.SetParallelism(8)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				create(b, r, 1)
			}
		})
	})
}

func create(b *testing.B, r *Repo, i int) {
	_, err := r.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.Create(path(tx.NextTID()), padded(i))
		return err
	})
	if err != nil {
		b.Error(err)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := filled(b, benchRecords)
	recs, _, err := r.Records(collection, ListOptions{Limit: benchRecords})
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i += 7 {
			if _, err := r.Record(recs[i%len(recs)].Path); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkRecords100(b *testing.B) {
	r := filled(b, benchRecords)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		cursor := ""
		for pb.Next() {
			var err error
			if _, cursor, err = r.Records(collection, ListOptions{Limit: 100, Cursor: cursor}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkExport(b *testing.B) {
	r := filled(b, 10*benchRecords)
	var size counter
	for b.Loop() {
		size = 0
		if err := r.Export(context.Background(), &size, ""); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(size))
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func BenchmarkProof(b *testing.B) {
	r := filled(b, benchRecords)
	for b.Loop() {
		if err := r.Proof(context.Background(), io.Discard, path("3jzfcijpj2z2a")); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFollowReplay is the time of a frame.
func BenchmarkFollowReplay(b *testing.B) {
	const frames = 5000
	r := filled(b, benchRecords)
	r.cfg.DB.NoSync = true
	start := r.Head().Seq
	for i := range frames {
		create(b, r, i)
	}
	b.ResetTimer()
	for n := 0; n < b.N; {
		cursor := start
		i := 0
		err := r.Follow(context.Background(), &cursor, func([]byte) error {
			n++
			if i++; i == frames || n == b.N {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
