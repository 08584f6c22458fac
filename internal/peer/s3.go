package peer

import (
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// S3 is a running S3 server with one empty bucket.
type S3 struct {
	Endpoint  string // base URL, http://127.0.0.1:port; requests are path-style
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
	Dir       string // folder of the bucket: an object is the file of the same path in it

	program string
	process *Process
}

// Versitygw starts a versitygw on a loopback port, storing in a temporary directory, until the test ends.
func Versitygw(t testing.TB) *S3 {
	t.Helper()
	s := &S3{
		Endpoint:  "http://" + FreeAddress(t),
		Region:    "us-east-1",
		AccessKey: "access-" + rand.Text(),
		SecretKey: "secret-" + rand.Text(),
		Bucket:    "hold",
		program:   Tool(t, "versitygw"),
	}
	s.Dir = filepath.Join(t.TempDir(), s.Bucket)
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		t.Fatalf("making bucket: %v", err)
	}
	s.Start(t)
	return s
}

// Start starts the server again after Stop, at the same address and with the same data.
func (s *S3) Start(t testing.TB) {
	t.Helper()
	address := s.Endpoint[len("http://"):]
	cmd := exec.Command(s.program, "--quiet", "--port", address, "--region", s.Region,
		"--access", s.AccessKey, "--secret", s.SecretKey, "posix", filepath.Dir(s.Dir))
	s.process = Start(t, cmd)
	if err := s.process.WaitFor(30*time.Second, func() error { return Listening(address) }); err != nil {
		t.Fatalf("waiting for S3 server: %v", err)
	}
}

// Stop takes the server away; its data stays.
func (s *S3) Stop() { s.process.Kill() }

// TLS puts a reverse proxy with a certificate of its own in front of the server, and returns its base URL and the pool that
// trusts it. wrap, where not nil, may look at, change, delay or answer requests on their way.
func (s *S3) TLS(t testing.TB, wrap func(http.Handler) http.Handler) (endpoint string, roots *x509.CertPool) {
	t.Helper()
	proxy := httptest.NewUnstartedServer(s.proxy(wrap))
	proxy.EnableHTTP2 = true
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	roots = x509.NewCertPool()
	roots.AddCert(proxy.Certificate())
	return proxy.URL, roots
}

// Proxy is TLS without the encryption.
func (s *S3) Proxy(t testing.TB, wrap func(http.Handler) http.Handler) (endpoint string) {
	t.Helper()
	proxy := httptest.NewServer(s.proxy(wrap))
	t.Cleanup(proxy.Close)
	return proxy.URL
}

func (s *S3) proxy(wrap func(http.Handler) http.Handler) http.Handler {
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		panic(err) // the endpoint is our own
	}
	var handler http.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
	}
	if wrap != nil {
		handler = wrap(handler)
	}
	return handler
}
