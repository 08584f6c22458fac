package xrpc_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

var procedures = []string{
	"com.atproto.repo.createRecord", "com.atproto.repo.putRecord", "com.atproto.repo.deleteRecord", "com.atproto.repo.applyWrites",
	"io.atcr.hold.initiateUpload", "io.atcr.hold.getPartUploadUrl", "io.atcr.hold.completeUpload", "io.atcr.hold.abortUpload",
	"io.atcr.hold.notifyManifest", "io.atcr.hold.requestCrew",
}

var queries = []string{
	"com.atproto.identity.resolveHandle", "com.atproto.repo.describeRepo", "com.atproto.repo.getRecord", "com.atproto.repo.listRecords",
	"com.atproto.sync.getBlob", "com.atproto.sync.getBlocks", "com.atproto.sync.getLatestCommit", "com.atproto.sync.getRecord",
	"com.atproto.sync.getRepo", "com.atproto.sync.getRepoStatus", "com.atproto.sync.listBlobs", "com.atproto.sync.listRepos",
	"com.atproto.sync.subscribeRepos",
}

// FuzzProcedures: whatever JSON an administrator sends, the answer is theirs to understand.
func FuzzProcedures(f *testing.F) {
	h := open(f, hold.Policy{})
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"repo":"x","collection":"com.example.note","rkey":"a","record":{"a":[1,{"$link":"x"}]},"swapRecord":null}`,
		`{"repo":"` + h.did + `","collection":"io.atcr.hold.crew","rkey":"a","record":{"$type":"io.atcr.hold.crew","member":"did:plc:x"}}`,
		`{"repo":"` + h.did + `","collection":"com.example.note","record":{"b":{"$type":"blob","ref":{"$link":"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"},"mimeType":"a/b","size":1},"c":{"$bytes":"AA"}}}`,
		`{"repo":"` + h.did + `","writes":[{"$type":"com.atproto.repo.applyWrites#create","collection":"com.example.note","value":{}}]}`,
		`{"uploadId":"00000000000000000000000000000000","partNumber":1,"digest":"sha256:` + strings.Repeat("0", 64) + `","parts":[{"partNumber":1,"etag":"\"x\""}]}`,
		`{"repository":"app","userDid":"` + h.admin.DID.String() + `","manifestDigest":"sha256:` + strings.Repeat("0", 64) + `","manifest":{"config":null,"layers":[{"digest":"x"}],"manifests":null,"subject":{}},"visibility":"private"}`,
		`{"role":"member","permissions":["blob:read"]}`, strings.Repeat(`{"a":`, 5000), `{"record":1e400}`,
	} {
		for i := range procedures {
			f.Add(i, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		nsid := procedures[uint(which)%uint(len(procedures))]
		r := httptest.NewRequest(http.MethodPost, "/xrpc/"+nsid, bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+h.admin.ServiceToken(h.did, nsid))
		w := httptest.NewRecorder()
		h.server.Load().ServeHTTP(w, r)
		if w.Code >= 500 || w.Code == http.StatusUnauthorized {
			t.Errorf("%s answers %d %s to %q", nsid, w.Code, w.Body, body)
		}
	})
}

// FuzzQueries: whatever parameters anybody sends, the answer is theirs to understand.
func FuzzQueries(f *testing.F) {
	h := open(f, hold.Policy{Public: true})
	for _, seed := range []string{
		"", "%zz", "did=" + h.did + "&cid=sha256:" + strings.Repeat("0", 64), "did=" + h.did + "&cid=bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy&method=GET",
		"repo=" + h.did + "&collection=io.atcr.hold.crew&rkey=x&limit=1&cursor=%00&reverse=true", "did=" + h.did + "&collection=io.atcr.hold.crew&rkey=x&since=zzz",
		"did=" + h.did + "&cids=x&cids=bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", "cursor=-1", "cursor=99999999999999999999", "did=" + h.did + "&cid=sha256:" + strings.Repeat("0", 64) + "&sig=x&expires=1",
	} {
		for i := range queries {
			f.Add(i, seed)
		}
	}
	f.Fuzz(func(t *testing.T, which int, query string) {
		nsid := queries[uint(which)%uint(len(queries))]
		r := httptest.NewRequest(http.MethodGet, "/xrpc/"+nsid, nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.server.Load().ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%s answers %d %s to %q", nsid, w.Code, w.Body, query)
		}
	})
}
