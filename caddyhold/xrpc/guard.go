package xrpc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/bluesky-social/indigo/util/ssrf"
)

// Bounds of a fetch of an address that a caller chose.
const (
	fetchTimeout   = 5 * time.Second
	fetchRedirects = 3
	maxFetched     = 64 << 10
)

// guardedClient returns a client for addresses that callers choose. It connects to public
// addresses only, whatever DNS or a redirect says; test mode adds loopback. Time, redirects
// and size are bounded.
func guardedClient(testMode bool) *http.Client {
	dialer := &net.Dialer{Timeout: fetchTimeout, Control: func(network, address string, c syscall.RawConn) error {
		return checkAddress(network, address, c, testMode)
	}}
	return &http.Client{
		Timeout:   fetchTimeout,
		Transport: boundedTransport{&http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > fetchRedirects {
				return errors.New("too many redirects")
			}
			return nil
		},
	}
}

// trustedClient returns a client for addresses that the operator configured, private ones
// too. It follows no redirects, which could lead elsewhere.
func trustedClient() *http.Client {
	dialer := &net.Dialer{Timeout: fetchTimeout}
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: boundedTransport{&http.Transport{
			DialContext: dialer.DialContext, Proxy: http.ProxyFromEnvironment, IdleConnTimeout: fetchTimeout,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// boundedTransport bounds the size of every answer.
type boundedTransport struct{ next http.RoundTripper }

// statusKey is the context key of a *int for the status of the last answer.
type statusKey struct{}

// RoundTrip notes the answer's status for who wants to know, and bounds its body.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if status, ok := r.Context().Value(statusKey{}).(*int); ok {
		*status = resp.StatusCode
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
