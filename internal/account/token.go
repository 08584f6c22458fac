package account

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"time"
)

// TokenLife is how long a PDS lets a service token live, if nobody asks for another time.
const TokenLife = time.Minute

// Token is a JWT before it is signed. Tests change, add and delete fields at will.
type Token struct {
	Header map[string]any
	Claims map[string]any
}

// NewToken returns the service token that the account's PDS makes for an audience (a hold's DID) and a method (NSID; empty:
// any). Tokens for uploads and pulls that AppViews get name com.atproto.repo.getRecord, whatever they call with it.
func (a *Account) NewToken(audience, method string) Token {
	now := time.Now()
	token := Token{
		Header: map[string]any{"typ": "JWT", "alg": string(a.signer().algorithm)},
		Claims: map[string]any{
			"iss": a.DID.String(),
			"aud": audience,
			"iat": now.Unix(),
			"exp": now.Add(TokenLife).Unix(),
			"jti": rand.Text(),
		},
	}
	if method != "" {
		token.Claims["lxm"] = method
	}
	return token
}

// Sign makes a JWT of the token with the account's key, whatever the token claims.
func (a *Account) Sign(token Token) string {
	signed := encode(token.Header) + "." + encode(token.Claims)
	signature, err := a.signer().HashAndSign([]byte(signed))
	if err != nil {
		panic(err) // signing in memory does not fail
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// ServiceToken is a signed [Account.NewToken].
func (a *Account) ServiceToken(audience, method string) string {
	return a.Sign(a.NewToken(audience, method))
}

func encode(fields map[string]any) string {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err) // a test put something into the token that is not JSON
	}
	return base64.RawURLEncoding.EncodeToString(text)
}
