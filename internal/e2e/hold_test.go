package e2e_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"

	"github.com/caddyhold/caddyhold/internal/account"
	"github.com/caddyhold/caddyhold/internal/appview"
	"github.com/caddyhold/caddyhold/internal/peer"
)

// startTimeout is long because the machine may be busy with other tests.
const startTimeout = time.Minute

// setup is how a hold is to be configured.
type setup struct {
	storage  string // lines of the storage subdirective; empty: the default
	public   bool
	proxied  bool   // no presigned URLs
	protocol string // h1 or h2: HTTPS as https://hold.test with this protocol; empty: plain HTTP
	trust    []byte // certificates that hold and clients trust besides, in PEM
	example  bool   // the example Caddyfile with the settings in an environment file, instead of one of our own

	onRequest  func(*http.Request)                 // sees what the AppView sends to the hold and to storage
	onResponse func(*http.Request, *http.Response) // and what comes back
}

// hold is a running hold with an AppView in front and a captain, Alice.
type hold struct {
	setup
	dir     string
	address string // where it listens
	url     string // public
	did     string
	process *peer.Process
	proxy   string // of the clients, where the public URL is a name

	directory *account.Directory
	alice     *account.Account
	client    *http.Client
	appview   *appview.AppView
	firehose  *firehose
	finished  bool
}

// start runs a hold until the test ends, when it is also checked.
func start(t *testing.T, s setup) *hold {
	t.Helper()
	h := &hold{setup: s, dir: t.TempDir(), address: peer.FreeAddress(t), directory: account.NewDirectory(t)}
	h.alice = h.directory.New(t, "alice.test", account.K256)
	h.url = "http://" + h.address
	h.did = "did:web:" + url.QueryEscape(h.address)
	if h.protocol != "" {
		h.url = "https://" + publicName
		h.did = "did:web:" + publicName
		h.proxy = startProxy(t, publicName+":443", h.address)
	}
	h.writeFile(t, "Caddyfile", h.caddyfile())
	h.writeFile(t, ".env.hold", h.environment())
	if h.trust != nil {
		h.writeFile(t, "trust.pem", string(h.trust))
	}
	h.client = &http.Client{Transport: &observer{h: h}, Timeout: 5 * time.Minute}
	h.run(t)
	h.appview = appview.New(h.url, h.did, h.client)
	h.firehose = follow(t, h)
	t.Cleanup(func() { h.finish(t) })
	return h
}

// restart runs a hold again that was killed.
func (h *hold) restart(t *testing.T) {
	t.Helper()
	h.run(t)
	t.Cleanup(func() { h.finish(t) }) // before the new process ends
}

func (h *hold) caddyfile() string {
	port := h.address[strings.LastIndex(h.address, ":"):]
	site, protocols := "http://"+h.address, "h1"
	if h.protocol != "" {
		site = "https://" + publicName + port
		protocols = h.protocol
		if protocols == "h2" {
			protocols = "h1 h2" // Caddy has no h2 without h1; clients prefer it
		}
	}
	var file strings.Builder
	fmt.Fprintf(&file, `{
	admin off
	auto_https disable_redirects
	skip_install_trust
	storage file_system %s
	servers {
		protocols %s
	}
}

%s {
	bind 127.0.0.1
`, filepath.Join(h.dir, "caddy"), protocols, site)
	if h.protocol != "" {
		file.WriteString("\ttls internal\n")
	}
	fmt.Fprintf(&file, `	atcr_hold {
		public_url %s
		owner %s
		data_dir %s
		plc_directory %s
		presigned_urls %t
		access {
			public %t
		}
		%s
	}
}
`, h.url, h.alice.DID, filepath.Join(h.dir, "data"), h.directory.URL, !h.proxied, h.public, h.storage)
	return file.String()
}

// environment is .env.hold, by the names that operators know.
func (h *hold) environment() string {
	return fmt.Sprintf(`HOLD_PUBLIC_URL=%s
HOLD_SERVER_ADDR=%s
HOLD_PUBLIC=%t
HOLD_OWNER=%s
HOLD_DATABASE_DIR=%s
STORAGE_DRIVER=filesystem
STORAGE_ROOT_DIR=%s
PLC_DIRECTORY_URL=%s
`, h.url, h.address, h.public, h.alice.DID, filepath.Join(h.dir, "data"), filepath.Join(h.dir, "blobs"), h.directory.URL)
}

func (h *hold) writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run starts the process and waits until it serves its DID document.
func (h *hold) run(t *testing.T) {
	t.Helper()
	args := []string{"run", "--config", filepath.Join(h.dir, "Caddyfile")}
	if h.example {
		args = []string{"run", "--config", "../../Caddyfile.example", "--envfile", filepath.Join(h.dir, ".env.hold")}
	}
	cmd := exec.Command(caddy, args...)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir, "CADDY_ADMIN=unix/"+filepath.Join(h.dir, "admin"))
	if h.trust != nil {
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+filepath.Join(h.dir, "trust.pem"))
	}
	h.process = peer.Start(t, cmd)
	ready := func() error {
		transport, err := h.transport()
		if err != nil {
			return err
		}
		defer transport.CloseIdleConnections()
		doc, err := fetchDocument(&http.Client{Transport: transport, Timeout: 5 * time.Second}, h.url)
		if err == nil && doc.DID.String() != h.did {
			t.Fatalf("the hold is %s, not %s", doc.DID, h.did)
		}
		return err
	}
	if err := h.process.WaitFor(startTimeout, ready); err != nil {
		t.Fatalf("waiting for the hold: %v", err)
	}
}

func fetchDocument(client *http.Client, holdURL string) (*identity.DIDDocument, error) {
	resp, err := client.Get(holdURL + "/.well-known/did.json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("did.json: status %d", resp.StatusCode)
	}
	doc := new(identity.DIDDocument)
	return doc, json.NewDecoder(resp.Body).Decode(doc)
}

// roots are the certificates that clients of the hold trust. Caddy makes its own at the first start.
func (h *hold) roots() ([]byte, error) {
	own, err := os.ReadFile(filepath.Join(h.dir, "caddy", "pki", "authorities", "local", "root.crt"))
	return append(own, h.trust...), err
}

// transport reaches the hold under its public name.
func (h *hold) transport() (*http.Transport, error) {
	if h.protocol == "" {
		return new(http.Transport), nil
	}
	roots, err := h.roots()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	proxy, err := url.Parse(h.proxy)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Hostname() != publicName {
				return nil, nil
			}
			return proxy, nil
		},
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		ForceAttemptHTTP2: h.protocol == "h2",
	}, nil
}

// clientEnv is the environment of programs that use the hold.
func (h *hold) clientEnv(t *testing.T) []string {
	t.Helper()
	env := append(os.Environ(), "HOME="+h.dir)
	if h.protocol == "" {
		return env
	}
	roots, err := h.roots()
	if err != nil {
		t.Fatal(err)
	}
	h.writeFile(t, "roots.pem", string(roots))
	return append(env, "SSL_CERT_FILE="+filepath.Join(h.dir, "roots.pem"), "HTTPS_PROXY="+h.proxy, "https_proxy="+h.proxy)
}

// get reads an XRPC query's output, decoding it if into is not nil, and returns its status.
func (h *hold) get(t *testing.T, query string, into any) int {
	t.Helper()
	resp, err := h.client.Get(h.url + "/xrpc/" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatalf("%s: %v in %s", query, err, body)
		}
	}
	return resp.StatusCode
}

// addCrew makes somebody a member, as the captain does.
func (h *hold) addCrew(t *testing.T, member *account.Account, permissions ...string) {
	t.Helper()
	input, err := json.Marshal(map[string]any{
		"repo":       h.did,
		"collection": "io.atcr.hold.crew",
		"record": map[string]any{
			"$type": "io.atcr.hold.crew", "member": member.DID, "role": "member",
			"permissions": permissions, "addedAt": time.Now().UTC().Format(time.RFC3339),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.url+"/xrpc/com.atproto.repo.createRecord", bytes.NewReader(input))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+h.alice.ServiceToken(h.did, "com.atproto.repo.createRecord"))
	h.do(t, r, nil)
}

// do sends a request that must succeed and decodes the answer, if into is not nil.
func (h *hold) do(t *testing.T, r *http.Request, into any) {
	t.Helper()
	resp, err := h.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", r.URL.Path, resp.StatusCode, err, body)
	}
	if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatalf("%s: %v in %s", r.URL.Path, err, body)
		}
	}
}
