package account_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/caddyhold/caddyhold/internal/account"
)

func TestIndigoResolvesAccountsAndTheirKeysVerifyTokens(t *testing.T) {
	directory := account.NewDirectory(t)
	resolver := &identity.BaseDirectory{PLCURL: directory.URL}
	for _, key := range []account.KeyType{account.K256, account.P256} {
		t.Run(string(key), func(t *testing.T) {
			alice := directory.New(t, "alice.test", key)
			verify(t, alice, resolve(t, resolver, alice.DID))
			alice.Rotate(t, key)
			verify(t, alice, resolve(t, resolver, alice.DID))
			if n := directory.Lookups(alice.DID); n != 2 {
				t.Errorf("%d lookups were counted, 2 made", n)
			}
		})
	}
	if _, err := resolver.ResolveDID(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"); !errors.Is(err, identity.ErrDIDNotFound) {
		t.Errorf("an unknown DID resolves to %v, want not found", err)
	}
}

func TestWebAccountServesItsDocument(t *testing.T) {
	bob := account.NewWeb(t, account.P256)
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + bob.Handle + "/.well-known/did.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var doc identity.DIDDocument
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.DID != bob.DID || !strings.Contains(doc.DID.String(), "%3A") {
		t.Errorf("document of %s, want %s with an encoded port", doc.DID, bob.DID)
	}
	verify(t, bob, &doc)
}

func resolve(t *testing.T, resolver identity.Resolver, did syntax.DID) *identity.DIDDocument {
	t.Helper()
	doc, err := resolver.ResolveDID(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func verify(t *testing.T, a *account.Account, doc *identity.DIDDocument) {
	t.Helper()
	parsed := identity.ParseIdentity(doc)
	key, err := parsed.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	token := a.ServiceToken("did:web:hold.test", "io.atcr.hold.initiateUpload")
	signed := token[:strings.LastIndex(token, ".")]
	signature, err := base64.RawURLEncoding.DecodeString(token[len(signed)+1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := key.HashAndVerify([]byte(signed), signature); err != nil {
		t.Errorf("the key of the document does not verify a token: %v", err)
	}
}
