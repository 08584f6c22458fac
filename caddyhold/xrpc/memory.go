package xrpc

import (
	"crypto/sha256"
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
	maxProved  = 10_000
)

// Memory is what a [Server] remembers from request to request and from configuration to
// configuration: the keys of token issuers, the tokens whose signature has been verified, the
// ids of tokens that are used up, and how many exports are under way.
type Memory struct {
	mu      sync.Mutex
	issuers map[issuerKey]issuerEntry
	spent   map[string]time.Time // "issuer jti" → when the token expires
	proved  map[[sha256.Size]byte]atcrypto.PublicKey

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
		proved:  make(map[[sha256.Size]byte]atcrypto.PublicKey),
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

func (m *Memory) setIssuer(k issuerKey, e issuerEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.issuers, k, maxIssuers)
	m.issuers[k] = e
}

// isProved says whether the token with this hash has been seen to be signed by key. A key
// that was fetched anew counts as another, so that nothing outlives a rotation.
func (m *Memory) isProved(token [sha256.Size]byte, key atcrypto.PublicKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proved[token] == key
}

func (m *Memory) setProved(token [sha256.Size]byte, key atcrypto.PublicKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.proved, token, maxProved)
	m.proved[token] = key
}

// makeRoom forgets an entry at random where a new one would be too many: what is forgotten
// can be found out again.
func makeRoom[K comparable, V any](m map[K]V, k K, most int) {
	if _, known := m[k]; known || len(m) < most {
		return
	}
	for other := range m {
		delete(m, other)
		return
	}
}
