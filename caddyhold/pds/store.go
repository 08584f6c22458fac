package pds

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
)

// The buckets. A rev is its 13 characters, a seq 8 bytes, big-endian.
var (
	metaBucket    = []byte("pds.meta")     // names below → values
	recordBucket  = []byte("pds.records")  // path → rev, CID, DAG-CBOR
	cidBucket     = []byte("pds.cids")     // start of the CID's hash, path → nothing
	nodeBucket    = []byte("pds.nodes")    // CID → rev, DAG-CBOR; of the current tree only
	eventBucket   = []byte("pds.events")   // seq → unix milliseconds, frame
	blobBucket    = []byte("pds.blobs")    // CID → length of the MIME type, MIME type, content
	blobRefBucket = []byte("pds.blobrefs") // CID of the blob, path → rev of the record that refers to it

	buckets = [][]byte{metaBucket, recordBucket, cidBucket, nodeBucket, eventBucket, blobBucket, blobRefBucket}
)

// Names in metaBucket.
var (
	formatName  = []byte("format")  // of all this
	didName     = []byte("did")     // the repository's
	handleName  = []byte("handle")  // last announced
	keyName     = []byte("key")     // did:key that signed the current commit
	commitName  = []byte("commit")  // DAG-CBOR of the current commit
	seqName     = []byte("seq")     // of the newest event
	removedName = []byte("removed") // seq up to which events were removed, or never were
)

var format = []byte("1")

const (
	revLen       = 13
	recordHeader = revLen + cidLen
	nodeHeader   = revLen
	eventHeader  = 8
	cidPrefix    = 8 // bytes of a hash in cidBucket

	// Events come in order, so that pages need no room for more.
	eventFill = 0.95
)

// snapshot is the repository's part of a database transaction. Byte slices
// from it are the database's: they must not be changed, nor used after it.
type snapshot struct {
	tx *bbolt.Tx
}

// view runs fn in a read transaction.
func (r *Repo) view(fn func(snapshot) error) error {
	return r.cfg.DB.View(func(tx *bbolt.Tx) error { return fn(snapshot{tx}) })
}

// update runs fn in a write transaction, apart from those of commits.
func (r *Repo) update(fn func(snapshot) error) error {
	return r.cfg.DB.Update(func(tx *bbolt.Tx) error { return fn(snapshot{tx}) })
}

func (s snapshot) createBuckets() error {
	for _, name := range buckets {
		if _, err := s.tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("creating bucket %s: %w", name, err)
		}
	}
	return nil
}

func (s snapshot) meta(name []byte) []byte {
	return s.tx.Bucket(metaBucket).Get(name)
}

func (s snapshot) putMeta(name, value []byte) error {
	return s.tx.Bucket(metaBucket).Put(name, value)
}

// seq is the number of the newest event, or where numbering starts.
func (s snapshot) seq() int64 { return decodeSeq(s.meta(seqName)) }

// removed is the number up to which events are no longer in the log.
func (s snapshot) removed() int64 { return decodeSeq(s.meta(removedName)) }

func encodeSeq(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func decodeSeq(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// record returns the record at path; its value and that alone is the
// database's.
func (s snapshot) record(path string) (Record, error) {
	stored := s.tx.Bucket(recordBucket).Get([]byte(path))
	if stored == nil {
		return Record{}, fmt.Errorf("%w: %.600s", ErrRecordNotFound, path)
	}
	return decodeRecord([]byte(path), stored)
}

// recordCopy returns the record at path for use after the transaction.
func (s snapshot) recordCopy(path string) (Record, error) {
	rec, err := s.record(path)
	rec.Value = bytes.Clone(rec.Value)
	return rec, err
}

func decodeRecord(path, stored []byte) (Record, error) {
	if len(stored) < recordHeader {
		return Record{}, fmt.Errorf("damaged record at %s", path)
	}
	c, err := cid.Cast(stored[revLen:recordHeader])
	if err != nil {
		return Record{}, fmt.Errorf("damaged record at %s: %w", path, err)
	}
	return Record{Path: string(path), Rev: string(stored[:revLen]), CID: c, Value: stored[recordHeader:]}, nil
}

// putRecord replaces the record at path, of which old is the CID, if defined.
func (s snapshot) putRecord(path, rev string, old, c cid.Cid, value []byte) error {
	if err := s.deleteCID(old, path); err != nil {
		return err
	}
	if err := s.tx.Bucket(cidBucket).Put(cidKey(c, path), nil); err != nil {
		return err
	}
	stored := make([]byte, 0, recordHeader+len(value))
	stored = append(stored, rev...)
	stored = append(stored, c.Bytes()...)
	stored = append(stored, value...)
	return s.tx.Bucket(recordBucket).Put([]byte(path), stored)
}

func (s snapshot) deleteRecord(path string, old cid.Cid) error {
	if err := s.deleteCID(old, path); err != nil {
		return err
	}
	return s.tx.Bucket(recordBucket).Delete([]byte(path))
}

func (s snapshot) deleteCID(c cid.Cid, path string) error {
	if !c.Defined() {
		return nil
	}
	return s.tx.Bucket(cidBucket).Delete(cidKey(c, path))
}

func cidKey(c cid.Cid, path string) []byte {
	hash := c.Hash()
	return append(append(make([]byte, 0, cidPrefix+len(path)), hash[2:2+cidPrefix]...), path...)
}

// recordByCID returns the value of a record with that CID.
func (s snapshot) recordByCID(c cid.Cid) ([]byte, bool) {
	prefix := cidKey(c, "")
	cursor := s.tx.Bucket(cidBucket).Cursor()
	for key, _ := cursor.Seek(prefix); bytes.HasPrefix(key, prefix); key, _ = cursor.Next() {
		stored := s.tx.Bucket(recordBucket).Get(key[cidPrefix:])
		if len(stored) >= recordHeader && bytes.Equal(stored[revLen:recordHeader], c.Bytes()) {
			return stored[recordHeader:], true
		}
	}
	return nil, false
}

// list copies a page of a collection; see [Repo.Records].
func (s snapshot) list(collection string, o ListOptions) (recs []Record, cursor string, err error) {
	prefix := []byte(collection + "/")
	c := s.tx.Bucket(recordBucket).Cursor()
	key, stored, next := seekPage(c, prefix, o)
	for ; bytes.HasPrefix(key, prefix); key, stored = next() {
		if len(recs) == o.Limit {
			return recs, recs[len(recs)-1].Path[len(prefix):], nil
		}
		rec, err := decodeRecord(key, stored)
		if err != nil {
			return nil, "", err
		}
		rec.Value = bytes.Clone(rec.Value)
		recs = append(recs, rec)
	}
	return recs, "", nil
}

// seekPage finds the first record of a page, and how to go on from there.
func seekPage(c *bbolt.Cursor, prefix []byte, o ListOptions) (key, value []byte, next func() (key, value []byte)) {
	start := append(bytes.Clone(prefix), o.Cursor...)
	if o.Reverse {
		key, value = c.Seek(start)
		if o.Cursor != "" && bytes.Equal(key, start) {
			key, value = c.Next()
		}
		return key, value, c.Next
	}
	if o.Cursor == "" {
		start = append(start, 0xff) // after all keys, which are ASCII
	}
	if key, _ = c.Seek(start); key == nil {
		key, value = c.Last()
	} else {
		key, value = c.Prev()
	}
	return key, value, c.Prev
}

func (s snapshot) collections() (collections []string) {
	c := s.tx.Bucket(recordBucket).Cursor()
	for key, _ := c.First(); key != nil; {
		collection, _, _ := strings.Cut(string(key), "/")
		collections = append(collections, collection)
		key, _ = c.Seek([]byte(collection + string(rune('/'+1))))
	}
	return collections
}

// node returns a node of the current tree.
func (s snapshot) node(c cid.Cid) ([]byte, error) {
	_, data, err := s.nodeAndRev(c.Bytes())
	return data, err
}

// nodeAndRev returns a node, by the bytes of its CID, and the rev of the
// commit that it came with.
func (s snapshot) nodeAndRev(c []byte) (rev, data []byte, err error) {
	stored := s.tx.Bucket(nodeBucket).Get(c)
	if len(stored) < nodeHeader {
		return nil, nil, fmt.Errorf("tree node %x: %w", c, ErrBlockNotFound)
	}
	return stored[:nodeHeader], stored[nodeHeader:], nil
}

// putNode stores a node, unless it is there.
func (s snapshot) putNode(rev string, b block) error {
	nodes, key := s.tx.Bucket(nodeBucket), b.cid.Bytes()
	if nodes.Get(key) != nil {
		return nil
	}
	return nodes.Put(key, append(append(make([]byte, 0, nodeHeader+len(b.data)), rev...), b.data...))
}

func (s snapshot) deleteNode(c cid.Cid) error {
	return s.tx.Bucket(nodeBucket).Delete(c.Bytes())
}

// appendEvent adds a frame to the log.
func (s snapshot) appendEvent(seq int64, at time.Time, frame []byte) error {
	events := s.tx.Bucket(eventBucket)
	events.FillPercent = eventFill
	value := binary.BigEndian.AppendUint64(make([]byte, 0, eventHeader+len(frame)), uint64(at.UnixMilli()))
	if err := events.Put(encodeSeq(seq), append(value, frame...)); err != nil {
		return err
	}
	return s.putMeta(seqName, encodeSeq(seq))
}

// frames copies the frames that follow a seq, at least one if there is one,
// about as many as fit in maxBytes, and returns the seq of the last.
func (s snapshot) frames(after int64, maxBytes int) (frames [][]byte, last int64) {
	last = after
	c := s.tx.Bucket(eventBucket).Cursor()
	for key, value := c.Seek(encodeSeq(after + 1)); key != nil && maxBytes > 0; key, value = c.Next() {
		frame := bytes.Clone(value[eventHeader:])
		frames, last = append(frames, frame), decodeSeq(key)
		maxBytes -= len(frame)
	}
	return frames, last
}

// eventsBefore lists the oldest events that are older than a time, at most
// limit.
func (s snapshot) eventsBefore(t time.Time, limit int) (seqs []int64) {
	c := s.tx.Bucket(eventBucket).Cursor()
	for key, value := c.First(); key != nil && len(seqs) < limit; key, value = c.Next() {
		if int64(binary.BigEndian.Uint64(value)) >= t.UnixMilli() {
			break
		}
		seqs = append(seqs, decodeSeq(key))
	}
	return seqs
}

// removeEvents removes events, the oldest of the log.
func (s snapshot) removeEvents(seqs []int64) error {
	events := s.tx.Bucket(eventBucket)
	for _, seq := range seqs {
		if err := events.Delete(encodeSeq(seq)); err != nil {
			return err
		}
	}
	return s.putMeta(removedName, encodeSeq(seqs[len(seqs)-1]))
}

// blob returns a blob's MIME type and content.
func (s snapshot) blob(c cid.Cid) (mimeType string, content []byte, err error) {
	stored := s.tx.Bucket(blobBucket).Get(c.Bytes())
	if len(stored) == 0 || len(stored) < 1+int(stored[0]) {
		return "", nil, fmt.Errorf("%w: %s", ErrBlobNotFound, c)
	}
	n := 1 + int(stored[0])
	return string(stored[1:n]), stored[n:], nil
}

func (s snapshot) putBlob(c cid.Cid, mimeType string, content []byte) error {
	stored := make([]byte, 0, 1+len(mimeType)+len(content))
	stored = append(stored, byte(len(mimeType)))
	stored = append(stored, mimeType...)
	return s.tx.Bucket(blobBucket).Put(c.Bytes(), append(stored, content...))
}

func (s snapshot) putBlobRef(blob cid.Cid, path, rev string) error {
	return s.tx.Bucket(blobRefBucket).Put(append(blob.Bytes(), path...), []byte(rev))
}

func (s snapshot) deleteBlobRef(blob cid.Cid, path string) error {
	return s.tx.Bucket(blobRefBucket).Delete(append(blob.Bytes(), path...))
}

// referencedBlobs lists, in the order of their CIDs, the blobs after a CID
// that a record refers to which was written after the rev since, and says
// whether there are more.
func (s snapshot) referencedBlobs(since string, after cid.Cid, limit int) (cids []cid.Cid, more bool, err error) {
	c := s.tx.Bucket(blobRefBucket).Cursor()
	key, rev := c.Seek(afterBlob(after.Bytes()))
	for key != nil {
		if string(rev) <= since {
			key, rev = c.Next()
			continue
		}
		if len(cids) == limit {
			return cids, true, nil
		}
		blob, err := cid.Cast(key[:cidLen])
		if err != nil {
			return nil, false, fmt.Errorf("damaged reference to a blob: %w", err)
		}
		cids = append(cids, blob)
		key, rev = c.Seek(afterBlob(key[:cidLen]))
	}
	return cids, false, nil
}

// afterBlob is greater than all references to a blob, whose paths are ASCII.
func afterBlob(c []byte) []byte {
	if len(c) == 0 {
		return nil
	}
	return append(bytes.Clone(c), 0xff)
}

// root is the CID of the current tree's root.
func (s snapshot) root() (cid.Cid, error) {
	var c atrepo.Commit
	if err := c.UnmarshalCBOR(bytes.NewReader(s.meta(commitName))); err != nil {
		return cid.Undef, fmt.Errorf("reading the commit: %w", err)
	}
	return c.Data, nil
}

// block finds a tree node or a record by its CID.
func (s snapshot) block(c cid.Cid) ([]byte, bool) {
	if !isBlessed(c.Bytes()) {
		return nil, false
	}
	if _, data, err := s.nodeAndRev(c.Bytes()); err == nil {
		return data, true
	}
	return s.recordByCID(c)
}
