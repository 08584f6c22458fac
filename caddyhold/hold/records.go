package hold

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// ErrProtectedRecord says that configuration owns a record, so that nobody else writes it.
var ErrProtectedRecord = errors.New("this record follows from the hold's configuration")

// maxOwnRecord bounds the records that the hold itself changes and whose unknown fields it
// keeps, so that there is room for its changes.
const maxOwnRecord = 64 << 10

// CheckWrite says whether an administrator may put value at path, or delete what is there
// (value nil). The captain record and the captain's crew record are not theirs to write,
// and a record of one of this hold's own collections must fit its lexicon.
func (h *Hold) CheckWrite(path string, value []byte) error {
	collection, _, _ := strings.Cut(path, "/")
	if collection == atcr.CaptainCollection || path == crewPath(h.config.Owner) {
		return fmt.Errorf("%s: %w", path, ErrProtectedRecord)
	}
	r := atcr.New(collection)
	if r == nil || value == nil {
		return nil
	}
	if len(value) > maxOwnRecord {
		return fmt.Errorf("%w: a record of %s has at most %d bytes", pds.ErrInvalidRecord, collection, maxOwnRecord)
	}
	err := atcr.Decode(value, r)
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", pds.ErrInvalidRecord, err)
	}
	if crew, ok := r.(*atcr.Crew); ok && pds.NormalizeDID(crew.Member) == h.config.Owner {
		return fmt.Errorf("crew record of the captain: %w", ErrProtectedRecord)
	}
	return nil
}

// NewPath is where a record without a key of its own goes: a crew record to the place that
// its member has, so that nobody gets two, anything else to a new TID.
func NewPath(tx *pds.Tx, collection string, value []byte) string {
	var crew atcr.Crew
	if collection == atcr.CrewCollection && atcr.Decode(value, &crew) == nil {
		return crewPath(crew.Member)
	}
	return collection + "/" + tx.NextTID()
}

// crewPath is where this hold writes the crew record of a member, however their DID is
// spelled.
func crewPath(member string) string { return atcr.CrewPath(pds.NormalizeDID(member)) }
