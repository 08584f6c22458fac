package xrpc_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
	"github.com/caddyhold/caddyhold/caddyhold/xrpc"
	"github.com/caddyhold/caddyhold/internal/account"
)

// harbour is a hold behind a real HTTP server, with the people who call it.
type harbour struct {
	t         testing.TB
	url, did  string
	state     *hold.State
	driver    *faultyDriver
	server    atomic.Pointer[xrpc.Server]
	memory    *xrpc.Memory
	done      chan struct{}
	directory *account.Directory

	captain, admin, writer, reader, stranger *account.Account
}

// open makes a hold that is private unless the policy says otherwise.
func open(t testing.TB, p hold.Policy) *harbour {
	h := &harbour{t: t, memory: xrpc.NewMemory(), done: make(chan struct{}), directory: account.NewDirectory(t)}
	for name, a := range map[string]**account.Account{
		"captain": &h.captain, "admin": &h.admin, "writer": &h.writer, "reader": &h.reader, "stranger": &h.stranger,
	} {
		*a = h.directory.New(t, name+".test", account.K256)
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := h.server.Load()
		if !xrpc.Handles(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.url = server.URL

	dir := t.TempDir()
	state, err := hold.Open(hold.Options{DataDir: dir, PublicURL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = state.Close(context.Background()) })
	h.state, h.did = state, state.DID()
	driver, err := filesystem.Open(dir + "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	h.driver = &faultyDriver{Driver: driver}
	h.configure(p, false)

	for member, permissions := range map[*account.Account][]string{
		h.admin: {atcr.PermissionAdmin}, h.writer: {atcr.PermissionWrite}, h.reader: {atcr.PermissionRead},
	} {
		h.join(member, permissions...)
	}
	return h
}

// configure is a reload.
func (h *harbour) configure(p hold.Policy, strict bool) {
	h.t.Helper()
	service := blobs.New(blobs.Config{Store: h.state.Blobs(), Driver: h.driver, BaseURL: h.url, DID: h.did})
	domain := hold.New(h.state, hold.Config{Owner: h.captain.DID.String(), Policy: p}, service)
	if err := domain.SyncRecords(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	h.server.Store(xrpc.New(xrpc.Options{
		Hold: domain, PLCDirectory: h.directory.URL, StrictTokens: strict, Memory: h.memory, Version: "1.2.3", Done: h.done,
	}))
}

func (h *harbour) join(a *account.Account, permissions ...string) {
	h.t.Helper()
	value, err := atcr.Encode(&atcr.Crew{Member: a.DID.String(), Role: "member", Permissions: permissions, AddedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		h.t.Fatal(err)
	}
	_, err = h.state.Repo().Update(context.Background(), func(tx *pds.Tx) error {
		_, err := tx.Put(atcr.CrewPath(a.DID.String()), value)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// faultyDriver is a storage that can be made to fail.
type faultyDriver struct {
	blobs.Driver
	begin, write, assemble, discard, healthy error
}

func (d *faultyDriver) Begin(ctx context.Context, id string) (string, error) {
	if d.begin != nil {
		return "", d.begin
	}
	return d.Driver.Begin(ctx, id)
}

func (d *faultyDriver) WritePart(ctx context.Context, u blobs.Upload, part int, body io.Reader, size int64) (string, error) {
	if d.write != nil {
		return "", d.write
	}
	return d.Driver.WritePart(ctx, u, part, body, size)
}

func (d *faultyDriver) Assemble(ctx context.Context, u blobs.Upload, parts []blobs.Part) (blobs.Object, error) {
	if d.assemble != nil {
		return blobs.Object{}, d.assemble
	}
	return d.Driver.Assemble(ctx, u, parts)
}

func (d *faultyDriver) Discard(ctx context.Context, u blobs.Upload) error {
	if d.discard != nil {
		return d.discard
	}
	return d.Driver.Discard(ctx, u)
}

func (d *faultyDriver) Healthy(ctx context.Context) error {
	if d.healthy != nil {
		return d.healthy
	}
	return d.Driver.Healthy(ctx)
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	body []byte
}

// json decodes the body, which must be an object.
func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("status %d, body %q: %v", a.StatusCode, a.body, err)
	}
	return v
}

func (a answer) text(t testing.TB, field string) string {
	t.Helper()
	s, _ := a.json(t)[field].(string)
	return s
}

// call makes a request as somebody (nil: anonymous). A body that is not a reader is sent as
// JSON.
func (h *harbour) call(as *account.Account, method, path string, body any, headers ...string) answer {
	h.t.Helper()
	reader, ok := body.(io.Reader)
	if !ok && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			h.t.Fatal(err)
		}
		reader = bytes.NewReader(b)
	}
	url := path
	if strings.HasPrefix(path, "/") {
		url = h.url + path
	} else if !strings.HasPrefix(path, "http") {
		url = h.url + "/xrpc/" + path
	}
	r, err := http.NewRequest(method, url, reader)
	if err != nil {
		h.t.Fatal(err)
	}
	if body != nil && !ok {
		r.Header.Set("Content-Type", "application/json")
	}
	if as != nil {
		r.Header.Set("Authorization", "Bearer "+as.ServiceToken(h.did, "com.atproto.repo.getRecord"))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{resp, b}
}

func (h *harbour) get(as *account.Account, path string) answer {
	h.t.Helper()
	return h.call(as, http.MethodGet, path, nil)
}

func (h *harbour) post(as *account.Account, nsid string, in any) answer {
	h.t.Helper()
	return h.call(as, http.MethodPost, nsid, in)
}

// fails checks that an answer is the XRPC error of that status and name.
func (h *harbour) fails(a answer, status int, name string) {
	h.t.Helper()
	if a.Request.Method == http.MethodHead {
		if a.StatusCode != status {
			h.t.Errorf("status %d, want %d", a.StatusCode, status)
		}
		return
	}
	got := a.json(h.t)
	message, _ := got["message"].(string)
	if a.StatusCode != status || got["error"] != name || message == "" {
		h.t.Errorf("%d %s, want %d %s with a message", a.StatusCode, a.body, status, name)
	}
	if status == http.StatusUnauthorized && a.Header.Get("WWW-Authenticate") == "" {
		h.t.Error("401 without WWW-Authenticate")
	}
	if status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
		h.t.Error("503 without Retry-After")
	}
}

func (h *harbour) works(a answer) answer {
	h.t.Helper()
	if a.StatusCode/100 != 2 {
		h.t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	return a
}

func digestOf(content string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))) }

// upload opens a session and sends the parts to the URLs that the hold gives.
func (h *harbour) upload(as *account.Account, contents ...string) (uploadID string, parts []map[string]any) {
	h.t.Helper()
	uploadID = h.works(h.post(as, "io.atcr.hold.initiateUpload", map[string]any{"digest": "uploads/temp-1"})).text(h.t, "uploadId")
	for i, content := range contents {
		target := h.works(h.post(as, "io.atcr.hold.getPartUploadUrl", map[string]any{"uploadId": uploadID, "partNumber": i + 1}))
		sent := h.works(h.call(nil, target.text(h.t, "method"), target.text(h.t, "url"), strings.NewReader(content)))
		parts = append(parts, map[string]any{"partNumber": i + 1, "etag": sent.Header.Get("ETag")})
	}
	return uploadID, parts
}

// store uploads a blob.
func (h *harbour) store(as *account.Account, contents ...string) (digest string) {
	h.t.Helper()
	id, parts := h.upload(as, contents...)
	digest = digestOf(strings.Join(contents, ""))
	h.works(h.post(as, "io.atcr.hold.completeUpload", map[string]any{"uploadId": id, "digest": digest, "parts": parts}))
	return digest
}
