package hold

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// DatabaseFile is the name of the database inside a data directory.
const DatabaseFile = "hold.db"

// KeyFile is the name of the signing key inside a data directory, unless configured.
const KeyFile = "signing.key"

// lockTimeout bounds the wait for the lock of the database file.
const lockTimeout = 5 * time.Second

// ErrLocked says that somebody else has the database open.
var ErrLocked = errors.New("the database is open in another process, or still being closed in this one")

// Options says where a hold lives and who it is. None of it can change while the State
// is open.
type Options struct {
	DataDir        string            // made with mode 0700 if absent
	PublicURL      string            // decides the DID: https://hold.example.com is did:web:hold.example.com
	SigningKeyPath string            // empty: <DataDir>/signing.key; made if absent
	Logger         *zap.Logger       // nil: none
	Crash          func(step string) // crash points for tests; nil in production
}

// State is what a hold keeps across configurations: database, repository and blob rows.
type State struct {
	options Options
	db      *bbolt.DB
	repo    *pds.Repo
	blobs   *blobs.Store
}

// Open opens the hold in a data directory and makes it on first use: directory, database,
// signing key, repository. It returns [ErrLocked] if another process has it open, and
// pds.ErrIdentityMismatch if the directory belongs to a hold with another DID.
func Open(o Options) (_ *State, err error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.SigningKeyPath == "" {
		o.SigningKeyPath = filepath.Join(o.DataDir, KeyFile)
	}
	did, err := pds.DIDForURL(o.PublicURL)
	if err != nil {
		return nil, err
	}
	handle, err := pds.HandleForURL(o.PublicURL)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}

	path := filepath.Join(o.DataDir, DatabaseFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         lockTimeout,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mappedSize(),
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("opening %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	s := &State{options: o, db: db}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(context.Background()))
		}
	}()

	key, err := pds.LoadOrCreateKey(o.SigningKeyPath)
	if err != nil {
		return nil, err
	}
	s.repo, err = pds.Open(pds.Config{
		DB: db, DID: did, Handle: handle, Key: key,
		Index:  indexChanges,
		Logger: o.Logger, Crash: o.Crash,
	})
	if err != nil {
		return nil, err
	}
	if err := ensureIndex(db, s.repo); err != nil {
		return nil, err
	}
	s.blobs, err = blobs.Open(blobs.Options{DB: db, Logger: o.Logger, Crash: o.Crash})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// mappedSize is how much address space the database is given from the start. One that
// outgrows its mapping must wait for every reader before it can write on, and an export
// reads for as long as its client is slow. It is address space only, not memory, but for
// Windows, where the file is made that large.
func mappedSize() int {
	if runtime.GOOS == "windows" || strconv.IntSize < 64 {
		return 0
	}
	return min(math.MaxInt/4, 16<<30)
}

// Close ends the firehose's consumers and closes the database. It waits for calls that
// are under way, at most until ctx ends.
func (s *State) Close(ctx context.Context) error {
	var errs []error
	if s.repo != nil {
		errs = append(errs, s.repo.Close())
	}
	if s.blobs != nil {
		errs = append(errs, s.blobs.Close())
	}
	closed := make(chan error, 1)
	go func() { closed <- s.db.Close() }() // blocks while transactions are open
	select {
	case err := <-closed:
		errs = append(errs, err)
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("closing the database: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// Repo is the hold's ATProto repository.
func (s *State) Repo() *pds.Repo { return s.repo }

// Blobs is the store of blob rows and upload sessions.
func (s *State) Blobs() *blobs.Store { return s.blobs }

// PublicURL is the URL from which the hold's DID follows.
func (s *State) PublicURL() string { return s.options.PublicURL }

// DID is the hold's DID.
func (s *State) DID() string { return s.repo.DID().String() }

// SigningKeyPath is where the signing key was read from.
func (s *State) SigningKeyPath() string { return s.options.SigningKeyPath }
