package xrpc

import (
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/singleflight"
)

// Bounds of what is remembered.
const (
	maxIssuers = 10_000
	maxSpent   = 100_000
	maxExports = 32
)

// Memory is what a [Server] remembers from request to request and from configuration to
// configuration: the keys of token issuers, the ids of tokens that are used up, and how many
// exports are under way.
type Memory struct {
	mu      sync.Mutex
	issuers map[issuerKey]issuerEntry
	spent   map[string]time.Time // "issuer jti" → when the token expires

	lookups singleflight.Group
	exports chan struct{} // an element for each that is under way
}

// issuerKey keeps what one configuration's directory said apart from another's.
type issuerKey struct {
	directory string
	did       syntax.DID
}

type issuerEntry struct {
	key       atcrypto.PublicKey // nil: the lookup failed
	err       *Error             // why it failed
	fetched   time.Time
	refreshed time.Time // when it was last looked up again, after the first time
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		issuers: make(map[issuerKey]issuerEntry),
		spent:   make(map[string]time.Time),
		exports: make(chan struct{}, maxExports),
	}
}

// spend notes an id until it expires and says whether it was unused. Where so many are
// live that no more can be noted, none is taken for unused.
func (m *Memory) spend(id string, expires, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if until, used := m.spent[id]; used && now.Before(until) {
		return false
	}
	if len(m.spent) >= maxSpent {
		for id, until := range m.spent {
			if !now.Before(until) {
				delete(m.spent, id)
			}
		}
	}
	if len(m.spent) >= maxSpent {
		return false
	}
	m.spent[id] = expires
	return true
}

func (m *Memory) issuer(k issuerKey) (issuerEntry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.issuers[k]
	return e, ok
}

// setIssuer makes room by forgetting others at random: they can be looked up again.
func (m *Memory) setIssuer(k issuerKey, e issuerEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.issuers[k]; !known && len(m.issuers) >= maxIssuers {
		for other := range m.issuers {
			delete(m.issuers, other)
			break
		}
	}
	m.issuers[k] = e
}
