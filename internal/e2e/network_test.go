package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// publicName is the host of holds with HTTPS. ATProto knows no ports in did:web, and tests have no port 443: clients get
// there through a proxy.
const publicName = "hold.test"

// startProxy runs an HTTP proxy that tunnels connections to name, and to nowhere else, to an address.
func startProxy(t *testing.T, name, address string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != name {
			http.Error(w, "not here: "+r.Host, http.StatusForbidden)
			return
		}
		there, err := net.DialTimeout("tcp", address, 10*time.Second)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			there.Close()
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		tunnel(here, there)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func tunnel(here, there net.Conn) {
	pipe := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		to.Close()
		from.Close()
	}
	go pipe(here, there)
	pipe(there, here)
}

// observer is the transport of the AppView, which a test can watch. It checks the protocol of what it sees.
type observer struct {
	h *hold

	mu        sync.Mutex
	transport *http.Transport
}

// RoundTrip sends a request on.
func (o *observer) RoundTrip(r *http.Request) (*http.Response, error) {
	transport, err := o.dialer()
	if err != nil {
		return nil, err
	}
	if o.h.onRequest != nil {
		o.h.onRequest(r)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if want := o.h.protocol; want != "" && r.URL.Host == publicName && !strings.HasSuffix(want, fmt.Sprint(resp.ProtoMajor)) {
		return nil, fmt.Errorf("the hold speaks %s, not %s", resp.Proto, want)
	}
	if o.h.onResponse != nil {
		o.h.onResponse(r, resp)
	}
	return resp, nil
}

// CloseIdleConnections is for http.Client.CloseIdleConnections.
func (o *observer) CloseIdleConnections() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.transport != nil {
		o.transport.CloseIdleConnections()
	}
}

// dialer waits with the first connection until the hold has made its certificate.
func (o *observer) dialer() (*http.Transport, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.transport == nil {
		transport, err := o.h.transport()
		if err != nil {
			return nil, err
		}
		o.transport = transport
	}
	return o.transport, nil
}
