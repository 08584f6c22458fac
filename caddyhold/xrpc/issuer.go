package xrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
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
	lookupPatience  = 2 * time.Second // for the turn of a lookup among many
)

// issuers finds the signing keys of accounts in their DID documents.
type issuers struct {
	directory string            // names where lookups go, for the memory
	plc       identity.Resolver // asks the configured directory
	web       identity.Resolver // asks whoever the caller names, and so is guarded
	memory    *Memory
}

func newIssuers(o Options) *issuers {
	i := &issuers{directory: strings.TrimSuffix(o.PLCDirectory, "/"), memory: o.Memory}
	if i.directory == "" {
		i.directory = identity.DefaultPLCURL
	}
	i.plc = &identity.BaseDirectory{PLCURL: i.directory, HTTPClient: *trustedClient()}
	client := guardedClient(o.TestMode)
	i.web = &identity.BaseDirectory{HTTPClient: *client}
	if o.TestMode {
		i.web = &loopbackResolver{Resolver: i.web, client: client}
		i.directory += " and loopback"
	}
	return i
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
		looking := i.memory.looking[k.did.Method()]
		select {
		case looking <- struct{}{}:
			defer func() { <-looking }()
		case <-time.After(lookupPatience):
			busy := &Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "too many identities are being looked up", RetryAfter: retryAfter}
			return issuerEntry{err: busy}, nil // says nothing of this one
		}
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
	resolver := i.web
	if did.Method() == "plc" {
		resolver = i.plc
	}
	var answered int
	doc, err := resolver.ResolveDID(context.WithValue(ctx, statusKey{}, &answered), did)
	away := !errors.Is(err, identity.ErrDIDNotFound) && (answered == 0 || answered >= 500 || answered == http.StatusTooManyRequests || answered == http.StatusRequestTimeout)
	switch {
	case err != nil && did.Method() == "plc" && away:
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

// loopbackHost is a host with an optional port, and nothing that a URL would take for more.
var loopbackHost = regexp.MustCompile(`^[0-9A-Za-z.-]+(:[0-9]{1,5})?$`)

// ResolveDID resolves a did:web on loopback, and any other DID as ever.
func (l *loopbackResolver) ResolveDID(ctx context.Context, did syntax.DID) (*identity.DIDDocument, error) {
	host, err := url.PathUnescape(did.Identifier())
	if did.Method() != "web" || err != nil || !loopbackHost.MatchString(host) || !isLoopbackHost(host) {
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
