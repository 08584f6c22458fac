package blobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// DefaultURLLifetime is how long URLs are good for unless configured.
const DefaultURLLifetime = 15 * time.Minute

// Config is one configuration's view of the blobs.
type Config struct {
	Store  *Store
	Driver Driver

	// Presign lets clients reach the storage themselves where the driver can do
	// that. Without it every byte goes through the hold.
	Presign bool
	// URLLifetime is how long URLs are good for; 0 is DefaultURLLifetime.
	URLLifetime time.Duration
	// BaseURL is the public URL of the hold, for the URLs it signs itself.
	BaseURL string
	// UploadURL is the base of part uploads where it is another; "" is BaseURL.
	UploadURL string
	// DID is the did parameter of the hold's own getBlob URLs; "" leaves it out.
	DID string

	Logger *zap.Logger // nil: none
}

// Service is a Store with a Driver. It holds no state of its own: one can be
// made for each configuration, and be forgotten. It is safe for concurrent use.
type Service struct {
	store        *Store
	driver       Driver
	storage      string
	parts        PartPresigner // nil: parts go through the hold
	urls         Presigner     // nil: bytes come from the hold
	lifetime     time.Duration
	blobEndpoint string
	partEndpoint string
	did          string
	log          *zap.Logger
}

// New returns the service of a configuration.
func New(cfg Config) *Service {
	s := &Service{
		store: cfg.Store, driver: cfg.Driver, storage: cfg.Driver.Identity(),
		lifetime: cfg.URLLifetime, did: cfg.DID, log: cfg.Logger,
	}
	if cfg.Presign {
		s.parts, _ = cfg.Driver.(PartPresigner)
		s.urls, _ = cfg.Driver.(Presigner)
	}
	if s.lifetime == 0 {
		s.lifetime = DefaultURLLifetime
	}
	uploadURL := cfg.UploadURL
	if uploadURL == "" {
		uploadURL = cfg.BaseURL
	}
	s.blobEndpoint = strings.TrimRight(cfg.BaseURL, "/") + "/xrpc/com.atproto.sync.getBlob"
	s.partEndpoint = strings.TrimRight(uploadURL, "/") + "/xrpc/io.atcr.hold.uploadPart"
	if s.log == nil {
		s.log = zap.NewNop()
	}
	return s
}

// Direct says whether URL points at the storage itself rather than at the hold.
func (s *Service) Direct() bool { return s.urls != nil }

// Healthy says whether the storage can be used now: nil, ErrUnavailable,
// ErrInsufficientStorage or what else is wrong.
func (s *Service) Healthy(ctx context.Context) error {
	if err := s.driver.Healthy(ctx); err != nil {
		return fmt.Errorf("checking storage: %w", err)
	}
	return nil
}

// Usage returns the counts of the service's storage.
func (s *Service) Usage() (Usage, error) {
	var u Usage
	err := s.store.db.View(func(tx *bbolt.Tx) (err error) {
		u, err = getUsage(tx, s.storage)
		return err
	})
	if err != nil {
		return Usage{}, fmt.Errorf("reading usage: %w", err)
	}
	return u, nil
}
