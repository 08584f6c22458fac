package xrpc

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestGuardRefusesAddressesThatAreNotPublic(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1:443", "127.8.9.10:80", "[::1]:443", "0.0.0.0:80", "[::]:443",
		"10.0.0.1:443", "172.16.0.1:443", "192.168.1.1:443", "100.64.0.1:443",
		"169.254.169.254:80", "[fe80::1]:443", "[fc00::1]:443", "[fd00:ec2::254]:80",
		"[::ffff:127.0.0.1]:443", "[::ffff:10.0.0.1]:443", "[2002:7f00:1::]:443", "[2001:0:53aa::1]:443",
		"[64:ff9b::7f00:1]:443", "8.8.8.8:22", "224.0.0.1:80", "255.255.255.255:80", "not an address",
	} {
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		if err := checkAddress(network, address, nil, false); err == nil {
			t.Errorf("%s is let through", address)
		}
		loopback := strings.HasPrefix(address, "127.") || strings.HasPrefix(address, "[::1]") || strings.HasPrefix(address, "[::ffff:127.")
		if err := checkAddress(network, address, nil, true); (err == nil) != loopback {
			t.Errorf("%s in test mode: %v", address, err)
		}
	}
	for _, address := range []string{"1.1.1.1:443", "8.8.8.8:80"} {
		if err := checkAddress("tcp4", address, nil, false); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestGuardedClient(t *testing.T) {
	var handler http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r) }))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(base.Host)
	if err != nil {
		t.Fatal(err)
	}
	get := func(client *http.Client, url string) (string, error) {
		resp, err := client.Get(url)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}

	handler = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }
	if body, err := get(guardedClient(false), server.URL); err == nil {
		t.Errorf("loopback answered %q, want no connection", body)
	}
	if body, err := get(guardedClient(false), "http://localhost:"+port); err == nil {
		t.Errorf("a name for loopback answered %q, want no connection", body)
	}
	if body, err := get(guardedClient(true), server.URL); err != nil || body != "here" {
		t.Errorf("loopback in test mode: %q, %v", body, err)
	}
	if body, err := get(trustedClient(), server.URL); err != nil || body != "here" {
		t.Errorf("a configured address: %q, %v", body, err)
	}

	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	defer other.Close()
	handler = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }
	if body, _ := get(trustedClient(), server.URL); strings.Contains(body, "secret") {
		t.Error("a configured address led elsewhere")
	}
	handler = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }
	if _, err := get(guardedClient(true), server.URL); err == nil {
		t.Error("endless redirects end without an error")
	}
	handler = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxFetched+1)) }
	for _, client := range []*http.Client{guardedClient(true), trustedClient()} {
		if _, err := get(client, server.URL); err == nil {
			t.Error("an endless body ends without an error")
		}
	}
}

func TestLoopbackResolverAsksForNothingButTheDocument(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		http.NotFound(w, r)
	}))
	defer server.Close()
	issuers := newIssuers(Options{TestMode: true, Memory: NewMemory()})
	host := strings.Replace(strings.TrimPrefix(server.URL, "http://"), ":", "%3A", 1)
	for _, did := range []string{host, host + "%2Fstop%3F", host + "%23", "user%40" + host, host + ":stop"} {
		if _, err := issuers.key(t.Context(), syntax.DID("did:web:"+did)); err == nil {
			t.Errorf("%s is resolved", did)
		}
	}
	if len(asked) != 1 || asked[0] != "/.well-known/did.json" {
		t.Errorf("asked for %q, want the document of the first alone", asked)
	}
}

func TestLoopbackHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:80": true, "a.localhost": true, "127.0.0.1:1": true, "[::1]:8080": true, "[::1]": true, "127.9.9.9": true,
		"example.com": false, "localhost.example.com": false, "10.0.0.1:80": false, "": false, "127.0.0.1.example.com": false,
	} {
		if got := isLoopbackHost(host); got != want {
			t.Errorf("isLoopbackHost(%q) = %t, want %t", host, got, want)
		}
	}
}
