package caddyhold_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

type object = map[string]any

// holdSite is a hold that a test runs in Caddy, on a port of its own.
type holdSite struct {
	t       *testing.T
	port    string
	dataDir string
	client  *http.Client
}

func newHoldSite(t *testing.T) *holdSite {
	t.Helper()
	transport := &http.Transport{
		DisableKeepAlives:     true, // a reload closes them, if need be under a request
		ExpectContinueTimeout: 10 * time.Second,
	}
	return &holdSite{
		t:       t,
		port:    freePort(t),
		dataDir: filepath.Join(t.TempDir(), "hold"),
		client:  &http.Client{Transport: transport, Timeout: 30 * time.Second},
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (s *holdSite) url() string { return "http://127.0.0.1:" + s.port }
func (s *holdSite) did() string { return "did:web:127.0.0.1%3A" + s.port }

// handler is the hold's configuration, with changes.
func (s *holdSite) handler(changes object) object {
	h := object{"handler": "atcr_hold", "public_url": s.url(), "data_dir": s.dataDir}
	maps.Copy(h, changes)
	return h
}

// server is a Caddy server on the site's port.
func (s *holdSite) server(handlers ...object) object {
	return object{
		"listen": []string{"127.0.0.1:" + s.port},
		"routes": []object{{"handle": handlers}},
	}
}

// config is a configuration of Caddy with these servers.
func config(t *testing.T, servers ...object) []byte {
	t.Helper()
	named := make(object)
	for i, server := range servers {
		named[fmt.Sprintf("srv%d", i)] = server
	}
	encoded, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "discard"}}}},
		"storage": object{"module": "file_system", "root": t.TempDir()},
		"apps": object{
			"http": object{"servers": named},
			"tls":  object{"disable_storage_check": true, "disable_storage_clean": true},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// load has Caddy run a configuration, and stop when the test ends.
func load(t *testing.T, config []byte) {
	t.Helper()
	if err := caddy.Load(config, true); err != nil {
		t.Fatalf("loading the configuration: %v", err)
	}
}

// stopAtEnd stops Caddy when the test ends.
func stopAtEnd(t *testing.T) {
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Errorf("stopping Caddy: %v", err)
		}
	})
}

// answer is what came back for a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// do sends a request as nobody, or as the hold itself, which is its own captain. It tries
// again where Caddy closed a listener with a connection that it had not accepted yet.
func (s *holdSite) do(method, path string, captain bool, body io.ReadSeeker, header ...string) (a answer, err error) {
	for range 20 {
		if a, err = s.try(method, path, captain, body, header...); err == nil {
			return a, nil
		}
		time.Sleep(5 * time.Millisecond)
		if body != nil {
			if _, err := body.Seek(0, io.SeekStart); err != nil {
				return answer{}, err
			}
		}
	}
	return a, err
}

func (s *holdSite) try(method, path string, captain bool, body io.Reader, header ...string) (answer, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url()+path, body)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if captain {
		token, err := s.token()
		if err != nil {
			return answer{}, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, got}, err
}

// get reads what anybody may, and call sends JSON as the captain; both fail the test where
// the status is not 200.
func (s *holdSite) get(path string, into any) {
	s.t.Helper()
	s.decode("GET "+path, into)(s.do("GET", path, false, nil))
}

func (s *holdSite) call(nsid string, input, into any) {
	s.t.Helper()
	s.decode(nsid, into)(s.post(nsid, input))
}

func (s *holdSite) post(nsid string, input any) (answer, error) {
	encoded, err := json.Marshal(input)
	if err != nil {
		return answer{}, err
	}
	return s.do("POST", "/xrpc/"+nsid, true, bytes.NewReader(encoded), "Content-Type", "application/json")
}

func (s *holdSite) decode(what string, into any) func(answer, error) {
	s.t.Helper()
	return func(a answer, err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
		if a.status != http.StatusOK {
			s.t.Fatalf("%s: %s", what, a)
		}
		if into == nil {
			return
		}
		if err := json.Unmarshal(a.body, into); err != nil {
			s.t.Fatalf("%s: %v in %s", what, err, a.body)
		}
	}
}

// token is a service token that the hold's key signs for itself: the operator's.
func (s *holdSite) token() (string, error) {
	key, err := pds.LoadOrCreateKey(filepath.Join(s.dataDir, "signing.key"))
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(object{
		"iss": s.did(), "aud": s.did(), "exp": time.Now().Add(time.Minute).Unix(), "jti": fmt.Sprint(time.Now().UnixNano()),
	})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"typ":"JWT","alg":"ES256K"}`)) + "." + encode(claims)
	signature, err := key.HashAndSign([]byte(signed))
	return signed + "." + encode(signature), err
}

// note is a record that means nothing to a hold.
func (s *holdSite) note(text string) object {
	return object{
		"repo": s.did(), "collection": "com.example.note",
		"record": object{"$type": "com.example.note", "text": text},
	}
}

// head is the hold's latest commit.
type head struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

func (s *holdSite) head() (h head) {
	s.t.Helper()
	s.get("/xrpc/com.atproto.sync.getLatestCommit?did="+s.did(), &h)
	return h
}

// captainRecord is what AppViews read to know a hold's policy.
type captainRecord struct {
	Owner        string `json:"owner"`
	Public       bool   `json:"public"`
	AllowAllCrew bool   `json:"allowAllCrew"`
	Region       string `json:"region"`
}

func (s *holdSite) captain() captainRecord {
	s.t.Helper()
	var got struct {
		Value captainRecord `json:"value"`
	}
	s.get("/xrpc/com.atproto.repo.getRecord?collection=io.atcr.hold.captain&rkey=self&repo="+s.did(), &got)
	return got.Value
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// resources are what a leak would use up.
type resources struct{ goroutines, descriptors int }

func usedResources(t *testing.T) resources {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("this system does not list descriptors: %v", err)
	}
	return resources{runtime.NumGoroutine(), len(entries)}
}

// settledResources is what is used when a while has brought no change: what a test before
// this one, or a reload, left to finish by itself is gone then.
func settledResources(t *testing.T) resources {
	t.Helper()
	last, since := usedResources(t), time.Now()
	eventually(t, "no change in goroutines and descriptors", func() bool {
		if now := usedResources(t); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
	return last
}

// noLeak waits until not more is used than before.
func noLeak(t *testing.T, before resources) {
	t.Helper()
	var now resources
	defer func() {
		if t.Failed() {
			stacks := make([]byte, 1<<20)
			t.Logf("before %+v, now %+v\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
		}
	}()
	eventually(t, "as few goroutines and descriptors as before", func() bool {
		now = usedResources(t)
		return now.goroutines <= before.goroutines && now.descriptors <= before.descriptors
	})
}

// within is the test's context with a timeout.
func within(t *testing.T, timeout time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }
