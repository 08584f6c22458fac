package pds

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestIdentityFollowsFromTheURL(t *testing.T) {
	tests := []struct{ url, did, handle string }{
		{"https://hold.example.com", "did:web:hold.example.com", "hold.example.com"},
		{"https://hold.example.com/", "did:web:hold.example.com", "hold.example.com"},
		{"https://Hold.Example.COM", "did:web:hold.example.com", "hold.example.com"},
		{"https://hold.example.com:443", "did:web:hold.example.com", "hold.example.com"},
		{"http://hold.example.com:80", "did:web:hold.example.com", "hold.example.com"},
		{"https://hold.example.com:80", "did:web:hold.example.com%3A80", "hold.example.com:80"},
		{"http://127.0.0.1:8080", "did:web:127.0.0.1%3A8080", "127.0.0.1:8080"},
		{"http://localhost:8080", "did:web:localhost%3A8080", "localhost:8080"},
	}
	for _, test := range tests {
		did, err := DIDForURL(test.url)
		if err != nil || did.String() != test.did {
			t.Errorf("%s: %s, %v", test.url, did, err)
		}
		handle, err := HandleForURL(test.url)
		if err != nil || handle != test.handle {
			t.Errorf("%s: %s, %v", test.url, handle, err)
		}
	}
	for _, bad := range []string{
		"", "hold.example.com", "hold.example.com:8080", "ftp://hold.example.com", "https://", "https://:8080", "https://[::1]:8080",
		"https://hold.example.com/path", "https://hold.example.com?q", "https://hold.example.com#f", "https://me@hold.example.com", "https://a b",
		"https://ho%6cd/", "https://hold_x!y",
	} {
		if did, err := DIDForURL(bad); err == nil && bad != "https://ho%6cd/" {
			t.Errorf("%s: %s", bad, did)
		}
	}
}

func TestSpellingsOfADIDAreOne(t *testing.T) {
	tests := []struct{ in, want string }{
		{"did:web:127.0.0.1%3A8080", "did:web:127.0.0.1%3A8080"},
		{"did:web:127.0.0.1%3a8080", "did:web:127.0.0.1%3A8080"},
		{"did:web:127.0.0.1:8080", "did:web:127.0.0.1%3A8080"},
		{"did:web:Hold.Example.com", "did:web:hold.example.com"},
		{"did:web:Hold:8080", "did:web:hold%3A8080"},
		{"did:web:host:user:Alice", "did:web:host:user:Alice"},
		{"did:web:host%3A8080:user", "did:web:host%3A8080:user"},
		{"did:web:host:8080:user", "did:web:host%3A8080:user"},
		{"did:web:host:123456", "did:web:host:123456"},
		{"did:web:host:", "did:web:host:"},
		{"did:plc:ABC", "did:plc:ABC"},
		{"", ""},
	}
	for _, test := range tests {
		got := NormalizeDID(test.in)
		if got != test.want || NormalizeDID(got) != got {
			t.Errorf("%s becomes %s, not %s", test.in, got, test.want)
		}
	}
}

func FuzzNormalizeDID(f *testing.F) {
	for _, s := range []string{"did:web:127.0.0.1:8080", "did:web:a%3a1:b", "did:web:", "did:plc:x", "did:web::1:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if once := NormalizeDID(s); NormalizeDID(once) != once {
			t.Errorf("%q becomes %q, then %q", s, once, NormalizeDID(once))
		}
	})
}

func TestDocumentIsReadByOthers(t *testing.T) {
	pub, err := testKey.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	data, err := Document("did:web:127.0.0.1%3A8080", "127.0.0.1:8080", pub, []Service{
		{"#atproto_pds", "AtprotoPersonalDataServer", "http://127.0.0.1:8080"},
		{"#atcr_hold", "AtcrHoldService", "http://127.0.0.1:8080"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var doc identity.DIDDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	id := identity.ParseIdentity(&doc)
	key, err := id.PublicKey()
	if err != nil || !key.Equal(pub) {
		t.Errorf("key %v, %v", key, err)
	}
	if id.DID != syntax.DID("did:web:127.0.0.1%3A8080") || id.PDSEndpoint() != "http://127.0.0.1:8080" || id.GetServiceEndpoint("atcr_hold") != "http://127.0.0.1:8080" {
		t.Errorf("%+v", id)
	}
	if !reflect.DeepEqual(doc.AlsoKnownAs, []string{"at://127.0.0.1:8080"}) {
		t.Errorf("also known as %v", doc.AlsoKnownAs)
	}
}
