package account

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Directory is a PLC directory on loopback: GET /{did} answers with the DID document.
type Directory struct {
	URL string

	mu       sync.Mutex
	accounts map[string]*Account
	lookups  map[string]int
}

// NewDirectory starts a directory without accounts, until the test ends.
func NewDirectory(t testing.TB) *Directory {
	t.Helper()
	d := &Directory{accounts: make(map[string]*Account), lookups: make(map[string]int)}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	d.URL = server.URL
	return d
}

// New adds an account with a did:plc and a key of the given type.
func (d *Directory) New(t testing.TB, handle string, key KeyType) *Account {
	t.Helper()
	a := &Account{
		DID:    syntax.DID("did:plc:" + strings.ToLower(rand.Text()[:24])),
		Handle: handle,
		key:    newKey(t, key),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accounts[a.DID.String()] = a
	return a
}

// Lookups counts how often somebody asked for a DID.
func (d *Directory) Lookups(did syntax.DID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lookups[did.String()]
}

// ServeHTTP answers as a PLC directory does.
func (d *Directory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	did := strings.TrimPrefix(r.URL.Path, "/")
	d.mu.Lock()
	account := d.accounts[did]
	d.lookups[did]++
	d.mu.Unlock()
	if account == nil {
		http.Error(w, `{"message":"DID not registered"}`, http.StatusNotFound)
		return
	}
	account.serveDocument(w)
}

// NewWeb makes an account with a did:web of a loopback host and port, whose document is served over http until the test
// ends. Production resolvers refuse such DIDs; a hold in test mode takes them.
func NewWeb(t testing.TB, key KeyType) *Account {
	t.Helper()
	a := &Account{key: newKey(t, key)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/did.json" {
			http.NotFound(w, r)
			return
		}
		a.serveDocument(w)
	}))
	t.Cleanup(server.Close)
	a.Handle = strings.TrimPrefix(server.URL, "http://")
	a.DID = syntax.DID("did:web:" + url.QueryEscape(a.Handle))
	return a
}

func (a *Account) serveDocument(w http.ResponseWriter) {
	doc := identity.DIDDocument{
		DID:         a.DID,
		AlsoKnownAs: []string{"at://" + a.Handle},
		VerificationMethod: []identity.DocVerificationMethod{{
			ID:                 a.DID.String() + "#atproto",
			Type:               "Multikey",
			Controller:         a.DID.String(),
			PublicKeyMultibase: a.publicKey(),
		}},
		Service: []identity.DocService{{
			ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", ServiceEndpoint: "https://pds.invalid",
		}},
	}
	w.Header().Set("Content-Type", "application/did+ld+json")
	_ = json.NewEncoder(w).Encode(doc) // the client is gone
}
