package account

import (
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// KeyType is the curve of an account's signing key.
type KeyType string

// The curves that ATProto knows.
const (
	K256 KeyType = "ES256K"
	P256 KeyType = "ES256"
)

// Account is a user with a DID, a handle and the key in their DID document.
type Account struct {
	DID    syntax.DID
	Handle string

	mu  sync.Mutex
	key signingKey
}

type signingKey struct {
	atcrypto.PrivateKey
	algorithm KeyType
}

func newKey(t testing.TB, algorithm KeyType) signingKey {
	t.Helper()
	var key atcrypto.PrivateKey
	var err error
	if algorithm == P256 {
		key, err = atcrypto.GeneratePrivateKeyP256()
	} else {
		key, err = atcrypto.GeneratePrivateKeyK256()
	}
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	return signingKey{key, algorithm}
}

// Rotate replaces the account's key: its document shows the new one, and it signs the tokens to come.
func (a *Account) Rotate(t testing.TB, algorithm KeyType) {
	t.Helper()
	key := newKey(t, algorithm)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key = key
}

func (a *Account) signer() signingKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key
}

func (a *Account) publicKey() string {
	public, err := a.signer().PublicKey()
	if err != nil {
		panic(err) // a private key always has a public one
	}
	return public.Multibase()
}
