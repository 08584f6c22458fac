package hold

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// Config is the part of one configuration that the domain needs.
type Config struct {
	Owner  string // DID of the captain; empty: the hold owns itself
	Policy Policy
	Region string // published in the captain record; empty: none
}

// Hold is a [State] under one configuration. It is immutable and safe for concurrent use.
type Hold struct {
	state  *State
	config Config
	blobs  *blobs.Service
	now    func() time.Time
}

// New joins the lasting state with one configuration's policy and storage.
func New(s *State, c Config, b *blobs.Service) *Hold {
	if c.Owner == "" {
		c.Owner = s.DID()
	}
	c.Owner = pds.NormalizeDID(c.Owner)
	return &Hold{state: s, config: c, blobs: b, now: time.Now}
}

// State is what outlives this configuration.
func (h *Hold) State() *State { return h.state }

// Repo is the hold's ATProto repository.
func (h *Hold) Repo() *pds.Repo { return h.state.repo }

// Blobs is the blob store with this configuration's storage. It does not ask who the
// caller is: see [Hold.Allow] and [Hold.MayRead].
func (h *Hold) Blobs() *blobs.Service { return h.blobs }

// Caller looks up what the crew records grant to a DID that has proved itself. The empty
// DID is the anonymous caller.
func (h *Hold) Caller(did string) (Caller, error) {
	if did == "" {
		return Anonymous, nil
	}
	did = pds.NormalizeDID(did)
	c := Caller{DID: did, Captain: did == h.config.Owner || did == h.state.DID()}
	if c.Captain {
		return c, nil
	}
	err := h.Repo().View(func(tx *bbolt.Tx) error {
		return eachCrew(tx, did, func(_ string, crew *atcr.Crew) error {
			c.Permissions = append(c.Permissions, crew.Permissions...)
			return nil
		})
	})
	if err != nil {
		return Anonymous, fmt.Errorf("looking up crew %s: %w", did, err)
	}
	return c, nil
}

// Allow decides whether this configuration lets the caller do op.
func (h *Hold) Allow(c Caller, op Operation) error {
	return h.config.Policy.Allow(c, op)
}

// MayRead decides whether the caller may read the blob of digest d: by the hold's policy,
// or, where only private manifests name it, by who announced those. It does not say
// whether there is such a blob.
func (h *Hold) MayRead(c Caller, d blobs.Digest) error {
	return h.Repo().View(func(tx *bbolt.Tx) error { return h.mayRead(tx, c, d) })
}

func (h *Hold) mayRead(tx *bbolt.Tx, c Caller, d blobs.Digest) error {
	named, public, announced := blobVisibility(tx, d, c.DID)
	if !named || public {
		return h.Allow(c, Read)
	}
	switch {
	case c.Crew(), announced:
		return nil
	case c.DID == "":
		return ErrAuthRequired
	}
	return ErrForbidden
}

// mayAnnounce says whether the caller can have d in a manifest of theirs: who cannot read
// a blob and has not uploaded it could else make it public by knowing its digest.
func (h *Hold) mayAnnounce(c Caller, d blobs.Digest) (bool, error) {
	switch err := h.MayRead(c, d); {
	case err == nil:
		return true, nil
	case !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrAuthRequired):
		return false, err
	}
	return h.blobs.UploadedBy(d, c.DID)
}
