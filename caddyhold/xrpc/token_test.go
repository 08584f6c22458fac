package xrpc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	testHold   = "did:web:127.0.0.1%3A8080"
	testUser   = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	testMethod = "io.atcr.hold.initiateUpload"
)

// directory is a resolver whose documents a test can change; it counts lookups.
type directory struct {
	mu      sync.Mutex
	keys    map[syntax.DID]atcrypto.PublicKey
	lookups int
	fail    error
}

func (d *directory) ResolveDID(_ context.Context, did syntax.DID) (*identity.DIDDocument, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups++
	if d.fail != nil {
		return nil, d.fail
	}
	key := d.keys[did]
	if key == nil {
		return nil, identity.ErrDIDNotFound
	}
	return &identity.DIDDocument{DID: did, VerificationMethod: []identity.DocVerificationMethod{{
		ID: did.String() + "#atproto", Type: "Multikey", Controller: did.String(), PublicKeyMultibase: key.Multibase(),
	}}}, nil
}

func (d *directory) ResolveDIDRaw(context.Context, syntax.DID) (json.RawMessage, error) {
	return nil, errors.ErrUnsupported
}

func (d *directory) ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error) {
	return "", errors.ErrUnsupported
}

func (d *directory) ResolveNSID(context.Context, syntax.NSID) (syntax.DID, error) {
	return "", errors.ErrUnsupported
}

func (d *directory) set(did syntax.DID, key atcrypto.PrivateKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys == nil {
		d.keys = make(map[syntax.DID]atcrypto.PublicKey)
	}
	d.keys[did] = public(key)
}

func public(key atcrypto.PrivateKey) atcrypto.PublicKey {
	p, err := key.PublicKey()
	if err != nil {
		panic(err)
	}
	return p
}

func k256(t testing.TB) atcrypto.PrivateKey {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func p256(t testing.TB) atcrypto.PrivateKey {
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testVerifier(t testing.TB, strict bool) (*verifier, *directory, atcrypto.PrivateKey) {
	d := &directory{}
	own := k256(t)
	memory := NewMemory()
	return &verifier{
		audience: testHold, own: public(own), strict: strict, now: time.Now, memory: memory,
		issuers: &issuers{directory: "test", plc: d, web: d, memory: memory},
	}, d, own
}

// call is a call with a token, that changes something or not.
func (v *verifier) call(t testing.TB, raw string, write bool) (string, error) {
	proof, did, err := v.verify(t.Context(), raw, testMethod)
	if err == nil && write {
		err = v.spend(proof)
	}
	if err != nil {
		return "", err
	}
	return did, nil
}

type fields map[string]any

// sign makes a token; nil values remove a default.
func sign(t testing.TB, key atcrypto.PrivateKey, header, claims fields) string {
	t.Helper()
	h := fields{"typ": "JWT", "alg": "ES256K"}
	if _, ok := key.(*atcrypto.PrivateKeyP256); ok {
		h["alg"] = "ES256"
	}
	now := time.Now().Unix()
	c := fields{"iss": testUser, "aud": testHold, "iat": now, "exp": now + 60, "jti": fmt.Sprint(time.Now().UnixNano()), "lxm": testMethod}
	part := func(defaults, set fields) string {
		for k, v := range set {
			if v == nil {
				delete(defaults, k)
			} else {
				defaults[k] = v
			}
		}
		b, err := json.Marshal(defaults)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(h, header) + "." + part(c, claims)
	sig, err := key.HashAndSign([]byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestTokens(t *testing.T) {
	now := time.Now().Unix()
	user := k256(t)
	userP := p256(t)
	const webUser = "did:web:user.example.com"

	cases := []struct {
		name   string
		strict bool
		key    atcrypto.PrivateKey // default: user
		header fields
		claims fields
		want   string // error name, empty for a valid token
	}{
		{name: "as a PDS makes it"},
		{name: "without lxm", claims: fields{"lxm": nil}},
		{name: "with the lxm that AppViews use", claims: fields{"lxm": "com.atproto.repo.getRecord"}},
		{name: "with another lxm", claims: fields{"lxm": "io.atcr.hold.requestCrew"}, want: "BadJwtLexiconMethod"},
		{name: "aud with #atcr_hold", claims: fields{"aud": testHold + "#atcr_hold"}},
		{name: "aud with #atproto_pds", claims: fields{"aud": testHold + "#atproto_pds"}},
		{name: "aud with another fragment", claims: fields{"aud": testHold + "#other"}, want: "BadJwtAudience"},
		{name: "aud with an empty fragment", claims: fields{"aud": testHold + "#"}, want: "BadJwtAudience"},
		{name: "aud with the port's colon", claims: fields{"aud": "did:web:127.0.0.1:8080"}},
		{name: "aud of another hold", claims: fields{"aud": "did:web:other.example.com"}, want: "BadJwtAudience"},
		{name: "aud missing", claims: fields{"aud": nil}, want: "BadJwtAudience"},
		{name: "aud a list", claims: fields{"aud": []string{testHold}}, want: "BadJwtAudience"},
		{name: "iss missing", claims: fields{"iss": nil}, want: "BadJwtIss"},
		{name: "iss no DID", claims: fields{"iss": "alice.example.com"}, want: "BadJwtIss"},
		{name: "iss with a fragment", claims: fields{"iss": testUser + "#atproto"}, want: "BadJwtIss"},
		{name: "iss of another method", claims: fields{"iss": "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme"}, want: "BadJwtIss"},
		{name: "iss that nobody knows", claims: fields{"iss": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}, want: "BadJwtIss"},
		{name: "did:web issuer with P-256", key: userP, claims: fields{"iss": webUser}},
		{name: "exp missing", claims: fields{"exp": nil}, want: "BadJwt"},
		{name: "exp past", claims: fields{"exp": now - 31}, want: "JwtExpired"},
		{name: "exp past, within the skew", claims: fields{"exp": now - 20}},
		{name: "exp an hour ahead", claims: fields{"exp": now + 3600}},
		{name: "exp over an hour ahead", claims: fields{"exp": now + 3700}, want: "BadJwt"},
		{name: "exp no number", claims: fields{"exp": "soon"}, want: "BadJwt"},
		{name: "iat in the future", claims: fields{"iat": now + 40}, want: "BadJwt"},
		{name: "iat ahead, within the skew", claims: fields{"iat": now + 20}},
		{name: "nbf in the future", claims: fields{"nbf": now + 40}, want: "BadJwt"},
		{name: "without jti and iat", claims: fields{"jti": nil, "iat": nil}},
		{name: "typ missing", header: fields{"typ": nil}},
		{name: "typ of an access token", header: fields{"typ": "at+jwt"}, want: "BadJwtType"},
		{name: "typ of an access token, written out", header: fields{"typ": "application/AT+JWT"}, want: "BadJwtType"},
		{name: "typ of a refresh token", header: fields{"typ": "refresh+jwt"}, want: "BadJwtType"},
		{name: "typ of a DPoP proof", header: fields{"typ": "dpop+jwt"}, want: "BadJwtType"},
		{name: "kid #atproto", header: fields{"kid": "#atproto"}},
		{name: "kid of another key", header: fields{"kid": "#rotation"}, want: "BadJwt"},
		{name: "alg none", header: fields{"alg": "none"}, want: "BadJwt"},
		{name: "alg HS256", header: fields{"alg": "HS256"}, want: "BadJwt"},
		{name: "alg of the other curve", header: fields{"alg": "ES256"}, want: "BadJwtSignature"},
		{name: "crit", header: fields{"crit": []string{"b64"}}, want: "BadJwt"},
		{name: "signed by somebody else", key: k256(t), want: "BadJwtSignature"},

		{name: "strict: as a PDS makes it", strict: true},
		{name: "strict: without lxm", strict: true, claims: fields{"lxm": nil}, want: "BadJwtLexiconMethod"},
		{name: "strict: with the lxm that AppViews use", strict: true, claims: fields{"lxm": "com.atproto.repo.getRecord"}, want: "BadJwtLexiconMethod"},
		{name: "strict: without jti", strict: true, claims: fields{"jti": nil}, want: "BadJwt"},
		{name: "strict: made over five minutes before exp", strict: true, claims: fields{"iat": now - 300, "exp": now + 100}, want: "BadJwt"},
		{name: "strict: exp over five minutes ahead", strict: true, claims: fields{"exp": now + 400}, want: "BadJwt"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, d, _ := testVerifier(t, c.strict)
			d.set(testUser, user)
			d.set(webUser, userP)
			key := c.key
			if key == nil {
				key = user
			}
			did, err := v.call(t, sign(t, key, c.header, c.claims), true)
			if got := errorName(err); got != c.want {
				t.Fatalf("error %q (%v), want %q", got, err, c.want)
			}
			if c.want != "" {
				if e := asError(err); e.Status != http.StatusUnauthorized {
					t.Errorf("status %d, want 401", e.Status)
				}
				return
			}
			want := testUser
			if iss, ok := c.claims["iss"].(string); ok {
				want = iss
			}
			if did != want {
				t.Errorf("proves %s, want %s", did, want)
			}
		})
	}
}

func errorName(err error) string {
	if err == nil {
		return ""
	}
	return asError(err).Name
}

func TestMalformedTokens(t *testing.T) {
	v, d, _ := testVerifier(t, false)
	user := k256(t)
	d.set(testUser, user)
	good := sign(t, user, nil, nil)
	parts := strings.Split(good, ".")
	for name, raw := range map[string]string{
		"empty":               "",
		"one part":            parts[0],
		"two parts":           parts[0] + "." + parts[1],
		"four parts":          good + ".x",
		"padded":              parts[0] + "=." + parts[1] + "." + parts[2],
		"no base64":           "!." + parts[1] + "." + parts[2],
		"header no JSON":      "bm8." + parts[1] + "." + parts[2],
		"claims an array":     parts[0] + ".W10." + parts[2],
		"signature no base64": parts[0] + "." + parts[1] + ".!",
		"longer than 8 KiB":   good + strings.Repeat("A", 8<<10),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := v.call(t, raw, false); errorName(err) != "BadJwt" {
				t.Errorf("%v, want BadJwt", err)
			}
		})
	}
	t.Run("signature cut short", func(t *testing.T) {
		raw := parts[0] + "." + parts[1] + "." + parts[2][:40]
		if _, err := v.call(t, raw, false); errorName(err) != "BadJwtSignature" {
			t.Errorf("%v, want BadJwtSignature", err)
		}
	})
	t.Run("claims changed after signing", func(t *testing.T) {
		other := strings.Split(sign(t, user, nil, fields{"sub": "did:plc:captain"}), ".")
		if _, err := v.call(t, parts[0]+"."+other[1]+"."+parts[2], false); errorName(err) != "BadJwtSignature" {
			t.Errorf("%v, want BadJwtSignature", err)
		}
	})
}

func TestOneTokenServesManyCalls(t *testing.T) {
	v, d, _ := testVerifier(t, false)
	user := k256(t)
	d.set(testUser, user)
	raw := sign(t, user, nil, fields{"lxm": nil})
	for i := range 10 {
		if _, err := v.call(t, raw, true); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if d.lookups != 1 {
		t.Errorf("%d lookups of the issuer, want 1", d.lookups)
	}
}

func TestStrictTokenWritesOnce(t *testing.T) {
	v, d, _ := testVerifier(t, true)
	user := k256(t)
	d.set(testUser, user)
	raw := sign(t, user, nil, nil)
	for i, c := range []struct {
		write bool
		want  string
	}{{false, ""}, {false, ""}, {true, ""}, {true, "BadJwt"}} {
		if _, err := v.call(t, raw, c.write); errorName(err) != c.want {
			t.Errorf("call %d (write %t): %v, want %q", i, c.write, err, c.want)
		}
	}
}

func TestHoldsOwnKeySignsForItself(t *testing.T) {
	v, d, own := testVerifier(t, false)
	did, err := v.call(t, sign(t, own, nil, fields{"iss": testHold}), true)
	if err != nil || did != testHold {
		t.Errorf("verify = %s, %v, want %s", did, err, testHold)
	}
	if _, err := v.call(t, sign(t, k256(t), nil, fields{"iss": testHold}), true); errorName(err) != "BadJwtSignature" {
		t.Errorf("signed by another key: %v, want BadJwtSignature", err)
	}
	if d.lookups != 0 {
		t.Errorf("%d lookups, want none: the key is here", d.lookups)
	}
}

func TestRotatedKeyIsFetchedOnceAMinute(t *testing.T) {
	v, d, _ := testVerifier(t, false)
	old, rotated := k256(t), k256(t)
	d.set(testUser, old)
	if _, err := v.call(t, sign(t, old, nil, nil), true); err != nil {
		t.Fatal(err)
	}
	d.set(testUser, rotated)

	var wg sync.WaitGroup
	for range 20 { // all at once, as AppViews call
		wg.Go(func() {
			if _, err := v.call(t, sign(t, rotated, nil, nil), true); err != nil {
				t.Errorf("signed with the new key: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := v.call(t, sign(t, old, nil, nil), true); errorName(err) != "BadJwtSignature" {
		t.Errorf("signed with the old key: %v, want BadJwtSignature", err)
	}
	before := d.lookups
	for range 20 {
		_, _ = v.call(t, sign(t, k256(t), nil, nil), true)
	}
	if d.lookups != before {
		t.Errorf("%d more lookups for bad signatures within a minute, want none", d.lookups-before)
	}
}

func TestDirectoryAwayIsNoDenial(t *testing.T) {
	v, d, _ := testVerifier(t, false)
	user := k256(t)
	d.set(testUser, user)
	d.fail = errors.New("connection refused")
	_, err := v.call(t, sign(t, user, nil, nil), true)
	if e := asError(err); e.Status != http.StatusServiceUnavailable || e.RetryAfter == 0 {
		t.Errorf("did:plc: %d %v, want 503 with Retry-After", e.Status, err)
	}
	_, err = v.call(t, sign(t, user, nil, fields{"iss": "did:web:nowhere.example.com"}), true)
	if errorName(err) != "BadJwtIss" {
		t.Errorf("did:web: %v, want BadJwtIss", err)
	}
}

func FuzzToken(f *testing.F) {
	user := k256(f)
	v, d, _ := testVerifier(f, true)
	d.set(testUser, user)
	f.Add(sign(f, user, nil, nil))
	f.Add(sign(f, user, fields{"kid": 7}, fields{"exp": 1e300}))
	f.Add("a.b.c")
	f.Add("")
	f.Fuzz(func(t *testing.T, raw string) {
		did, err := v.call(t, raw, false)
		if (err == nil) == (did == "") {
			t.Errorf("verify = %q, %v", did, err)
		}
		if err != nil && asError(err).Status != http.StatusUnauthorized {
			t.Errorf("status of %v is not 401", err)
		}
	})
}
