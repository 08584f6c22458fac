package pds

import (
	"bytes"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"
	"go.etcd.io/bbolt"
)

const (
	testDID    = "did:web:hold.test"
	collection = "com.example.thing"
)

var testKey = func() *atcrypto.PrivateKeyK256 {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		panic(err)
	}
	return key
}()

// openDB opens a database that is closed with the test.
func openDB(tb testing.TB, path string) *bbolt.DB {
	tb.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// newDB is a new database; not synced, as no test here pulls the plug.
func newDB(tb testing.TB) *bbolt.DB {
	db := openDB(tb, filepath.Join(tb.TempDir(), "hold.db"))
	db.NoSync = true
	return db
}

// open opens a repository that is closed with the test.
func open(tb testing.TB, db *bbolt.DB, change ...func(*Config)) *Repo {
	tb.Helper()
	cfg := Config{DB: db, DID: testDID, Handle: "hold.test", Key: testKey}
	for _, f := range change {
		f(&cfg)
	}
	r, err := Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// value is a record of a collection, in DAG-CBOR.
func value(tb testing.TB, of string, fields map[string]any) []byte {
	tb.Helper()
	m := map[string]any{"$type": of}
	maps.Copy(m, fields)
	b, err := atdata.MarshalCBOR(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func thing(tb testing.TB, n int) []byte {
	return value(tb, collection, map[string]any{"n": int64(n)})
}

func path(rkey string) string { return collection + "/" + rkey }

// key is a record key, in no order.
func key(n int) string {
	h := sum(cid.Raw, fmt.Append(nil, n)).Hash()
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(h[2:12])
}

func update(tb testing.TB, r *Repo, fn func(tx *Tx) error) Head {
	tb.Helper()
	head, err := r.Update(tb.Context(), fn)
	if err != nil {
		tb.Fatal(err)
	}
	return head
}

func put(tb testing.TB, r *Repo, path string, value []byte) Head {
	tb.Helper()
	return update(tb, r, func(tx *Tx) error {
		_, err := tx.Put(path, value)
		return err
	})
}

// message is a decoded frame.
type message struct {
	op      int64
	kind    string // "#commit"; of an error its name
	commit  *comatproto.SyncSubscribeRepos_Commit
	sync    *comatproto.SyncSubscribeRepos_Sync
	ident   *comatproto.SyncSubscribeRepos_Identity
	account *comatproto.SyncSubscribeRepos_Account
	info    *comatproto.SyncSubscribeRepos_Info
}

func (m message) seq() int64 {
	switch {
	case m.commit != nil:
		return m.commit.Seq
	case m.sync != nil:
		return m.sync.Seq
	case m.ident != nil:
		return m.ident.Seq
	case m.account != nil:
		return m.account.Seq
	}
	return -1
}

// decode reads a frame with the decoders of another implementation.
func decode(tb testing.TB, frame []byte) (m message) {
	tb.Helper()
	r := bytes.NewReader(frame)
	header, err := decodeMap(r)
	if err != nil {
		tb.Fatalf("header: %v", err)
	}
	m.op, _ = header["op"].(int64)
	m.kind, _ = header["t"].(string)
	switch m.kind {
	case "#commit":
		m.commit = new(comatproto.SyncSubscribeRepos_Commit)
		err = m.commit.UnmarshalCBOR(r)
	case "#sync":
		m.sync = new(comatproto.SyncSubscribeRepos_Sync)
		err = m.sync.UnmarshalCBOR(r)
	case "#identity":
		m.ident = new(comatproto.SyncSubscribeRepos_Identity)
		err = m.ident.UnmarshalCBOR(r)
	case "#account":
		m.account = new(comatproto.SyncSubscribeRepos_Account)
		err = m.account.UnmarshalCBOR(r)
	case "#info":
		m.info = new(comatproto.SyncSubscribeRepos_Info)
		err = m.info.UnmarshalCBOR(r)
	default:
		var fields map[string]any
		fields, err = decodeMap(r)
		m.kind, _ = fields["error"].(string)
	}
	if err != nil {
		tb.Fatalf("%s: %v", m.kind, err)
	}
	if r.Len() > 0 {
		tb.Fatalf("%d bytes after the body", r.Len())
	}
	return m
}

// decodeMap reads a map of text strings and integers.
func decodeMap(r *bytes.Reader) (map[string]any, error) {
	cr := cbg.NewCborReader(r)
	major, n, err := cr.ReadHeader()
	if err != nil || major != cbg.MajMap {
		return nil, fmt.Errorf("no map: %w", err)
	}
	m := map[string]any{}
	for range n {
		k, err := cbg.ReadString(cr)
		if err != nil {
			return nil, err
		}
		major, v, err := cr.ReadHeader()
		if err != nil {
			return nil, err
		}
		switch major {
		case cbg.MajUnsignedInt:
			m[k] = int64(v)
		case cbg.MajNegativeInt:
			m[k] = -1 - int64(v)
		case cbg.MajTextString:
			b := make([]byte, v)
			if _, err := cr.Read(b); err != nil {
				return nil, err
			}
			m[k] = string(b)
		default:
			return nil, fmt.Errorf("field %s of major type %d", k, major)
		}
	}
	return m, nil
}

// replay collects what is in the log after a cursor.
func replay(tb testing.TB, r *Repo, cursor int64) (messages []message) {
	tb.Helper()
	last := r.Head().Seq
	if cursor >= last {
		return nil
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	err := r.Follow(ctx, &cursor, func(frame []byte) error {
		m := decode(tb, frame)
		messages = append(messages, m)
		if m.seq() == last {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		tb.Fatal(err)
	}
	return messages
}

// fakeClock shows the time that a test wants.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
