package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/account"
	"github.com/caddyhold/caddyhold/internal/peer"
)

// hold is a hold in Caddy, as a process, whose captain calls it as an AppView does in the name of a user.
type hold struct {
	url     string
	did     string
	dir     string // of its blobs, where they are in the file system
	process *peer.Process
	client  *http.Client
	captain *account.Account

	mu      sync.Mutex
	token   string
	expires time.Time
}

// respondPath is where the hold's Caddy answers "ok" without the hold.
const respondPath = "/ok"

const caddyfile = `{
	admin %s
	auto_https off
	persist_config off
	log {
		level WARN
	}
}

%s {
	bind 127.0.0.1
	handle %s {
		respond "ok"
	}
	handle {
		atcr_hold {
			public_url %[2]s
			owner %[4]s
			data_dir %[5]s
			storage %[6]s
			access {
				public
			}
			plc_directory %[7]s
			test_mode
		}
	}
}
`

// onDisk keeps blobs in the file system, at the default place.
const onDisk = "filesystem"

// newHold starts a hold with a storage, as the Caddyfile writes it, until the benchmark ends.
func newHold(b *testing.B, storage string) *hold {
	b.Helper()
	directory := account.NewDirectory(b)
	address := peer.FreeAddress(b)
	data := filepath.Join(b.TempDir(), "hold")
	h := &hold{
		url:     "http://" + address,
		did:     "did:web:" + url.QueryEscape(address),
		dir:     filepath.Join(data, "blobs"),
		client:  newClient(b),
		captain: directory.New(b, "captain.test", account.K256),
	}
	config := filepath.Join(b.TempDir(), "Caddyfile")
	text := fmt.Sprintf(caddyfile, *admin, h.url, respondPath, h.captain.DID, data, storage, directory.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatalf("writing the Caddyfile: %v", err)
	}
	cmd := exec.Command(caddy(b), "run", "--adapter", "caddyfile", "--config", config)
	cmd.Env = append(os.Environ(), "HOME="+data, "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data)
	h.process = peer.Start(b, cmd)
	if err := h.process.WaitFor(30*time.Second, h.ready); err != nil {
		b.Fatalf("waiting for the hold: %v", err)
	}
	return h
}

// caddy builds the program, which takes a moment where Go has it in its cache.
func caddy(b *testing.B) string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "caddy")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/caddy")
	cmd.Dir = ".."
	if _, err := peer.Run(cmd); err != nil {
		b.Fatalf("building caddy: %v", err)
	}
	return program
}

func (h *hold) ready() error {
	resp, err := h.client.Get(h.url + "/xrpc/_health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// newClient speaks HTTP/1.1 over connections that it keeps.
func newClient(b *testing.B) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 5 * time.Minute}
}

// authorization is one token for all calls while it lives.
func (h *hold) authorization() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); now.After(h.expires) {
		h.token = "Bearer " + h.captain.ServiceToken(h.did, "com.atproto.repo.getRecord")
		h.expires = now.Add(account.TokenLife / 2)
	}
	return h.token
}

// call calls a procedure in the captain's name.
func (h *hold) call(nsid string, input, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return fmt.Errorf("encoding input of %s: %w", nsid, err)
	}
	r, err := http.NewRequest(http.MethodPost, h.url+"/xrpc/"+nsid, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", h.authorization())
	r.Header.Set("Content-Type", "application/json")
	_, err = exchange(h.client, r, http.StatusOK, output)
	return err
}

// exchange makes a request that must be answered with status, and decodes a JSON answer into output if that is not nil.
func exchange(client *http.Client, r *http.Request, status int, output any) (http.Header, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading answer to %s %s: %w", r.Method, r.URL.Path, err)
	}
	if resp.StatusCode != status {
		return nil, fmt.Errorf("%s %s: status %d: %s", r.Method, r.URL.Path, resp.StatusCode, body)
	}
	if output != nil {
		err = json.Unmarshal(body, output)
	}
	return resp.Header, err
}

// upload sends a blob as AppViews do: in parts of 10 MiB, one after the other, each to a URL that the hold gives for it.
func (h *hold) upload(c *content) error {
	type part struct {
		Number int    `json:"partNumber"`
		ETag   string `json:"etag"`
	}
	var session struct {
		ID string `json:"uploadId"`
	}
	if err := h.call("io.atcr.hold.initiateUpload", map[string]string{"digest": "uploads/temp-1"}, &session); err != nil {
		return err
	}
	var parts []part
	for i := range c.parts() {
		number := i + 1
		var target struct {
			URL string `json:"url"`
		}
		if err := h.call("io.atcr.hold.getPartUploadUrl", map[string]any{"uploadId": session.ID, "partNumber": number}, &target); err != nil {
			return err
		}
		body, size := c.part(i)
		r, err := http.NewRequest(http.MethodPut, target.URL, body)
		if err != nil {
			return err
		}
		r.ContentLength = size
		header, err := exchange(h.client, r, http.StatusOK, nil)
		if err != nil {
			return err
		}
		parts = append(parts, part{number, header.Get("ETag")})
	}
	return h.call("io.atcr.hold.completeUpload", map[string]any{"uploadId": session.ID, "digest": c.digest, "parts": parts}, nil)
}

// download gets a blob as clients do whom an AppView redirects, and returns its size.
func (h *hold) download(c *content) (int64, error) {
	r, err := http.NewRequest(http.MethodGet, h.url+h.blobPath(c)+"&method=GET", nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", h.authorization())
	var target struct {
		URL string `json:"url"`
	}
	if _, err := exchange(h.client, r, http.StatusOK, &target); err != nil {
		return 0, err
	}
	return fetch(h.client, target.URL)
}

// blobPath is the request target of getBlob.
func (h *hold) blobPath(c *content) string {
	return "/xrpc/com.atproto.sync.getBlob?did=" + h.did + "&cid=" + c.digest
}

// fetch gets a URL and counts the bytes of the answer.
func fetch(client *http.Client, url string) (int64, error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("getting a blob: status %d", resp.StatusCode)
	}
	return count(resp.Body)
}

// count reads to the end, in large pieces.
func count(r io.Reader) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		read, err := r.Read(buf)
		n += int64(read)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// path is the file of a blob in the file system.
func (h *hold) path(c *content) string { return blobPath(h.dir, c) }

// blobPath is where registries, and holds likewise, keep a blob below their root.
func blobPath(root string, c *content) string {
	return filepath.Join(root, "docker/registry/v2/blobs/sha256", c.hex()[:2], c.hex(), "data")
}
