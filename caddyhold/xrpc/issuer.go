package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// How long what a DID document says, or that there is none, is believed, and how often a
// bad signature makes us look again.
const (
	keyLifetime     = 10 * time.Minute
	failureLifetime = 15 * time.Second
	refreshInterval = time.Minute
	lookupTimeout   = 10 * time.Second
)

// issuers finds the signing keys of accounts in their DID documents.
type issuers struct {
	directory string // names where lookups go, for the memory
	resolver  identity.Resolver
	memory    *Memory
}

func newIssuers(o Options) *issuers {
	plc := strings.TrimSuffix(o.PLCDirectory, "/")
	if plc == "" {
		plc = identity.DefaultPLCURL
	}
	client := guardedClient(plc, o.TestMode)
	var resolver identity.Resolver = &identity.BaseDirectory{PLCURL: plc, HTTPClient: *client}
	directory := plc
	if o.TestMode {
		resolver = &loopbackResolver{Resolver: resolver, client: client}
		directory += " and loopback"
	}
	return &issuers{directory: directory, resolver: resolver, memory: o.Memory}
}

// key returns the account's signing key. Its error is an *Error or that of ctx.
func (i *issuers) key(ctx context.Context, did syntax.DID) (atcrypto.PublicKey, error) {
	k := issuerKey{i.directory, did}
	if e, ok := i.memory.issuer(k); ok && e.fresh() {
		return e.result()
	}
	return i.lookup(ctx, k)
}

// refresh is key after a bad signature: it looks again, unless that has been done within
// the last minute.
func (i *issuers) refresh(ctx context.Context, did syntax.DID) (atcrypto.PublicKey, error) {
	k := issuerKey{i.directory, did}
	if e, ok := i.memory.issuer(k); ok && time.Since(e.refreshed) < refreshInterval {
		return e.result()
	}
	return i.lookup(ctx, k)
}

func (e issuerEntry) fresh() bool {
	if e.key == nil {
		return time.Since(e.fetched) < failureLifetime
	}
	return time.Since(e.fetched) < keyLifetime
}

func (e issuerEntry) result() (atcrypto.PublicKey, error) {
	if e.key == nil {
		return nil, e.err
	}
	return e.key, nil
}

// lookup asks the directory, once for all who ask at the same time, and remembers what it
// said. A lookup that fails takes no key away that is still believed.
func (i *issuers) lookup(ctx context.Context, k issuerKey) (atcrypto.PublicKey, error) {
	done := i.memory.lookups.DoChan(k.directory+" "+k.did.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		key, err := i.fetch(ctx, k.did)
		now := time.Now()
		e, known := i.memory.issuer(k)
		if err == nil || !known || e.key == nil || !e.fresh() {
			e = issuerEntry{key: key, err: err, fetched: now}
		}
		if known {
			e.refreshed = now
		}
		i.memory.setIssuer(k, e)
		return e, nil
	})
	select {
	case r := <-done:
		return r.Val.(issuerEntry).result()
	case <-ctx.Done(): // the lookup goes on for the others
		return nil, ctx.Err()
	}
}

// fetch reads the DID document. Only the PLC directory's being away is not the caller's
// fault: a 401 would be remembered by AppViews as a denial.
func (i *issuers) fetch(ctx context.Context, did syntax.DID) (atcrypto.PublicKey, *Error) {
	doc, err := i.resolver.ResolveDID(ctx, did)
	switch {
	case errors.Is(err, identity.ErrDIDNotFound):
		return nil, tokenError("BadJwtIss", "there is no %s", did)
	case err != nil && did.Method() == "plc":
		return nil, &Error{Status: http.StatusServiceUnavailable, Name: "DirectoryUnavailable", Message: "the PLC directory does not answer", RetryAfter: retryAfter}
	case err != nil:
		return nil, tokenError("BadJwtIss", "%s can not be resolved", did)
	}
	ident := identity.ParseIdentity(doc)
	key, err := ident.PublicKey()
	if err != nil {
		return nil, tokenError("BadJwtIss", "the DID document of %s has no usable #atproto key", did)
	}
	return key, nil
}

// loopbackResolver resolves did:web of loopback hosts over http, ports included, which
// ATProto does not allow: it is for test mode.
type loopbackResolver struct {
	identity.Resolver
	client *http.Client
}

// ResolveDID resolves a did:web on loopback, and any other DID as ever.
func (l *loopbackResolver) ResolveDID(ctx context.Context, did syntax.DID) (*identity.DIDDocument, error) {
	host, err := url.PathUnescape(did.Identifier())
	if did.Method() != "web" || err != nil || !isLoopbackHost(host) {
		return l.Resolver.ResolveDID(ctx, did)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/.well-known/did.json", nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: status %d", identity.ErrDIDNotFound, resp.StatusCode)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	doc := new(identity.DIDDocument)
	if err := json.Unmarshal(body, doc); err != nil {
		return nil, err
	}
	if doc.DID != did {
		return nil, errors.New("the document is another DID's")
	}
	return doc, nil
}
