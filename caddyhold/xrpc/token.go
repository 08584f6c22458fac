package xrpc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// Bounds of service tokens.
const (
	maxTokenSize      = 8 << 10
	clockSkew         = 30 * time.Second
	maxLifetime       = time.Hour
	maxStrictLifetime = 5 * time.Minute
)

// compatibleLXM is what AppViews name as method in tokens for every call.
const compatibleLXM = "com.atproto.repo.getRecord"

// tokenError is a 401 with the name that inter-service auth has for what is wrong.
func tokenError(name, format string, args ...any) *Error {
	return &Error{Status: http.StatusUnauthorized, Name: name, Message: fmt.Sprintf(format, args...)}
}

// verifier checks service tokens (https://atproto.com/specs/xrpc#inter-service-authentication-jwt):
// JWTs by which a user's PDS says that the user makes this call.
type verifier struct {
	audience string // the hold's DID, normalized
	own      atcrypto.PublicKey
	strict   bool
	issuers  *issuers
	memory   *Memory
	now      func() time.Time
}

func newVerifier(o Options) *verifier {
	repo := o.Hold.Repo()
	own, err := repo.Key().PublicKey()
	if err != nil {
		panic("signing key without public key: " + err.Error()) // a K-256 key always has one
	}
	return &verifier{
		audience: pds.NormalizeDID(repo.DID().String()),
		own:      own,
		strict:   o.StrictTokens,
		issuers:  newIssuers(o),
		memory:   o.Memory,
		now:      time.Now,
	}
}

// token is a JWT taken apart, not yet believed.
type token struct {
	header struct {
		Type      string          `json:"typ"`
		Algorithm string          `json:"alg"`
		KeyID     *string         `json:"kid"`
		Critical  json.RawMessage `json:"crit"`
	}
	claims struct {
		Issuer    string   `json:"iss"`
		Audience  any      `json:"aud"`
		Expires   *float64 `json:"exp"`
		IssuedAt  *float64 `json:"iat"`
		NotBefore *float64 `json:"nbf"`
		Method    *string  `json:"lxm"`
		ID        string   `json:"jti"`
	}
	signed    []byte
	signature []byte
}

// verify returns the token, and the DID that it proves, for a call of method. Its errors
// are of type *Error, or that of ctx.
func (v *verifier) verify(ctx context.Context, raw, method string) (*token, string, error) {
	t, err := parseToken(raw)
	if err != nil {
		return nil, "", tokenError("BadJwt", "the token is malformed: %s", err)
	}
	if err := t.checkHeader(); err != nil {
		return nil, "", err
	}
	if err := v.checkTimes(t); err != nil {
		return nil, "", err
	}
	issuer, err := v.checkIssuer(t)
	if err != nil {
		return nil, "", err
	}
	if err := v.checkAudience(t); err != nil {
		return nil, "", err
	}
	if err := v.checkMethod(t, method); err != nil {
		return nil, "", err
	}
	if err := v.checkSignature(ctx, t, issuer); err != nil {
		return nil, "", err
	}
	return t, issuer.String(), nil
}

func parseToken(raw string) (*token, error) {
	if len(raw) > maxTokenSize {
		return nil, fmt.Errorf("it is longer than %d bytes", maxTokenSize)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("it has not three parts")
	}
	t := new(token)
	decode := base64.RawURLEncoding.Strict().DecodeString
	for i, into := range []any{&t.header, &t.claims} {
		b, err := decode(parts[i])
		if err != nil {
			return nil, errors.New("a part is not base64url")
		}
		if err := json.Unmarshal(b, into); err != nil {
			return nil, errors.New("a part is not the JSON of a token")
		}
	}
	var err error
	if t.signature, err = decode(parts[2]); err != nil {
		return nil, errors.New("the signature is not base64url")
	}
	t.signed = []byte(parts[0] + "." + parts[1])
	return t, nil
}

// checkHeader refuses tokens made for something else: OAuth access and refresh tokens, DPoP
// proofs, and those signed with another key than the account's.
func (t *token) checkHeader() error {
	switch strings.TrimPrefix(strings.ToLower(t.header.Type), "application/") {
	case "at+jwt", "refresh+jwt", "dpop+jwt":
		return tokenError("BadJwtType", "a token of type %q is no service token", t.header.Type)
	}
	if t.header.Algorithm != "ES256K" && t.header.Algorithm != "ES256" {
		return tokenError("BadJwt", "alg must be ES256K or ES256")
	}
	if t.header.KeyID != nil && *t.header.KeyID != "#atproto" {
		return tokenError("BadJwt", "kid must be absent or #atproto")
	}
	if t.header.Critical != nil {
		return tokenError("BadJwt", "crit is not supported")
	}
	return nil
}

func (v *verifier) checkTimes(t *token) error {
	c := t.claims
	if c.Expires == nil {
		return tokenError("BadJwt", "exp is missing")
	}
	now := float64(v.now().Unix())
	skew := clockSkew.Seconds()
	if *c.Expires <= now-skew {
		return tokenError("JwtExpired", "the token has expired")
	}
	longest, made := maxLifetime, now
	if v.strict {
		longest = maxStrictLifetime
		if c.IssuedAt != nil {
			made = min(made, *c.IssuedAt+skew)
		}
	}
	if *c.Expires > made+longest.Seconds()+skew {
		return tokenError("BadJwt", "the token lives for more than %s", longest)
	}
	if c.IssuedAt != nil && *c.IssuedAt > now+skew {
		return tokenError("BadJwt", "iat is in the future")
	}
	if c.NotBefore != nil && *c.NotBefore > now+skew {
		return tokenError("BadJwt", "the token is not valid yet")
	}
	return nil
}

func (v *verifier) checkIssuer(t *token) (syntax.DID, error) {
	if strings.Contains(t.claims.Issuer, "#") {
		return "", tokenError("BadJwtIss", "iss must be a DID without fragment")
	}
	did, err := syntax.ParseDID(pds.NormalizeDID(t.claims.Issuer))
	if err != nil {
		return "", tokenError("BadJwtIss", "iss is not a DID")
	}
	if m := did.Method(); m != "plc" && m != "web" {
		return "", tokenError("BadJwtIss", "iss must be a did:plc or a did:web")
	}
	return did, nil
}

func (v *verifier) checkAudience(t *token) error {
	audience, _ := t.claims.Audience.(string)
	did, fragment, found := strings.Cut(audience, "#")
	if pds.NormalizeDID(did) != v.audience || found && fragment != "atcr_hold" && fragment != "atproto_pds" {
		return tokenError("BadJwtAudience", "aud must be %s", v.audience)
	}
	return nil
}

func (v *verifier) checkMethod(t *token, method string) error {
	lxm := t.claims.Method
	switch {
	case lxm != nil && *lxm == method:
		return nil
	case !v.strict && (lxm == nil || *lxm == compatibleLXM):
		return nil
	case lxm == nil:
		return tokenError("BadJwtLexiconMethod", "lxm is missing: it must be %s", method)
	}
	return tokenError("BadJwtLexiconMethod", "lxm must be %s", method)
}

// checkSignature finds the issuer's key. Keys rotate, so a signature that does not fit has
// the key fetched anew, once.
func (v *verifier) checkSignature(ctx context.Context, t *token, issuer syntax.DID) error {
	if issuer.String() == v.audience {
		return v.checkSignedBy(t, v.own)
	}
	key, err := v.issuers.key(ctx, issuer)
	if err != nil {
		return err
	}
	err = v.checkSignedBy(t, key)
	if err == nil {
		return nil
	}
	fresh, lookupErr := v.issuers.refresh(ctx, issuer)
	if lookupErr != nil || fresh.Equal(key) {
		return err
	}
	return v.checkSignedBy(t, fresh)
}

// checkSignedBy verifies a signature once: AppViews make many calls with one token.
func (v *verifier) checkSignedBy(t *token, key atcrypto.PublicKey) error {
	hash := sha256.Sum256(slices.Concat(t.signed, t.signature))
	if v.memory.isProved(hash, key) {
		return nil
	}
	if err := t.checkSignedBy(key); err != nil {
		return err
	}
	v.memory.setProved(hash, key)
	return nil
}

// checkSignedBy accepts high-S signatures too: unlike commits, JWTs come from libraries that
// do not normalize, and nothing here depends on a signature being the only one.
func (t *token) checkSignedBy(key atcrypto.PublicKey) error {
	algorithm := "ES256"
	if _, ok := key.(*atcrypto.PublicKeyK256); ok {
		algorithm = "ES256K"
	}
	if t.header.Algorithm != algorithm {
		return tokenError("BadJwtSignature", "alg does not fit the issuer's key")
	}
	if key.HashAndVerifyLenient(t.signed, t.signature) != nil {
		return tokenError("BadJwtSignature", "the signature is not the issuer's")
	}
	return nil
}

// spend uses up a token that is about to change something, where tokens are strict.
func (v *verifier) spend(t *token) error {
	if !v.strict {
		return nil
	}
	if t.claims.ID == "" {
		return tokenError("BadJwt", "jti is missing")
	}
	expires := time.Unix(int64(*t.claims.Expires), 0).Add(clockSkew)
	switch used, full := v.memory.spend(t.claims.Issuer, t.claims.ID, expires, v.now()); {
	case used:
		return tokenError("BadJwt", "the token has been used")
	case full:
		return &Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "too many tokens have been used", RetryAfter: retryAfter}
	}
	return nil
}

// bearer returns the service token of a request, or nothing if it carries none.
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", tokenError("BadJwt", "there is more than one Authorization header")
	}
	scheme, raw, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", tokenError("AuthRequired", "use Authorization: Bearer with a service token")
	}
	if raw = strings.TrimSpace(raw); raw == "" {
		return "", tokenError("BadJwt", "the token is empty")
	}
	return raw, nil
}
