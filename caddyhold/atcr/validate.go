package atcr

import (
	"errors"
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// ErrInvalid is wrapped by every error of a Validate method.
var ErrInvalid = errors.New("record does not fit its lexicon")

// Bounds that the lexicons set, in bytes or items.
const (
	maxRegion      = 64
	maxRole        = 32
	maxTier        = 32
	maxPermissions = 64
	maxDigest      = 128
	maxRepository  = 256
	maxMediaType   = 256
)

// Validate checks the fields of a captain record.
func (c *Captain) Validate() error {
	return first(
		did("owner", c.Owner),
		datetime("deployedAt", c.DeployedAt),
		optional(c.Region, func(s string) error { return bounded("region", s, 0, maxRegion) }),
		optional(c.Successor, func(s string) error { return did("successor", s) }),
	)
}

// Validate checks the fields of a crew record.
func (c *Crew) Validate() error {
	if len(c.Permissions) > maxPermissions {
		return fmt.Errorf("%w: permissions has more than %d items", ErrInvalid, maxPermissions)
	}
	for _, p := range c.Permissions {
		if p != PermissionRead && p != PermissionWrite && p != PermissionAdmin {
			return fmt.Errorf("%w: unknown permission %q", ErrInvalid, p)
		}
	}
	return first(
		did("member", c.Member),
		bounded("role", c.Role, 1, maxRole),
		datetime("addedAt", c.AddedAt),
		optional(c.Tier, func(s string) error { return bounded("tier", s, 1, maxTier) }),
	)
}

// Validate checks the fields of a layer record.
func (l *Layer) Validate() error {
	if l.Size < 0 {
		return fmt.Errorf("%w: size is negative", ErrInvalid)
	}
	if _, err := syntax.ParseATURI(l.Manifest); err != nil {
		return fmt.Errorf("%w: manifest is not an at-uri", ErrInvalid)
	}
	return first(
		bounded("digest", l.Digest, 1, maxDigest),
		bounded("mediaType", l.MediaType, 0, maxMediaType),
		did("userDid", l.UserDID),
		datetime("createdAt", l.CreatedAt),
	)
}

// Validate checks the fields of a stats record.
func (s *Stats) Validate() error {
	if s.PullCount < 0 || s.PushCount < 0 {
		return fmt.Errorf("%w: a count is negative", ErrInvalid)
	}
	return first(
		did("ownerDid", s.OwnerDID),
		bounded("repository", s.Repository, 1, maxRepository),
		datetime("updatedAt", s.UpdatedAt),
		optional(s.LastPull, func(t string) error { return datetime("lastPull", t) }),
		optional(s.LastPush, func(t string) error { return datetime("lastPush", t) }),
	)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func did(field, s string) error {
	if _, err := syntax.ParseDID(s); err != nil {
		return fmt.Errorf("%w: %s is not a DID", ErrInvalid, field)
	}
	return nil
}

func datetime(field, s string) error {
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		return fmt.Errorf("%w: %s is not an RFC 3339 time", ErrInvalid, field)
	}
	return nil
}

func bounded(field, s string, least, most int) error {
	if len(s) < least || len(s) > most {
		return fmt.Errorf("%w: %s must have %d to %d bytes", ErrInvalid, field, least, most)
	}
	return nil
}

func optional(s *string, check func(string) error) error {
	if s == nil {
		return nil
	}
	return check(*s)
}
