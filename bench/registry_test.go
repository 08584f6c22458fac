package bench_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// registry is the distribution project's registry, as a process, with blobs in the file system.
type registry struct {
	url     string
	dir     string
	process *peer.Process
	client  *http.Client
}

const registryConfig = `version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
http:
  addr: %s
`

// newRegistry starts a registry until the benchmark ends.
func newRegistry(b *testing.B) *registry {
	b.Helper()
	address := peer.FreeAddress(b)
	g := &registry{url: "http://" + address, dir: filepath.Join(b.TempDir(), "registry"), client: newClient(b)}
	config := filepath.Join(b.TempDir(), "registry.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, registryConfig, g.dir, address), 0o600); err != nil {
		b.Fatalf("writing the registry's configuration: %v", err)
	}
	cmd := exec.Command(peer.Tool(b, "registry"), "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	g.process = peer.Start(b, cmd)
	if err := g.process.WaitFor(30*time.Second, func() error { return peer.Listening(address) }); err != nil {
		b.Fatalf("waiting for the registry: %v", err)
	}
	return g
}

const blobsURL = "/v2/bench/blobs/"

// upload sends a blob as docker does: all of it in one PATCH, then a PUT with the digest.
func (g *registry) upload(c *content) error {
	location, err := g.send(http.MethodPost, g.url+blobsURL+"uploads/", nil, 0, http.StatusAccepted)
	if err != nil {
		return err
	}
	location, err = g.send(http.MethodPatch, location, c.reader(), c.size, http.StatusAccepted)
	if err != nil {
		return err
	}
	_, err = g.send(http.MethodPut, location+"&digest="+c.digest, nil, 0, http.StatusCreated)
	return err
}

// send makes one request of an upload and returns where the next one goes.
func (g *registry) send(method, url string, body io.Reader, size int64, status int) (location string, err error) {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err
	}
	r.ContentLength = size
	r.Header.Set("Content-Type", "application/octet-stream")
	header, err := exchange(g.client, r, status, nil)
	if err != nil {
		return "", err
	}
	return header.Get("Location"), nil
}

// download gets a blob and returns its size.
func (g *registry) download(c *content) (int64, error) {
	return fetch(g.client, g.url+blobsURL+c.digest)
}

// path is the file of a blob.
func (g *registry) path(c *content) string { return blobPath(g.dir, c) }
