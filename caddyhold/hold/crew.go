package hold

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// ErrRegistrationDisabled says that this hold does not let people add themselves.
var ErrRegistrationDisabled = errors.New("this hold's crew is by invitation")

// ErrInvalidRequest is wrapped by every error about what a caller asked for.
var ErrInvalidRequest = errors.New("invalid request")

// CrewRequest is the input of io.atcr.hold.requestCrew; both fields may be empty.
type CrewRequest struct {
	Role        string   `json:"role"`        // default: member
	Permissions []string `json:"permissions"` // default: blob:read, blob:write
}

// CrewMembership is the output of io.atcr.hold.requestCrew.
type CrewMembership struct {
	Status  string `json:"status"` // created or already_member
	URI     string `json:"uri"`    // at-uri of the crew record
	CID     string `json:"cid"`
	Message string `json:"message"`
}

// RequestCrew makes the caller a member if the hold lets anyone join. Somebody who is a
// member already is told so, whatever they ask for: that costs two lookups.
func (h *Hold) RequestCrew(ctx context.Context, c Caller, in CrewRequest) (CrewMembership, error) {
	if c.DID == "" {
		return CrewMembership{}, ErrAuthRequired
	}
	member, err := h.membership(c.DID)
	if err != nil || member != nil {
		return alreadyMember(member), err
	}
	if !h.config.Policy.AllowAllCrew && !c.Captain {
		return CrewMembership{}, ErrRegistrationDisabled
	}
	crew, err := h.requestedCrew(c, in)
	if err != nil {
		return CrewMembership{}, err
	}

	value, err := atcr.Encode(crew)
	if err != nil {
		return CrewMembership{}, fmt.Errorf("%w: %w", ErrInvalidRequest, err)
	}
	var path string
	var id cid.Cid
	_, err = h.Repo().Update(ctx, func(tx *pds.Tx) (err error) {
		id = cid.Undef
		if path = crewOf(tx.Bolt(), c.DID); path != "" { // another request of theirs was first
			return nil
		}
		path = crewPath(c.DID)
		id, err = tx.Create(path, value)
		if errors.Is(err, pds.ErrRecordExists) { // somebody put another's record there
			path = atcr.CrewCollection + "/" + tx.NextTID()
			id, err = tx.Create(path, value)
		}
		return err
	})
	if err != nil {
		return CrewMembership{}, wrap(err, "adding crew member")
	}
	if !id.Defined() {
		member, err := h.membership(c.DID)
		return alreadyMember(member), err
	}
	return CrewMembership{
		Status: "created", URI: h.uri(path), CID: id.String(),
		Message: "welcome aboard",
	}, nil
}

// requestedCrew is the record that a request asks for. Nobody makes themselves admin.
func (h *Hold) requestedCrew(c Caller, in CrewRequest) (*atcr.Crew, error) {
	crew := &atcr.Crew{Member: c.DID, Role: in.Role, Permissions: in.Permissions, AddedAt: h.timestamp()}
	if crew.Role == "" {
		crew.Role = "member"
	}
	if len(crew.Permissions) == 0 {
		crew.Permissions = []string{atcr.PermissionRead, atcr.PermissionWrite}
	}
	switch crew.Role {
	case "member", "write", "read":
	case "owner", "admin":
		return nil, fmt.Errorf("%w: the role %s can not be requested", ErrInvalidRequest, crew.Role)
	default:
		return nil, fmt.Errorf("%w: role must be member, write or read", ErrInvalidRequest)
	}
	for _, p := range crew.Permissions {
		switch p {
		case atcr.PermissionRead, atcr.PermissionWrite:
		case atcr.PermissionAdmin:
			return nil, fmt.Errorf("%w: the permission %s can not be requested", ErrInvalidRequest, p)
		default:
			return nil, fmt.Errorf("%w: permissions may be %s and %s", ErrInvalidRequest, atcr.PermissionRead, atcr.PermissionWrite)
		}
	}
	return crew, nil
}

// crewOf returns the path of some crew record of did, or nothing if there is none.
func crewOf(tx *bbolt.Tx, did string) (path string) {
	// errStop is the only error that fn gives, and a record that cannot be read is not in the
	// index.
	_ = eachCrew(tx, did, func(rkey string, _ *atcr.Crew) error {
		path = atcr.CrewCollection + "/" + rkey
		return errStop
	})
	return path
}

// membership returns some crew record of did, or nil if there is none.
func (h *Hold) membership(did string) (*CrewMembership, error) {
	var path string
	err := h.Repo().View(func(tx *bbolt.Tx) error {
		path = crewOf(tx, did)
		return nil
	})
	if err != nil {
		return nil, wrap(err, "looking up crew "+did)
	}
	if path == "" {
		return nil, nil
	}
	r, err := h.Repo().Record(path)
	if errors.Is(err, pds.ErrRecordNotFound) { // removed since
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &CrewMembership{URI: h.uri(path), CID: r.CID.String()}, nil
}

func alreadyMember(m *CrewMembership) CrewMembership {
	if m == nil {
		return CrewMembership{}
	}
	m.Status, m.Message = "already_member", "you are on the crew already"
	return *m
}

// deleteCrew removes every crew record of member.
func deleteCrew(tx *pds.Tx, member string) error {
	var paths []string
	err := eachCrew(tx.Bolt(), pds.NormalizeDID(member), func(rkey string, _ *atcr.Crew) error {
		paths = append(paths, atcr.CrewCollection+"/"+rkey)
		return nil
	})
	for _, path := range paths {
		if err == nil {
			err = tx.Delete(path)
		}
	}
	return err
}

func (h *Hold) uri(path string) string { return "at://" + h.state.DID() + "/" + path }
