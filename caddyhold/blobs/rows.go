package blobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// The buckets. Rows are JSON, so that a later version can add to them.
var (
	metaBucket     = []byte("blobs.meta")      // urlKeyName → the key of signed URLs
	sessionBucket  = []byte("blobs.sessions")  // upload ID → session
	rowBucket      = []byte("blobs.rows")      // storage → digest → row
	uploaderBucket = []byte("blobs.uploaders") // digest, 0, owner → RFC 3339 time
	usageBucket    = []byte("blobs.usage")     // storage → Usage
	openBucket     = []byte("blobs.open")      // owner, 0, upload ID → nothing, of live sessions

	urlKeyName = []byte("url-key")
)

// state of a session.
type state string

const (
	stateOpen      state = "open"      // takes parts
	stateAssembled state = "assembled" // one object, to be verified and placed
	stateDone      state = "done"      // the blob exists; kept for who completes twice
	stateAborted   state = "aborted"   // what it left is to be removed
)

// session is an upload's row.
type session struct {
	Owner    string    `json:"owner"`
	Storage  string    `json:"storage"` // Driver.Identity
	Handle   string    `json:"handle,omitempty"`
	State    state     `json:"state"`
	Created  time.Time `json:"created"`
	LastUsed time.Time `json:"lastUsed"`

	// Since it was assembled:
	Digest  Digest `json:"digest,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Version string `json:"version,omitempty"`
	// Leftover says that the storage may still hold something of a done upload.
	Leftover bool `json:"leftover,omitempty"`
}

func (s session) live() bool { return s.State == stateOpen || s.State == stateAssembled }

// rowVerified is the state of a row whose blob may be served. Garbage
// collection will know another.
const rowVerified = "verified"

// row is what is known of a blob in one storage.
type row struct {
	State      string    `json:"state"`
	Size       int64     `json:"size"`
	VerifiedAt time.Time `json:"verifiedAt"`
	LastUsed   time.Time `json:"lastUsed"`      // within an hour
	Object     string    `json:"key,omitempty"` // where it is not at Key(digest)
}

func (r row) key(d Digest) string {
	if r.Object != "" {
		return r.Object
	}
	return Key(d)
}

func (r row) blob(d Digest) Blob { return Blob{Digest: d, Size: r.Size, VerifiedAt: r.VerifiedAt} }

// Usage counts what one storage holds.
type Usage struct {
	Blobs   int64 `json:"blobs"`   // verified blobs
	Bytes   int64 `json:"bytes"`   // their sizes together
	Uploads int64 `json:"uploads"` // uploads that are neither done nor aborted
}

var errNoRow = errors.New("no such row")

func createBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{metaBucket, sessionBucket, rowBucket, uploaderBucket, usageBucket, openBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("creating bucket %s: %w", name, err)
		}
	}
	return nil
}

func getSession(tx *bbolt.Tx, id string) (session, error) {
	var s session
	return s, getJSON(tx.Bucket(sessionBucket), []byte(id), &s)
}

func putSession(tx *bbolt.Tx, id string, s session) error {
	old, err := getSession(tx, id)
	if err != nil && !errors.Is(err, errNoRow) {
		return err
	}
	if old.live() != s.live() {
		if err := countUpload(tx, id, s, s.live()); err != nil {
			return err
		}
	}
	return putJSON(tx.Bucket(sessionBucket), []byte(id), s)
}

func deleteSession(tx *bbolt.Tx, id string) error {
	old, err := getSession(tx, id)
	if err != nil {
		return err
	}
	if old.live() {
		if err := countUpload(tx, id, old, false); err != nil {
			return err
		}
	}
	return tx.Bucket(sessionBucket).Delete([]byte(id))
}

// eachSession calls fn with the sessions of a storage; fn must not write.
func eachSession(tx *bbolt.Tx, storage string, fn func(id string, s session)) error {
	return tx.Bucket(sessionBucket).ForEach(func(id, value []byte) error {
		var s session
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("reading session %s: %w", id, err)
		}
		if s.Storage == storage {
			fn(string(id), s)
		}
		return nil
	})
}

// countUpload notes that a session has become live, or has ceased to be.
func countUpload(tx *bbolt.Tx, id string, s session, live bool) error {
	open, key, change := tx.Bucket(openBucket), []byte(s.Owner+"\x00"+id), int64(1)
	err := open.Put(key, nil)
	if !live {
		err, change = open.Delete(key), -1
	}
	if err != nil {
		return fmt.Errorf("counting uploads of %s: %w", s.Owner, err)
	}
	return count(tx, s.Storage, func(u *Usage) { u.Uploads += change })
}

// openUploads counts the live sessions of an owner, up to most.
func openUploads(tx *bbolt.Tx, owner string, most int) int {
	n, prefix := 0, []byte(owner+"\x00")
	c := tx.Bucket(openBucket).Cursor()
	for k, _ := c.Seek(prefix); n < most && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

func getRow(tx *bbolt.Tx, storage string, d Digest) (row, error) {
	var r row
	rows := tx.Bucket(rowBucket).Bucket([]byte(storage))
	if rows == nil {
		return r, errNoRow
	}
	return r, getJSON(rows, []byte(d), &r)
}

func putRow(tx *bbolt.Tx, storage string, d Digest, r row) error {
	rows, err := tx.Bucket(rowBucket).CreateBucketIfNotExists([]byte(storage))
	if err != nil {
		return fmt.Errorf("creating the rows of storage %s: %w", storage, err)
	}
	old, err := getRow(tx, storage, d)
	fresh := errors.Is(err, errNoRow)
	if err != nil && !fresh {
		return err
	}
	if fresh || old.Size != r.Size {
		err := count(tx, storage, func(u *Usage) {
			u.Bytes += r.Size - old.Size
			if fresh {
				u.Blobs++
			}
		})
		if err != nil {
			return err
		}
	}
	return putJSON(rows, []byte(d), r)
}

func deleteRow(tx *bbolt.Tx, storage string, d Digest) error {
	old, err := getRow(tx, storage, d)
	if err != nil {
		return err
	}
	err = count(tx, storage, func(u *Usage) {
		u.Blobs--
		u.Bytes -= old.Size
	})
	if err != nil {
		return err
	}
	return tx.Bucket(rowBucket).Bucket([]byte(storage)).Delete([]byte(d))
}

func getUsage(tx *bbolt.Tx, storage string) (Usage, error) {
	var u Usage
	err := getJSON(tx.Bucket(usageBucket), []byte(storage), &u)
	if errors.Is(err, errNoRow) {
		err = nil
	}
	return u, err
}

func count(tx *bbolt.Tx, storage string, change func(*Usage)) error {
	u, err := getUsage(tx, storage)
	if err != nil {
		return err
	}
	change(&u)
	return putJSON(tx.Bucket(usageBucket), []byte(storage), u)
}

func uploaderKey(d Digest, owner string) []byte {
	return []byte(string(d) + "\x00" + owner)
}

func putUploader(tx *bbolt.Tx, d Digest, owner string, now time.Time) error {
	return tx.Bucket(uploaderBucket).Put(uploaderKey(d, owner), []byte(now.UTC().Format(time.RFC3339)))
}

func hasUploader(tx *bbolt.Tx, d Digest, owner string) bool {
	return tx.Bucket(uploaderBucket).Get(uploaderKey(d, owner)) != nil
}

func getJSON(b *bbolt.Bucket, key []byte, v any) error {
	value := b.Get(key)
	if value == nil {
		return errNoRow
	}
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("reading row %s: %w", key, err)
	}
	return nil
}

func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding row %s: %w", key, err)
	}
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("writing row %s: %w", key, err)
	}
	return nil
}
