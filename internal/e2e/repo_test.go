package e2e_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// finish checks what must hold after every test: the firehose has told of every commit, each frame proves itself, the
// exported repository is whole and signed with the key of the DID document, and the hold ends when it is asked to.
func (h *hold) finish(t *testing.T) {
	if h.finished || t.Failed() {
		return
	}
	h.finished = true
	var latest struct {
		CID string `json:"cid"`
		Rev string `json:"rev"`
	}
	if status := h.get(t, "com.atproto.sync.getLatestCommit?did="+h.did, &latest); status != http.StatusOK {
		t.Fatalf("getLatestCommit: status %d", status)
	}
	if err := h.firehose.waitFor(latest.Rev, 30*time.Second); err != nil {
		t.Error(err)
	}
	h.checkSignature(t, h.export(t))
	h.client.CloseIdleConnections() // a server that ends gives a connection never used 5 s for its first request
	if err := h.process.Stop(30 * time.Second); err != nil {
		t.Errorf("the hold did not end well: %v\n%s", err, h.process.Output())
	}
}

// export returns the repository as a CAR file that repo-tool accepts.
func (h *hold) export(t *testing.T) (file string) {
	t.Helper()
	resp, err := h.client.Get(h.url + "/xrpc/com.atproto.sync.getRepo?did=" + h.did)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	car, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("getRepo: status %d, %v", resp.StatusCode, err)
	}
	file = filepath.Join(t.TempDir(), "repo.car")
	if err := os.WriteFile(file, car, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Run(exec.Command(peer.Tool(t, "repo-tool"), "verify-car-mst", file)); err != nil {
		t.Errorf("repo-tool: %v", err)
	}
	return file
}

// checkSignature checks the newest commit. It does for any DID what repo-tool does where it can resolve it.
func (h *hold) checkSignature(t *testing.T, file string) {
	t.Helper()
	car, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	commit, _, err := repo.LoadRepoFromCAR(context.Background(), bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := fetchDocument(h.client, h.url)
	if err != nil {
		t.Fatal(err)
	}
	who := identity.ParseIdentity(doc)
	key, err := who.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.VerifySignature(key); err != nil {
		t.Errorf("the commit's signature: %v", err)
	}
}
