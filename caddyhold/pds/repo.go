package pds

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// DefaultRetention is how long the firehose keeps events.
const DefaultRetention = 72 * time.Hour

// Config says what a repository is made of. It does not change while the
// repository is open.
type Config struct {
	// DB is the database, which stays open until after Close. The repository
	// keeps to buckets named "pds.…". Open it with an InitialMmapSize beyond
	// what it will grow to, since a database that outgrows its mapping waits
	// for the reads under way, and exports last as long as readers are slow.
	DB *bbolt.DB
	// DID and Handle are the account's. The DID is that of the database for
	// good; a new handle is announced.
	DID    syntax.DID
	Handle string
	// Key signs commits: K-256 (https://atproto.com/specs/cryptography). A
	// new key is announced, and the current commit signed again.
	Key atcrypto.PrivateKeyExportable
	// Index, if not nil, hears of the records that an [Repo.Update] changes,
	// in the order of their paths, inside its transaction. The slices are the
	// database's, good until it returns. Its error fails the update.
	Index func(tx *bbolt.Tx, changes []Change) error
	// Retention is how long the firehose keeps events; 0: [DefaultRetention].
	Retention time.Duration
	Now       func() time.Time // nil: time.Now
	Logger    *zap.Logger      // nil: none
	// Crash, if not nil, is called with the name of the step before each step
	// of a commit, so that a test can end the process there.
	Crash func(step string)
}

// Crash points, in the order in which a commit passes them.
const (
	CrashBegin    = "pds: begin"     // a transaction begins
	CrashStored   = "pds: stored"    // records, nodes, commit and frame are in it
	CrashIndexed  = "pds: indexed"   // and what Config.Index made of them
	CrashDurable  = "pds: durable"   // it is on disk
	CrashAnnounce = "pds: announced" // consumers know
)

// Change is what a commit did to a record.
type Change struct {
	Path     string
	Old, New []byte  // DAG-CBOR; Old nil: created, New nil: deleted
	CID      cid.Cid // of New
}

// Head is a state of the repository.
type Head struct {
	Commit cid.Cid // of the signed commit
	Data   cid.Cid // of the tree's root
	Rev    string  // revision, a TID; each is greater than the one before
	Seq    int64   // of the newest event of the firehose
}

// Repo is an open repository. Its methods may be used by several goroutines.
type Repo struct {
	cfg  Config
	head atomic.Pointer[Head]

	requests chan *request // of Update, to the writer
	closing  chan struct{} // closed by Close
	close    sync.Once
	written  chan struct{} // closed when the writer has ended

	news      news
	consumers atomic.Int64

	// The writer's own.
	clock *clock
	tree  *tree // at head; nil: to be opened
}

// Open opens the repository in a database, and makes it on first use, with an
// empty tree and the events #identity, #account, #commit and #sync. It
// returns [ErrIdentityMismatch] if the database has the repository of another
// DID.
func Open(cfg Config) (*Repo, error) {
	if cfg.Retention <= 0 {
		cfg.Retention = DefaultRetention
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Crash == nil {
		cfg.Crash = func(string) {}
	}
	r := &Repo{
		cfg:      cfg,
		requests: make(chan *request),
		closing:  make(chan struct{}),
		written:  make(chan struct{}),
	}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("opening the repository of %s: %w", cfg.DID, err)
	}
	go r.write()
	return r, nil
}

// load reads the head, or makes the first one, and announces what has changed
// of the identity.
func (r *Repo) load() error {
	key, err := r.cfg.Key.PublicKey()
	if err != nil {
		return err
	}
	tx, err := r.cfg.DB.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	s := snapshot{tx}
	if err := s.createBuckets(); err != nil {
		return err
	}
	t := &transaction{repo: r, store: s}
	did := string(s.meta(didName))
	switch {
	case did == "":
		err = t.found(key)
	case did != r.cfg.DID.String():
		err = fmt.Errorf("%w: %s", ErrIdentityMismatch, did)
	case !bytes.Equal(s.meta(formatName), format):
		err = fmt.Errorf("unknown database format %q", s.meta(formatName))
	default:
		err = t.resume(key)
	}
	if err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	head := t.head
	r.head.Store(&head)
	return nil
}

// found writes the first commit of a new repository.
func (t *transaction) found(key atcrypto.PublicKey) error {
	now := t.repo.cfg.Now()
	t.repo.clock = newClock(t.repo.cfg.Now, "")
	// A consumer that knew an earlier database of the same account must not
	// find its cursor in the future, so numbers begin where time is.
	t.head.Seq = now.UnixMilli() - 1
	err := errors.Join(
		t.store.putMeta(formatName, format),
		t.store.putMeta(didName, []byte(t.repo.cfg.DID)),
		t.store.putMeta(removedName, encodeSeq(t.head.Seq)),
		t.rememberIdentity(key),
	)
	if err != nil {
		return err
	}
	if err := t.announceIdentity(); err != nil {
		return err
	}
	if err := t.announceAccount(); err != nil {
		return err
	}
	if err := t.commitTree(&tree{mst: mst.NewEmptyTree()}, nil); err != nil {
		return err
	}
	t.repo.cfg.Logger.Info("repository created", zap.Stringer("did", t.repo.cfg.DID), zap.String("rev", t.head.Rev))
	return t.announceSync()
}

// resume reads the head. Where handle or key are not those of last time, it
// announces them; a commit must be signed by the key that is announced.
func (t *transaction) resume(key atcrypto.PublicKey) error {
	encoded := t.store.meta(commitName)
	var c atrepo.Commit
	if err := c.UnmarshalCBOR(bytes.NewReader(encoded)); err != nil {
		return fmt.Errorf("reading the commit: %w", err)
	}
	t.head = Head{Commit: sum(cid.DagCBOR, encoded), Data: c.Data, Rev: c.Rev, Seq: t.store.seq()}
	t.repo.clock = newClock(t.repo.cfg.Now, c.Rev)

	newKey := string(t.store.meta(keyName)) != key.DIDKey()
	if !newKey && string(t.store.meta(handleName)) == t.repo.cfg.Handle {
		return nil
	}
	if err := t.rememberIdentity(key); err != nil {
		return err
	}
	if err := t.announceIdentity(); err != nil {
		return err
	}
	t.repo.cfg.Logger.Info("identity announced", zap.Stringer("did", t.repo.cfg.DID), zap.Bool("new_key", newKey))
	if !newKey {
		return nil
	}
	if _, err := t.sign(c.Data); err != nil {
		return err
	}
	return t.announceSync()
}

func (t *transaction) rememberIdentity(key atcrypto.PublicKey) error {
	return errors.Join(
		t.store.putMeta(handleName, []byte(t.repo.cfg.Handle)),
		t.store.putMeta(keyName, []byte(key.DIDKey())),
	)
}

// Close ends the writer and all consumers. Updates that are under way are
// finished, those that wait get [ErrClosed]. The database stays open, and so
// do reads.
func (r *Repo) Close() error {
	r.close.Do(func() { close(r.closing) })
	<-r.written
	return nil
}

// DID is the account's DID.
func (r *Repo) DID() syntax.DID { return r.cfg.DID }

// Handle is the account's handle.
func (r *Repo) Handle() string { return r.cfg.Handle }

// Key is what commits are signed with.
func (r *Repo) Key() atcrypto.PrivateKeyExportable { return r.cfg.Key }

// Head is the last durable state.
func (r *Repo) Head() Head { return *r.head.Load() }

// View runs fn with a read transaction of the database, for what other
// packages keep there.
func (r *Repo) View(fn func(tx *bbolt.Tx) error) error { return r.cfg.DB.View(fn) }
