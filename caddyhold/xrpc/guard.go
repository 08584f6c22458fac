package xrpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/bluesky-social/indigo/util/ssrf"
)

// Bounds of a fetch of an address that a caller chose.
const (
	fetchTimeout   = 5 * time.Second
	fetchRedirects = 3
	maxFetched     = 256 << 10
)

// guardedClient returns a client for addresses that callers choose. It connects to public
// addresses only, whatever DNS or a redirect says; test mode adds loopback. Requests to
// the configured base URL are trusted. Time, redirects and size are bounded.
func guardedClient(trusted string, testMode bool) *http.Client {
	plain := &net.Dialer{Timeout: fetchTimeout}
	guarded := &net.Dialer{Timeout: fetchTimeout, Control: func(network, address string, c syscall.RawConn) error {
		return checkAddress(network, address, c, testMode)
	}}
	t := &guardedTransport{
		trusted: &http.Transport{DialContext: plain.DialContext, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		guarded: &http.Transport{DialContext: guarded.DialContext, DisableKeepAlives: true},
	}
	if u, err := url.Parse(trusted); err == nil {
		t.scheme, t.host = u.Scheme, u.Host
	}
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: t,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > fetchRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

// guardedTransport sends what goes to the trusted host freely and guards the rest.
type guardedTransport struct {
	scheme, host     string // of the trusted base URL
	trusted, guarded http.RoundTripper
}

// RoundTrip bounds the size of every answer.
func (t *guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	next := t.guarded
	if r.URL.Scheme == t.scheme && r.URL.Host == t.host {
		next = t.trusted
	}
	resp, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxFetched}
	return resp, nil
}

// boundedBody fails where a body is too long, rather than ending as if it were whole.
type boundedBody struct {
	io.ReadCloser
	left int
}

// Read reads at most what is left.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxFetched)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// embedsIPv4 are ranges of public IPv6 addresses that lead to any IPv4 address: 6to4, Teredo.
var embedsIPv4 = []netip.Prefix{netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32")}

// checkAddress runs after DNS, right before each connection.
func checkAddress(network, address string, c syscall.RawConn, testMode bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%s is no address", address)
	}
	ip := ap.Addr().Unmap()
	if testMode && ip.IsLoopback() {
		return nil
	}
	for _, p := range embedsIPv4 {
		if p.Contains(ip) {
			return fmt.Errorf("%s is not a public address", ip)
		}
	}
	return ssrf.PublicOnlyControl(network, address, c)
}

// isLoopbackHost says whether a host, with or without port, names this machine.
func isLoopbackHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}
