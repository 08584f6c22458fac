package hold

import (
	"errors"
	"slices"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
)

// Operation is what a caller wants to do.
type Operation int

// The operations that a policy decides on.
const (
	Read       Operation = iota // read a blob
	Write                       // upload a blob, announce a manifest
	Administer                  // write crew and other records
)

// ErrAuthRequired says that an anonymous caller may not do this: with a token perhaps.
var ErrAuthRequired = errors.New("authentication required")

// ErrForbidden says that this caller may not do this.
var ErrForbidden = errors.New("not permitted")

// Policy is what a configuration allows to whom. Deciding is pure: who the caller is has
// been established before, and what the crew records grant them is in the Caller.
type Policy struct {
	Public       bool // anyone may read
	AllowAllCrew bool // any authenticated caller may read and write
}

// Caller is who makes a request.
type Caller struct {
	DID         string   // empty: anonymous
	Captain     bool     // the owner, or the hold's own key
	Permissions []string // what the caller's crew records grant
}

// Anonymous is a caller without a token.
var Anonymous = Caller{}

// Crew says whether some crew record of the caller, or being captain, lets them read
// blobs on a hold that is not public.
func (c Caller) Crew() bool {
	return c.Captain ||
		slices.Contains(c.Permissions, atcr.PermissionRead) ||
		slices.Contains(c.Permissions, atcr.PermissionWrite) ||
		slices.Contains(c.Permissions, atcr.PermissionAdmin)
}

// Allow returns nil where the policy lets the caller do op, [ErrAuthRequired] where it
// might with a token, and [ErrForbidden] where it does not.
func (p Policy) Allow(c Caller, op Operation) error {
	if p.allows(c, op) {
		return nil
	}
	if c.DID == "" {
		return ErrAuthRequired
	}
	return ErrForbidden
}

func (p Policy) allows(c Caller, op Operation) bool {
	if op == Read && p.Public || c.Captain {
		return true
	}
	if c.DID == "" {
		return false
	}
	admin := slices.Contains(c.Permissions, atcr.PermissionAdmin)
	switch op {
	case Read:
		return p.AllowAllCrew || c.Crew()
	case Write:
		return p.AllowAllCrew || admin || slices.Contains(c.Permissions, atcr.PermissionWrite)
	case Administer:
		return admin
	}
	return false
}
