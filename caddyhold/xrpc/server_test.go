package xrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/internal/account"
)

func TestIdentity(t *testing.T) {
	h := open(t, hold.Policy{})
	host := strings.TrimPrefix(h.url, "http://")
	doc := h.works(h.get(nil, "/.well-known/did.json")).json(t)
	if want := "did:web:" + strings.Replace(host, ":", "%3A", 1); doc["id"] != want {
		t.Errorf("id %v, want %s", doc["id"], want)
	}
	if want := []any{"at://" + host}; !slices.Equal(doc["alsoKnownAs"].([]any), want) {
		t.Errorf("alsoKnownAs %v, want %v", doc["alsoKnownAs"], want)
	}
	var services []string
	for _, s := range doc["service"].([]any) {
		s := s.(map[string]any)
		services = append(services, fmt.Sprint(s["id"], " ", s["type"], " ", s["serviceEndpoint"]))
	}
	if want := []string{"#atproto_pds AtprotoPersonalDataServer " + h.url, "#atcr_hold AtcrHoldService " + h.url}; !slices.Equal(services, want) {
		t.Errorf("services %q, want %q", services, want)
	}

	a := h.works(h.get(nil, "/.well-known/atproto-did"))
	if string(a.body) != h.did || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("atproto-did is %q (%s)", a.body, a.Header.Get("Content-Type"))
	}
	if got := h.works(h.get(nil, "_health")).json(t)["version"]; got != "1.2.3" {
		t.Errorf("version %v", got)
	}
	if got := h.works(h.get(nil, "com.atproto.server.describeServer")).json(t)["did"]; got != h.did {
		t.Errorf("describeServer says %v", got)
	}
	if got := h.works(h.get(nil, "com.atproto.identity.resolveHandle?handle="+host)).json(t)["did"]; got != h.did {
		t.Errorf("resolveHandle says %v", got)
	}
	h.fails(h.get(nil, "com.atproto.identity.resolveHandle?handle=else.where"), http.StatusBadRequest, "HandleNotFound")
	h.fails(h.get(nil, "com.atproto.identity.resolveHandle"), http.StatusBadRequest, "InvalidRequest")
}

func TestProtocolErrors(t *testing.T) {
	h := open(t, hold.Policy{})
	h.fails(h.get(nil, "io.atcr.hold.noSuchMethod"), http.StatusNotImplemented, "MethodNotImplemented")
	h.fails(h.get(nil, "com.atproto.server.getServiceAuth"), http.StatusNotImplemented, "MethodNotImplemented")
	h.fails(h.get(nil, "/xrpc/"), http.StatusNotImplemented, "MethodNotImplemented")

	a := h.get(nil, "io.atcr.hold.initiateUpload")
	h.fails(a, http.StatusMethodNotAllowed, "InvalidRequest")
	if got := a.Header.Get("Allow"); got != "POST" {
		t.Errorf("Allow is %q", got)
	}
	a = h.post(nil, "com.atproto.repo.getRecord", nil)
	h.fails(a, http.StatusMethodNotAllowed, "InvalidRequest")
	if got := a.Header.Get("Allow"); got != "GET, HEAD" {
		t.Errorf("Allow is %q", got)
	}
	h.fails(h.post(nil, "com.atproto.sync.subscribeRepos", nil), http.StatusMethodNotAllowed, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.subscribeRepos"), http.StatusUpgradeRequired, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.subscribeRepos?cursor=x"), http.StatusBadRequest, "InvalidRequest")

	for _, body := range []string{"[]", "null", "{", `"x"`, `{"uploadId": 7}`, "{}{}"} {
		h.fails(h.call(h.writer, http.MethodPost, "io.atcr.hold.getPartUploadUrl", strings.NewReader(body)), http.StatusBadRequest, "InvalidRequest")
	}
	h.fails(h.call(h.writer, http.MethodPost, "io.atcr.hold.initiateUpload", strings.NewReader("digest=x"), "Content-Type", "application/x-www-form-urlencoded"), http.StatusBadRequest, "InvalidRequest")
	h.fails(h.call(h.writer, http.MethodPost, "io.atcr.hold.initiateUpload", strings.NewReader(`{"digest":"`+strings.Repeat("x", 2<<20)+`"}`)), http.StatusRequestEntityTooLarge, "PayloadTooLarge")
	h.fails(h.get(nil, "com.atproto.repo.getRecord?%zz"), http.StatusBadRequest, "InvalidRequest")

	if a := h.get(nil, "/elsewhere"); a.StatusCode != http.StatusNotFound {
		t.Errorf("another path answers %d", a.StatusCode)
	}
}

func TestBrowsersMayCall(t *testing.T) {
	h := open(t, hold.Policy{})
	a := h.call(nil, http.MethodOptions, "io.atcr.hold.requestCrew", nil, "Origin", "https://atcr.example.com", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type")
	if a.StatusCode != http.StatusNoContent || a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Headers") != "authorization,content-type" || !strings.Contains(a.Header.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("preflight answers %d %v", a.StatusCode, a.Header)
	}
	for _, path := range []string{"/.well-known/did.json", "/.well-known/atproto-did", "_health", "io.atcr.hold.noSuchMethod"} {
		if got := h.get(nil, path).Header.Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("%s: Access-Control-Allow-Origin is %q", path, got)
		}
	}
}

// TestWhoMayCallWhat is the table of the contract, through HTTP: each caller against each
// endpoint that asks who calls.
func TestWhoMayCallWhat(t *testing.T) {
	h := open(t, hold.Policy{})
	digest := h.store(h.writer, "cargo")
	missing := digestOf("no such blob")
	upload := map[string]any{"uploadId": strings.Repeat("0", 32), "partNumber": 1, "digest": missing}
	manifest := map[string]any{"repository": "app", "userDid": h.captain.DID, "manifestDigest": missing, "operation": "push", "manifest": map[string]any{}}
	pull := map[string]any{"repository": "app", "userDid": h.captain.DID, "manifestDigest": missing, "operation": "pull", "manifest": map[string]any{}}
	record := map[string]any{"repo": h.did, "collection": "com.example.note", "rkey": "one", "record": map[string]any{"text": "ahoy"}}

	callers := []struct {
		name string
		as   *account.Account
	}{{"anonymous", nil}, {"captain", h.captain}, {"crew:admin", h.admin}, {"blob:write", h.writer}, {"blob:read", h.reader}, {"stranger", h.stranger}}
	const (
		ok  = ""             // not refused: 2xx, or the error of an upload that does not exist
		out = "Forbidden"    // 403
		who = "AuthRequired" // 401
	)
	endpoints := []struct {
		nsid string
		call func(as *account.Account) answer
		// By caller as above, for the four policies: private; public; private and
		// allow-all-crew; public and allow-all-crew. One list for all where it is one.
		want [][]string
	}{
		{"getBlob", func(as *account.Account) answer { return h.get(as, "com.atproto.sync.getBlob?did=x&cid="+digest) }, [][]string{
			{who, ok, ok, ok, ok, out}, {ok, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}, {ok, ok, ok, ok, ok, ok}}},
		{"getBlob HEAD", func(as *account.Account) answer {
			return h.call(as, http.MethodHead, "com.atproto.sync.getBlob?did=x&cid="+digest, nil)
		}, [][]string{{who, ok, ok, ok, ok, out}, {ok, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}, {ok, ok, ok, ok, ok, ok}}},
		{"getBlob method=GET", func(as *account.Account) answer {
			return h.get(as, "com.atproto.sync.getBlob?did=x&method=GET&cid="+digest)
		}, [][]string{{who, ok, ok, ok, ok, out}, {ok, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}, {ok, ok, ok, ok, ok, ok}}},
		{"getBlob method=HEAD", func(as *account.Account) answer {
			return h.get(as, "com.atproto.sync.getBlob?did=x&method=HEAD&cid="+digest)
		}, [][]string{{who, ok, ok, ok, ok, out}, {ok, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}, {ok, ok, ok, ok, ok, ok}}},
	}
	writes := [][]string{{who, ok, ok, ok, out, out}, {who, ok, ok, ok, out, out}, {who, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}}
	for _, nsid := range []string{"initiateUpload", "getPartUploadUrl", "completeUpload", "abortUpload"} {
		endpoints = append(endpoints, struct {
			nsid string
			call func(as *account.Account) answer
			want [][]string
		}{nsid, func(as *account.Account) answer { return h.post(as, "io.atcr.hold."+nsid, upload) }, writes})
	}
	admins := [][]string{{who, ok, ok, out, out, out}}
	for _, nsid := range []string{"createRecord", "putRecord", "deleteRecord", "applyWrites"} {
		endpoints = append(endpoints, struct {
			nsid string
			call func(as *account.Account) answer
			want [][]string
		}{nsid, func(as *account.Account) answer {
			in := map[string]any{"writes": []any{}}
			maps.Copy(in, record)
			if nsid == "createRecord" {
				delete(in, "rkey")
			}
			return h.post(as, "com.atproto.repo."+nsid, in)
		}, admins})
	}
	endpoints = append(endpoints, []struct {
		nsid string
		call func(as *account.Account) answer
		want [][]string
	}{
		{"uploadPart", func(as *account.Account) answer {
			return h.call(as, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", "0", "X-Part-Number", "1")
		}, writes},
		{"uploadBlob", func(as *account.Account) answer {
			return h.call(as, http.MethodPost, "com.atproto.repo.uploadBlob", strings.NewReader("x"), "Content-Type", "text/plain")
		}, admins},
		{"notifyManifest push", func(as *account.Account) answer {
			if as != nil {
				manifest["userDid"] = as.DID
			}
			return h.post(as, "io.atcr.hold.notifyManifest", manifest)
		}, writes},
		{"notifyManifest pull", func(as *account.Account) answer { return h.post(as, "io.atcr.hold.notifyManifest", pull) }, [][]string{
			{who, ok, ok, ok, ok, out}, {who, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}, {who, ok, ok, ok, ok, ok}}},
	}...)

	for i, p := range []hold.Policy{{}, {Public: true}, {AllowAllCrew: true}, {Public: true, AllowAllCrew: true}} {
		h.configure(p, false)
		for _, e := range endpoints {
			want := e.want[0]
			if len(e.want) > 1 {
				want = e.want[i]
			}
			for n, c := range callers {
				t.Run(fmt.Sprintf("%+v/%s/%s", p, e.nsid, c.name), func(t *testing.T) {
					a := e.call(c.as)
					status := map[string]int{who: http.StatusUnauthorized, out: http.StatusForbidden}[want[n]]
					switch {
					case want[n] == ok && (a.StatusCode == http.StatusUnauthorized || a.StatusCode == http.StatusForbidden || a.StatusCode >= 500):
						t.Errorf("%d %s, want to be let in", a.StatusCode, a.body)
					case want[n] != ok && a.StatusCode != status:
						t.Errorf("%d %s, want %d %s", a.StatusCode, a.body, status, want[n])
					case want[n] != ok && len(a.body) > 0 && a.text(t, "error") != want[n]:
						t.Errorf("%s, want %s", a.body, want[n])
					}
				})
			}
		}
	}
	h.configure(hold.Policy{}, false)
	for _, nsid := range []string{"io.atcr.hold.requestCrew", "io.atcr.hold.notifyManifest"} {
		h.fails(h.post(nil, nsid, map[string]any{}), http.StatusUnauthorized, "AuthRequired")
	}
	h.fails(h.post(h.stranger, "io.atcr.hold.requestCrew", map[string]any{}), http.StatusForbidden, "RegistrationDisabled")
}

func TestTokensThroughHTTP(t *testing.T) {
	h := open(t, hold.Policy{})
	path := "io.atcr.hold.initiateUpload"
	in := map[string]any{"digest": "x"}
	call := func(header string) answer {
		t.Helper()
		return h.call(nil, http.MethodPost, path, in, "Authorization", header)
	}
	h.fails(call("Bearer nonsense"), http.StatusUnauthorized, "BadJwt")
	h.fails(call("Basic dXNlcjpwYXNz"), http.StatusUnauthorized, "AuthRequired")
	h.fails(call("Bearer "+h.writer.ServiceToken("did:web:else.where", "")), http.StatusUnauthorized, "BadJwtAudience")
	token := h.writer.NewToken(h.did, "")
	token.Claims["exp"] = time.Now().Add(-time.Hour).Unix()
	h.fails(call("Bearer "+h.writer.Sign(token)), http.StatusUnauthorized, "JwtExpired")
	h.fails(call("Bearer "+h.stranger.Sign(h.writer.NewToken(h.did, ""))), http.StatusUnauthorized, "BadJwtSignature")

	// A bad token is refused also where none is needed: the caller believes to be somebody.
	h.configure(hold.Policy{Public: true}, false)
	h.fails(h.call(nil, http.MethodGet, "com.atproto.sync.getBlob?cid="+digestOf("x"), nil, "Authorization", "Bearer nonsense"), http.StatusUnauthorized, "BadJwt")

	raw := "Bearer " + h.writer.ServiceToken(h.did, "")
	h.works(call(raw))
	h.works(call(raw))

	// Keys rotate; the account's document is read anew.
	h.works(call("Bearer " + h.admin.ServiceToken(h.did, "")))
	h.admin.Rotate(t, account.P256)
	h.works(call("Bearer " + h.admin.ServiceToken(h.did, "")))

	h.configure(hold.Policy{}, true)
	h.fails(call("Bearer "+h.writer.ServiceToken(h.did, "com.atproto.repo.getRecord")), http.StatusUnauthorized, "BadJwtLexiconMethod")
	raw = "Bearer " + h.writer.ServiceToken(h.did, path)
	h.works(call(raw))
	h.fails(call(raw), http.StatusUnauthorized, "BadJwt")
	h.configure(hold.Policy{}, true)
	h.fails(call(raw), http.StatusUnauthorized, "BadJwt") // a reload forgets nothing
}

func TestUpload(t *testing.T) {
	h := open(t, hold.Policy{})
	digest := h.store(h.writer, "part one, ", "part two")
	a := h.works(h.get(h.reader, "com.atproto.sync.getBlob?did="+h.did+"&cid="+digest))
	if string(a.body) != "part one, part two" || a.Header.Get("Docker-Content-Digest") != digest || a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%q %v", a.body, a.Header)
	}

	t.Run("completing twice succeeds", func(t *testing.T) {
		id, parts := h.upload(h.writer, "twice")
		in := map[string]any{"uploadId": id, "digest": digestOf("twice"), "parts": parts}
		for range 2 {
			got := h.works(h.post(h.writer, "io.atcr.hold.completeUpload", in)).json(t)
			if got["status"] != "completed" || got["digest"] != digestOf("twice") {
				t.Errorf("%v", got)
			}
		}
	})
	t.Run("by token and headers, PUT or POST, etags quoted or not", func(t *testing.T) {
		id, _ := h.upload(h.writer)
		var parts []map[string]any
		for n, method := range []string{http.MethodPut, http.MethodPost} {
			a := h.works(h.call(h.writer, method, "io.atcr.hold.uploadPart", strings.NewReader(fmt.Sprint("by ", method)), "X-Upload-Id", id, "X-Part-Number", fmt.Sprint(n+1)))
			etag := a.text(t, "etag")
			if a.Header.Get("ETag") != `"`+etag+`"` {
				t.Errorf("etag %q, header %q", etag, a.Header.Get("ETag"))
			}
			if n == 1 {
				etag = `"` + etag + `"`
			}
			parts = append(parts, map[string]any{"partNumber": n + 1, "etag": etag})
		}
		h.works(h.post(h.writer, "io.atcr.hold.completeUpload", map[string]any{"uploadId": id, "digest": digestOf("by PUTby POST"), "parts": parts}))
	})
	t.Run("empty blob", func(t *testing.T) {
		h.store(h.writer)
		h.store(h.writer, "")
	})
	t.Run("abort", func(t *testing.T) {
		id, _ := h.upload(h.writer, "jetsam")
		if got := h.works(h.post(h.writer, "io.atcr.hold.abortUpload", map[string]any{"uploadId": id})).json(t); got["status"] != "aborted" {
			t.Errorf("%v", got)
		}
		h.fails(h.post(h.writer, "io.atcr.hold.getPartUploadUrl", map[string]any{"uploadId": id, "partNumber": 1}), http.StatusBadRequest, "InvalidUploadId")
	})
}

func TestUploadErrors(t *testing.T) {
	h := open(t, hold.Policy{})
	const initiate, target, complete, abort = "io.atcr.hold.initiateUpload", "io.atcr.hold.getPartUploadUrl", "io.atcr.hold.completeUpload", "io.atcr.hold.abortUpload"
	bad := http.StatusBadRequest

	h.fails(h.post(h.writer, initiate, map[string]any{}), bad, "InvalidDigest")
	h.fails(h.post(h.writer, initiate, map[string]any{"digest": strings.Repeat("x", 129)}), bad, "InvalidDigest")

	id, parts := h.upload(h.writer, "some cargo")
	for _, unknown := range []string{"", "nonsense", strings.Repeat("f", 32), strings.Repeat("x", 300), "../../etc/passwd"} {
		h.fails(h.post(h.writer, target, map[string]any{"uploadId": unknown, "partNumber": 1}), bad, "InvalidUploadId")
		h.fails(h.post(h.writer, complete, map[string]any{"uploadId": unknown, "digest": digestOf("x")}), bad, "InvalidUploadId")
		h.fails(h.post(h.writer, abort, map[string]any{"uploadId": unknown}), bad, "InvalidUploadId")
		h.fails(h.call(h.writer, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", unknown, "X-Part-Number", "1"), bad, "InvalidUploadId")
	}
	for _, n := range []int{0, -1, 10001} {
		h.fails(h.post(h.writer, target, map[string]any{"uploadId": id, "partNumber": n}), bad, "InvalidPartNumber")
		h.fails(h.call(h.writer, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", id, "X-Part-Number", fmt.Sprint(n)), bad, "InvalidPartNumber")
	}
	h.fails(h.call(h.writer, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", id, "X-Part-Number", "one"), bad, "InvalidPartNumber")

	// A session is its owner's, the captain's notwithstanding.
	for _, call := range []string{target, complete, abort} {
		h.fails(h.post(h.captain, call, map[string]any{"uploadId": id, "partNumber": 1, "digest": digestOf("some cargo"), "parts": parts}), bad, "InvalidUploadId")
	}

	// Parts that are missing leave the session as it is.
	h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("some cargo"), "parts": []any{}}), bad, "MissingParts")
	wrong := []map[string]any{{"partNumber": 1, "etag": "wrong"}}
	h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("some cargo"), "parts": wrong}), bad, "MissingParts")
	h.works(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("some cargo"), "parts": parts}))

	// A wrong digest ends it, and there is no blob.
	for _, digest := range []string{digestOf("other cargo"), "sha256:short", "sha512:" + strings.Repeat("0", 128), strings.ToUpper(digestOf("some cargo")), "uploads/temp-1"} {
		id, parts := h.upload(h.writer, "new cargo")
		h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digest, "parts": parts}), bad, "InvalidDigest")
		h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("new cargo"), "parts": parts}), bad, "InvalidUploadId")
	}
	id, parts = h.upload(h.writer, "new cargo")
	h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("other cargo"), "parts": parts}), bad, "InvalidDigest")
	h.fails(h.post(h.writer, complete, map[string]any{"uploadId": id, "digest": digestOf("new cargo"), "parts": parts}), bad, "InvalidUploadId")
	for _, content := range []string{"other cargo", "new cargo"} {
		h.fails(h.get(h.writer, "com.atproto.sync.getBlob?cid="+digestOf(content)), http.StatusNotFound, "BlobNotFound")
	}

	// What storage does wrong is not the caller's fault, and can be tried again.
	broken := errors.New("the disk is on fire")
	id, parts = h.upload(h.writer, "cargo in a storm")
	storm := map[string]any{"uploadId": id, "digest": digestOf("cargo in a storm"), "parts": parts}
	h.driver.begin, h.driver.write, h.driver.assemble, h.driver.discard = broken, broken, broken, broken
	h.fails(h.post(h.writer, initiate, map[string]any{"digest": "x"}), http.StatusInternalServerError, "UploadFailed")
	h.fails(h.call(h.writer, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", id, "X-Part-Number", "2"), http.StatusInternalServerError, "UploadFailed")
	h.fails(h.post(h.writer, complete, storm), http.StatusInternalServerError, "CompletionFailed")
	away := fmt.Errorf("connecting: %w", blobs.ErrUnavailable)
	h.driver.begin, h.driver.write, h.driver.assemble = away, away, away
	h.fails(h.post(h.writer, initiate, map[string]any{"digest": "x"}), http.StatusServiceUnavailable, "StorageUnavailable")
	h.fails(h.post(h.writer, complete, storm), http.StatusServiceUnavailable, "StorageUnavailable")
	h.driver.write = fmt.Errorf("writing: %w", blobs.ErrInsufficientStorage)
	h.fails(h.call(h.writer, http.MethodPut, "io.atcr.hold.uploadPart", strings.NewReader("x"), "X-Upload-Id", id, "X-Part-Number", "2"), http.StatusInsufficientStorage, "InsufficientStorage")
	h.driver.begin, h.driver.write, h.driver.assemble = nil, nil, nil
	other, _ := h.upload(h.writer, "flotsam")
	h.fails(h.post(h.writer, abort, map[string]any{"uploadId": other}), http.StatusInternalServerError, "AbortFailed")
	h.driver.discard = nil
	h.works(h.post(h.writer, complete, storm))

	h.driver.healthy = away
	if a := h.get(nil, "_health"); a.StatusCode != http.StatusServiceUnavailable || a.text(t, "version") == "" || a.text(t, "error") == "" {
		t.Errorf("_health while storage is away: %d %s", a.StatusCode, a.body)
	}
	h.works(h.get(nil, "com.atproto.repo.describeRepo?repo="+h.did))
}

func TestSignedURLs(t *testing.T) {
	h := open(t, hold.Policy{})
	digest := h.store(h.writer, "cargo")
	get := h.works(h.get(h.reader, "com.atproto.sync.getBlob?method=GET&cid="+digest))
	head := h.works(h.get(h.reader, "com.atproto.sync.getBlob?method=HEAD&cid="+digest))
	for _, a := range []answer{get, head} {
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("headers %v", a.Header)
		}
	}
	getURL, headURL := get.text(t, "url"), head.text(t, "url")
	if a := h.works(h.get(nil, getURL)); string(a.body) != "cargo" {
		t.Errorf("%q", a.body)
	}
	if a := h.works(h.call(nil, http.MethodHead, headURL, nil)); a.ContentLength != 5 {
		t.Errorf("Content-Length %d", a.ContentLength)
	}
	h.fails(h.get(nil, headURL), http.StatusForbidden, "Forbidden")

	a := h.call(nil, http.MethodGet, getURL, nil, "Range", "bytes=1-2")
	if a.StatusCode != http.StatusPartialContent || string(a.body) != "ar" {
		t.Errorf("range: %d %q", a.StatusCode, a.body)
	}
	a = h.call(nil, http.MethodGet, getURL, nil, "If-None-Match", `"`+digest+`"`)
	if a.StatusCode != http.StatusNotModified {
		t.Errorf("If-None-Match: %d", a.StatusCode)
	}

	id, _ := h.upload(h.writer)
	partURL := h.works(h.post(h.writer, "io.atcr.hold.getPartUploadUrl", map[string]any{"uploadId": id, "partNumber": 1})).text(t, "url")
	for name, change := range map[string]func(q url.Values){
		"another signature": func(q url.Values) { q.Set("sig", strings.Repeat("A", len(q.Get("sig")))) },
		"a later expiry":    func(q url.Values) { q.Set("expires", fmt.Sprint(time.Now().Add(time.Hour).Unix())) },
		"no expiry":         func(q url.Values) { q.Del("expires") },
		"another digest":    func(q url.Values) { q.Set("cid", digestOf("other")) },
		"another part":      func(q url.Values) { q.Set("partNumber", "2") },
		"another upload":    func(q url.Values) { q.Set("uploadId", strings.Repeat("0", 32)) },
	} {
		for _, signed := range []string{getURL, partURL} {
			u, err := url.Parse(signed)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			before := q.Encode()
			isPart := q.Has("partNumber")
			if isPart == (name == "another digest") || !isPart && strings.HasPrefix(name, "another ") && name != "another digest" && name != "another signature" {
				continue // says nothing of this kind of URL
			}
			change(q)
			if q.Encode() == before {
				t.Fatalf("%s changes nothing", name)
			}
			u.RawQuery = q.Encode()
			method := http.MethodGet
			if isPart {
				method = http.MethodPut
			}
			t.Run(name+" "+method, func(t *testing.T) {
				h.fails(h.call(nil, method, u.String(), strings.NewReader("x")), http.StatusForbidden, "Forbidden")
			})
		}
	}
}

func TestGetBlobErrors(t *testing.T) {
	h := open(t, hold.Policy{Public: true})
	missing := digestOf("missing")
	for _, variant := range []string{"", "&method=GET", "&method=HEAD"} {
		h.fails(h.get(nil, "com.atproto.sync.getBlob?cid="+missing+variant), http.StatusNotFound, "BlobNotFound")
		h.fails(h.call(nil, http.MethodHead, "com.atproto.sync.getBlob?cid="+missing+variant, nil), http.StatusNotFound, "BlobNotFound")
	}
	h.fails(h.get(nil, "com.atproto.sync.getBlob"), http.StatusBadRequest, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.getBlob?cid=sha256:zz"), http.StatusBadRequest, "InvalidDigest")
	h.fails(h.get(nil, "com.atproto.sync.getBlob?did="+h.did+"&cid=nonsense"), http.StatusBadRequest, "InvalidRequest")
	digest := h.store(h.writer, "x")
	h.fails(h.get(nil, "com.atproto.sync.getBlob?method=PUT&cid="+digest), http.StatusBadRequest, "InvalidRequest")
	head := h.works(h.call(nil, http.MethodHead, "com.atproto.sync.getBlob?cid="+digest, nil))
	if head.ContentLength != 1 || head.Header.Get("Docker-Content-Digest") != digest || len(head.body) != 0 {
		t.Errorf("HEAD: %v %q", head.Header, head.body)
	}
}

func TestRecordBlobsArePublic(t *testing.T) {
	h := open(t, hold.Policy{})
	a := h.works(h.call(h.admin, http.MethodPost, "com.atproto.repo.uploadBlob", strings.NewReader("<svg/>"), "Content-Type", "image/svg+xml"))
	blob := a.json(t)["blob"].(map[string]any)
	link := blob["ref"].(map[string]any)["$link"].(string)
	if blob["$type"] != "blob" || blob["mimeType"] != "image/svg+xml" || blob["size"] != float64(6) {
		t.Errorf("%v", blob)
	}
	h.works(h.post(h.admin, "com.atproto.repo.putRecord", map[string]any{"repo": h.did, "collection": "app.bsky.actor.profile", "rkey": "self", "record": map[string]any{"avatar": blob}}))

	got := h.works(h.get(nil, "com.atproto.sync.getBlob?did="+url.QueryEscape(h.did)+"&cid="+link))
	if string(got.body) != "<svg/>" || got.Header.Get("Content-Type") != "image/svg+xml" || got.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(got.Header.Get("Content-Security-Policy"), "sandbox") || !strings.HasPrefix(got.Header.Get("Content-Disposition"), "attachment") || got.ContentLength != 6 {
		t.Errorf("%q %v", got.body, got.Header)
	}
	list := h.works(h.get(nil, "com.atproto.sync.listBlobs?did="+h.did)).json(t)
	if cids := list["cids"].([]any); len(cids) != 1 || cids[0] != link {
		t.Errorf("listBlobs: %v", list)
	}
	h.fails(h.get(nil, "com.atproto.sync.listBlobs?did="+h.did+"&cursor=x"), http.StatusBadRequest, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.getBlob?did="+h.did+"&cid=bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"), http.StatusNotFound, "BlobNotFound")
	h.fails(h.call(h.admin, http.MethodPost, "com.atproto.repo.uploadBlob", strings.NewReader(strings.Repeat("x", 6<<20))), http.StatusRequestEntityTooLarge, "PayloadTooLarge")
}

func TestRecords(t *testing.T) {
	h := open(t, hold.Policy{})
	const collection = "com.example.note"
	repo := func(method string, in map[string]any) answer {
		in["repo"] = h.did
		return h.post(h.admin, "com.atproto.repo."+method, in)
	}
	note := func(text string) map[string]any { return map[string]any{"text": text} }

	created := h.works(repo("createRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("ahoy")})).json(t)
	uri := "at://" + h.did + "/" + collection + "/one"
	if created["uri"] != uri || created["cid"] == "" || created["commit"] == nil || created["validationStatus"] != "unknown" {
		t.Errorf("%v", created)
	}
	got := h.works(h.get(nil, "com.atproto.repo.getRecord?repo="+h.did+"&collection="+collection+"&rkey=one")).json(t)
	if value := got["value"].(map[string]any); value["text"] != "ahoy" || value["$type"] != collection || got["cid"] != created["cid"] || got["uri"] != uri {
		t.Errorf("%v", got)
	}
	h.fails(repo("createRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("again")}), http.StatusBadRequest, "InvalidRequest")

	// Swaps compare before they write.
	h.fails(repo("putRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("new"), "swapRecord": nil}), http.StatusBadRequest, "InvalidSwap")
	h.fails(repo("putRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("new"), "swapRecord": "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}), http.StatusBadRequest, "InvalidSwap")
	h.fails(repo("putRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("new"), "swapCommit": "bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}), http.StatusBadRequest, "InvalidSwap")
	h.fails(repo("deleteRecord", map[string]any{"collection": collection, "rkey": "two", "swapRecord": created["cid"]}), http.StatusBadRequest, "InvalidSwap")
	head := h.works(h.get(nil, "com.atproto.sync.getLatestCommit?did="+h.did)).json(t)
	put := h.works(repo("putRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("new"), "swapRecord": created["cid"], "swapCommit": head["cid"]})).json(t)
	same := h.works(repo("putRecord", map[string]any{"collection": collection, "rkey": "one", "record": note("new")})).json(t)
	if same["cid"] != put["cid"] || same["commit"] != nil {
		t.Errorf("the same record again: %v", same)
	}

	// All of applyWrites or nothing.
	w := func(kind, rkey string, value any) map[string]any {
		return map[string]any{"$type": "com.atproto.repo.applyWrites#" + kind, "collection": collection, "rkey": rkey, "value": value}
	}
	h.fails(repo("applyWrites", map[string]any{"writes": []any{w("create", "two", note("2")), w("update", "three", note("3"))}}), http.StatusBadRequest, "RecordNotFound")
	h.fails(h.get(nil, "com.atproto.repo.getRecord?repo="+h.did+"&collection="+collection+"&rkey=two"), http.StatusBadRequest, "RecordNotFound")
	applied := h.works(repo("applyWrites", map[string]any{"writes": []any{w("create", "two", note("2")), w("create", "", note("3")), w("update", "one", note("1")), w("delete", "none", nil)}})).json(t)
	if results := applied["results"].([]any); len(results) != 4 || results[0].(map[string]any)["$type"] != "com.atproto.repo.applyWrites#createResult" || applied["commit"] == nil {
		t.Errorf("%v", applied)
	}
	h.fails(repo("applyWrites", map[string]any{"writes": []any{w("destroy", "one", nil)}}), http.StatusBadRequest, "InvalidRequest")
	h.fails(repo("applyWrites", map[string]any{"writes": slices.Repeat([]any{w("delete", "x", nil)}, 201)}), http.StatusBadRequest, "InvalidRequest")

	// Paging, both ways.
	for _, reverse := range []string{"", "&reverse=true"} {
		var seen []string
		for cursor := ""; ; {
			page := h.works(h.get(nil, "com.atproto.repo.listRecords?repo="+h.did+"&collection="+collection+"&limit=1"+reverse+"&cursor="+cursor)).json(t)
			for _, r := range page["records"].([]any) {
				seen = append(seen, r.(map[string]any)["uri"].(string))
			}
			if cursor, _ = page["cursor"].(string); cursor == "" {
				break
			}
		}
		sorted := slices.Sorted(slices.Values(seen))
		if reverse == "" {
			slices.Reverse(sorted)
		}
		if len(seen) != 3 || !slices.Equal(seen, sorted) {
			t.Errorf("listed %v", seen)
		}
	}

	deleted := h.works(repo("deleteRecord", map[string]any{"collection": collection, "rkey": "one"})).json(t)
	absent := h.works(repo("deleteRecord", map[string]any{"collection": collection, "rkey": "one"})).json(t)
	if deleted["commit"] == nil || absent["commit"] != nil {
		t.Errorf("deleted %v, absent %v", deleted, absent)
	}
	missing := h.get(nil, "com.atproto.repo.getRecord?repo="+h.did+"&collection="+collection+"&rkey=one")
	h.fails(missing, http.StatusBadRequest, "RecordNotFound")
	if got, want := missing.text(t, "message"), "Could not locate record: "+uri; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

func TestRecordErrors(t *testing.T) {
	h := open(t, hold.Policy{})
	value := map[string]any{"text": "ahoy"}
	for name, in := range map[string]map[string]any{
		"no repo":             {"collection": "com.example.note", "record": value},
		"no collection":       {"repo": h.did, "record": value},
		"no NSID":             {"repo": h.did, "collection": "notes", "record": value},
		"bad rkey":            {"repo": h.did, "collection": "com.example.note", "rkey": "..", "record": value},
		"long rkey":           {"repo": h.did, "collection": "com.example.note", "rkey": strings.Repeat("x", 513), "record": value},
		"no record":           {"repo": h.did, "collection": "com.example.note"},
		"record no object":    {"repo": h.did, "collection": "com.example.note", "record": "ahoy"},
		"record null":         {"repo": h.did, "collection": "com.example.note", "record": nil},
		"another $type":       {"repo": h.did, "collection": "com.example.note", "record": map[string]any{"$type": "com.example.else"}},
		"a float":             {"repo": h.did, "collection": "com.example.note", "record": map[string]any{"n": 1.5}},
		"a large integer":     {"repo": h.did, "collection": "com.example.note", "record": map[string]any{"n": json.RawMessage("9007199254740993000")}},
		"too large":           {"repo": h.did, "collection": "com.example.note", "record": map[string]any{"s": strings.Repeat("x", 1_000_001)}},
		"crew without member": {"repo": h.did, "collection": atcr.CrewCollection, "record": map[string]any{"role": "member"}},
	} {
		for _, method := range []string{"createRecord", "putRecord"} {
			t.Run(name+" "+method, func(t *testing.T) {
				sent := map[string]any{"rkey": "one"}
				maps.Copy(sent, in)
				if a := h.post(h.admin, "com.atproto.repo."+method, sent); a.StatusCode != http.StatusBadRequest || a.text(t, "error") != "InvalidRequest" {
					t.Errorf("%d %s, want 400 InvalidRequest", a.StatusCode, a.body)
				}
			})
		}
	}
	h.fails(h.post(h.admin, "com.atproto.repo.createRecord", map[string]any{"repo": "did:web:else.where", "collection": "com.example.note", "record": value}), http.StatusBadRequest, "RepoNotFound")
	captain := map[string]any{"owner": h.admin.DID, "public": true, "allowAllCrew": true, "enableBlueskyPosts": false, "deployedAt": "2026-01-01T00:00:00Z"}
	h.fails(h.post(h.admin, "com.atproto.repo.putRecord", map[string]any{"repo": h.did, "collection": atcr.CaptainCollection, "rkey": "self", "record": captain}), http.StatusForbidden, "Forbidden")
	h.fails(h.post(h.admin, "com.atproto.repo.deleteRecord", map[string]any{"repo": h.did, "collection": atcr.CaptainCollection, "rkey": "self"}), http.StatusForbidden, "Forbidden")
	own := strings.TrimPrefix(atcr.CrewPath(h.captain.DID.String()), atcr.CrewCollection+"/")
	h.fails(h.post(h.captain, "com.atproto.repo.deleteRecord", map[string]any{"repo": h.did, "collection": atcr.CrewCollection, "rkey": own}), http.StatusForbidden, "Forbidden")
	for _, q := range []string{"", "?repo=" + h.did, "?repo=" + h.did + "&collection=com.example.note&limit=0", "?repo=" + h.did + "&collection=com.example.note&limit=101", "?repo=" + h.did + "&collection=com.example.note&reverse=maybe"} {
		h.fails(h.get(nil, "com.atproto.repo.listRecords"+q), http.StatusBadRequest, "InvalidRequest")
	}
}

func TestCrewIsAdministeredByRecords(t *testing.T) {
	h := open(t, hold.Policy{})
	upload := func() answer {
		return h.post(h.stranger, "io.atcr.hold.initiateUpload", map[string]any{"digest": "x"})
	}
	h.fails(upload(), http.StatusForbidden, "Forbidden")
	crew := map[string]any{"member": h.stranger.DID, "role": "write", "permissions": []string{"blob:read", "blob:write"}, "addedAt": "2026-01-01T00:00:00Z"}
	created := h.works(h.post(h.admin, "com.atproto.repo.createRecord", map[string]any{"repo": h.did, "collection": atcr.CrewCollection, "record": crew})).json(t)
	if created["validationStatus"] != "valid" {
		t.Errorf("%v", created)
	}
	h.works(upload())
	h.fails(h.post(h.admin, "com.atproto.repo.createRecord", map[string]any{"repo": h.did, "collection": atcr.CrewCollection, "record": crew}), http.StatusBadRequest, "InvalidRequest")
	uri := created["uri"].(string)
	h.works(h.post(h.admin, "com.atproto.repo.deleteRecord", map[string]any{"repo": h.did, "collection": atcr.CrewCollection, "rkey": uri[strings.LastIndex(uri, "/")+1:]}))
	h.fails(upload(), http.StatusForbidden, "Forbidden")
}

func TestNotifyManifestErrors(t *testing.T) {
	h := open(t, hold.Policy{})
	base := func(change map[string]any) map[string]any {
		in := map[string]any{"repository": "app", "userDid": h.writer.DID, "manifestDigest": digestOf("manifest"), "manifest": map[string]any{}}
		maps.Copy(in, change)
		return in
	}
	call := func(change map[string]any) answer {
		return h.post(h.writer, "io.atcr.hold.notifyManifest", base(change))
	}
	h.fails(call(map[string]any{"operation": "destroy"}), http.StatusBadRequest, "InvalidOperation")
	h.fails(call(map[string]any{"userDid": h.captain.DID}), http.StatusForbidden, "UserMismatch")
	h.fails(call(map[string]any{"repository": ""}), http.StatusBadRequest, "InvalidRequest")
	missing := call(map[string]any{"manifest": map[string]any{"layers": []any{map[string]any{"digest": digestOf("no"), "size": 2}}}})
	h.fails(missing, http.StatusBadRequest, "BlobNotFound")
	if !strings.Contains(missing.text(t, "message"), digestOf("no")) {
		t.Errorf("the message does not name the layer: %s", missing.body)
	}
	layer := h.store(h.writer, "layer")
	out := h.works(call(map[string]any{"manifest": map[string]any{"layers": []any{map[string]any{"digest": layer, "size": 5, "mediaType": "text/plain"}}}})).json(t)
	if out["success"] != true || out["operation"] != "push" || out["statsUpdated"] != true || out["layersCreated"] != float64(1) {
		t.Errorf("%v", out)
	}
	out = h.works(h.post(h.reader, "io.atcr.hold.notifyManifest", base(map[string]any{"operation": "pull"}))).json(t)
	if out["success"] != true || out["operation"] != "pull" || out["statsUpdated"] != true || out["layersCreated"] != nil {
		t.Errorf("%v", out)
	}
}

// TestNobodyElseSignsForTheHold: the DID of the hold acts as captain, with its key only.
func TestNobodyElseSignsForTheHold(t *testing.T) {
	h := open(t, hold.Policy{})
	token := h.stranger.NewToken(h.did, "")
	token.Claims["iss"] = h.did
	h.fails(h.call(nil, http.MethodPost, "io.atcr.hold.initiateUpload", map[string]any{"digest": "x"}, "Authorization", "Bearer "+h.stranger.Sign(token)), http.StatusUnauthorized, "BadJwtSignature")
}

func TestSync(t *testing.T) {
	h := open(t, hold.Policy{})
	h.note("one")
	latest := h.works(h.get(nil, "com.atproto.sync.getLatestCommit?did="+h.did)).json(t)
	repos := h.works(h.get(nil, "com.atproto.sync.listRepos")).json(t)["repos"].([]any)
	if r := repos[0].(map[string]any); len(repos) != 1 || r["did"] != h.did || r["head"] != latest["cid"] || r["rev"] != latest["rev"] || r["active"] != true {
		t.Errorf("listRepos: %v, want the latest commit %v", repos, latest)
	}
	if s := h.works(h.get(nil, "com.atproto.sync.getRepoStatus?did="+h.did)).json(t); s["active"] != true || s["rev"] != latest["rev"] {
		t.Errorf("getRepoStatus: %v", s)
	}

	load := func(path string) (*repo.Commit, *repo.Repo) {
		t.Helper()
		a := h.works(h.get(nil, path))
		if got := a.Header.Get("Content-Type"); got != "application/vnd.ipld.car" {
			t.Errorf("Content-Type %q", got)
		}
		commit, r, err := repo.LoadRepoFromCAR(t.Context(), bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		return commit, r
	}
	commit, whole := load("com.atproto.sync.getRepo?did=" + h.did)
	if commit.Rev != latest["rev"] || whole.MST.IsPartial() {
		t.Errorf("getRepo: rev %s, partial %t", commit.Rev, whole.MST.IsPartial())
	}
	_, proof := load("com.atproto.sync.getRecord?did=" + h.did + "&collection=com.example.note&rkey=one")
	if _, _, err := proof.GetRecordBytes(t.Context(), "com.example.note", "one"); err != nil {
		t.Errorf("getRecord: %v", err)
	}
	_, absent := load("com.atproto.sync.getRecord?did=" + h.did + "&collection=com.example.note&rkey=two")
	if _, err := absent.GetRecordCID(t.Context(), "com.example.note", "two"); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("getRecord of an absent record: %v, want a proof that it is absent", err)
	}
	load("com.atproto.sync.getBlocks?did=" + h.did + "&cids=" + latest["cid"].(string) + "&cids=" + commit.Data.String())

	bad := http.StatusBadRequest
	h.fails(h.get(nil, "com.atproto.sync.getRepo"), bad, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.getRepo?did=did:web:else.where"), bad, "RepoNotFound")
	h.fails(h.get(nil, "com.atproto.sync.getRepo?did="+h.did+"&since=yesterday"), bad, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.getBlocks?did="+h.did), bad, "InvalidRequest")
	h.fails(h.get(nil, "com.atproto.sync.getBlocks?did="+h.did+"&cids=x"), bad, "InvalidRequest")
	unknown := "com.atproto.sync.getBlocks?did=" + h.did + "&cids=bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	h.fails(h.get(nil, unknown), bad, "BlockNotFound")
	h.fails(h.call(nil, http.MethodHead, unknown, nil), bad, "BlockNotFound")
}

func TestDirectoryThatRefusesAnIssuerIsNotAway(t *testing.T) {
	h := open(t, hold.Policy{})
	token := h.stranger.NewToken(h.did, "")
	token.Claims["iss"] = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	h.fails(h.call(nil, http.MethodPost, "io.atcr.hold.initiateUpload", map[string]any{"digest": "x"}, "Authorization", "Bearer "+h.stranger.Sign(token)), http.StatusUnauthorized, "BadJwtIss")
}

// TestStrictTokensOfOneDoNotLockOutOthers: what a caller may not do spends nothing, and what
// one issuer spends leaves room for the rest.
func TestStrictTokensOfOneDoNotLockOutOthers(t *testing.T) {
	h := open(t, hold.Policy{})
	h.configure(hold.Policy{}, true)
	const nsid = "io.atcr.hold.initiateUpload"
	call := func(raw string) answer {
		return h.call(nil, http.MethodPost, nsid, map[string]any{"digest": "x"}, "Authorization", "Bearer "+raw)
	}
	raw := h.stranger.ServiceToken(h.did, nsid)
	for range 3 {
		h.fails(call(raw), http.StatusForbidden, "Forbidden")
	}
	for range 1000 {
		raw := h.stranger.ServiceToken(h.did, "io.atcr.hold.requestCrew")
		h.fails(h.call(nil, http.MethodPost, "io.atcr.hold.requestCrew", map[string]any{}, "Authorization", "Bearer "+raw), http.StatusForbidden, "RegistrationDisabled")
	}
	raw = h.stranger.ServiceToken(h.did, "io.atcr.hold.requestCrew")
	h.fails(h.call(nil, http.MethodPost, "io.atcr.hold.requestCrew", map[string]any{}, "Authorization", "Bearer "+raw), http.StatusServiceUnavailable, "ServiceUnavailable")
	h.works(call(h.writer.ServiceToken(h.did, nsid)))
}

// TestSlowReaderHoldsNothingUp: while a client takes its time with an export, others write
// and the database can be closed.
func TestSlowReaderHoldsNothingUp(t *testing.T) {
	h := open(t, hold.Policy{})
	for i := range 12 { // more than sockets buffer
		h.works(h.post(h.admin, "com.atproto.repo.putRecord", map[string]any{
			"repo": h.did, "collection": "com.example.note", "rkey": fmt.Sprint("r", i), "record": map[string]any{"text": strings.Repeat("x", 900_000)},
		}))
	}
	resp, err := http.Get(h.url + "/xrpc/com.atproto.sync.getRepo?did=" + h.did)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h.note("meanwhile")
	closed, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := h.state.Close(closed); err != nil {
		t.Errorf("closing: %v", err)
	}
	if _, _, err := repo.LoadRepoFromCAR(t.Context(), resp.Body); err != nil {
		t.Errorf("what the slow reader got: %v", err)
	}
}
