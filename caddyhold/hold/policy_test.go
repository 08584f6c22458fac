package hold

import (
	"errors"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
)

// TestPolicyMatrix holds the whole table of who may do what: every caller under every
// policy for every operation.
func TestPolicyMatrix(t *testing.T) {
	crew := func(permissions ...string) Caller {
		return Caller{DID: "did:plc:crew", Permissions: permissions}
	}
	callers := []struct {
		name   string
		caller Caller
	}{
		{"anonymous", Anonymous},
		{"captain", Caller{DID: "did:plc:captain", Captain: true}},
		{"crew blob:read", crew(atcr.PermissionRead)},
		{"crew blob:write", crew(atcr.PermissionWrite)},
		{"crew blob:read blob:write", crew(atcr.PermissionRead, atcr.PermissionWrite)},
		{"crew crew:admin", crew(atcr.PermissionAdmin)},
		{"crew without permission", crew()},
		{"crew with an unknown permission", crew("blob:destroy")},
		{"authenticated", Caller{DID: "did:plc:stranger"}},
	}
	policies := []struct {
		name   string
		policy Policy
	}{
		{"private", Policy{}},
		{"public", Policy{Public: true}},
		{"private, allow all crew", Policy{AllowAllCrew: true}},
		{"public, allow all crew", Policy{Public: true, AllowAllCrew: true}},
	}

	// Rows as callers, columns as policies; r, w and a stand for what is allowed.
	want := [][]string{
		{"", "r", "", "r"},
		{"rwa", "rwa", "rwa", "rwa"},
		{"r", "r", "rw", "rw"},
		{"rw", "rw", "rw", "rw"},
		{"rw", "rw", "rw", "rw"},
		{"rwa", "rwa", "rwa", "rwa"},
		{"", "r", "rw", "rw"},
		{"", "r", "rw", "rw"},
		{"", "r", "rw", "rw"},
	}
	letters := map[Operation]string{Read: "r", Write: "w", Administer: "a"}
	for row, c := range callers {
		for column, p := range policies {
			t.Run(p.name+"/"+c.name, func(t *testing.T) {
				got := ""
				for _, op := range []Operation{Read, Write, Administer} {
					err := p.policy.Allow(c.caller, op)
					switch {
					case err == nil:
						got += letters[op]
					case c.caller.DID == "" && !errors.Is(err, ErrAuthRequired):
						t.Errorf("an anonymous caller is told %v, want that a token may help", err)
					case c.caller.DID != "" && !errors.Is(err, ErrForbidden):
						t.Errorf("a known caller is told %v, want that it is forbidden", err)
					}
				}
				if got != want[row][column] {
					t.Errorf("allowed %q, want %q", got, want[row][column])
				}
			})
		}
	}
}

// TestUnknownOperationIsDenied: what the table does not name is not allowed.
func TestUnknownOperationIsDenied(t *testing.T) {
	c := Caller{DID: "did:plc:crew", Permissions: []string{atcr.PermissionAdmin}}
	if err := (Policy{Public: true, AllowAllCrew: true}).Allow(c, Operation(99)); !errors.Is(err, ErrForbidden) {
		t.Errorf("Allow(unknown operation) = %v, want ErrForbidden", err)
	}
}
