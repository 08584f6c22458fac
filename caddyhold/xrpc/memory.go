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
	maxSpent   = 1000 // of one issuer
	maxExports = 32
	maxProved  = 10_000
	maxLookups = 32 // at once, of each DID method
)

// Memory is what a [Server] remembers from request to request and from configuration to
// configuration: the keys of token issuers, the tokens whose signature has been verified, the
// ids of tokens that are used up, and how many exports are under way.
type Memory struct {
	mu      sync.Mutex
	issuers map[issuerKey]issuerEntry       // that were found
	unknown map[issuerKey]issuerEntry       // that were not, apart so that they displace none
	spent   map[string]map[string]time.Time // issuer → jti → when the token expires
	proved  map[[sha256.Size]byte]atcrypto.PublicKey

	lookups singleflight.Group
	exports chan struct{}            // an element for each that is under way
	looking map[string]chan struct{} // DID method → an element for each lookup
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
		unknown: make(map[issuerKey]issuerEntry),
		spent:   make(map[string]map[string]time.Time),
		proved:  make(map[[sha256.Size]byte]atcrypto.PublicKey),
		exports: make(chan struct{}, maxExports),
		looking: map[string]chan struct{}{"plc": make(chan struct{}, maxLookups), "web": make(chan struct{}, maxLookups)},
	}
}

// spend notes an issuer's token until it expires. used says that it was noted before, full
// that so many of the issuer's are live that it was not noted.
func (m *Memory) spend(issuer, id string, expires, now time.Time) (used, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if until, known := m.spent[issuer][id]; known && now.Before(until) {
		return true, false
	}
	if len(m.spent[issuer]) >= maxSpent {
		dropExpired(m.spent[issuer], now)
	}
	if _, known := m.spent[issuer]; !known && len(m.spent) >= maxIssuers {
		for other, ids := range m.spent {
			if dropExpired(ids, now); len(ids) == 0 {
				delete(m.spent, other)
			}
		}
	}
	if len(m.spent[issuer]) >= maxSpent || len(m.spent) >= maxIssuers {
		return false, true
	}
	if m.spent[issuer] == nil {
		m.spent[issuer] = make(map[string]time.Time)
	}
	m.spent[issuer][id] = expires
	return false, false
}

func dropExpired(ids map[string]time.Time, now time.Time) {
	for id, until := range ids {
		if !now.Before(until) {
			delete(ids, id)
		}
	}
}

func (m *Memory) issuer(k issuerKey) (issuerEntry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.issuers[k]; ok {
		return e, ok
	}
	e, ok := m.unknown[k]
	return e, ok
}

func (m *Memory) setIssuer(k issuerKey, e issuerEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.issuers, k)
	delete(m.unknown, k)
	into := m.issuers
	if e.key == nil {
		into = m.unknown
	}
	makeRoom(into, k, maxIssuers)
	into[k] = e
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
