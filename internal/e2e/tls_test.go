package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os/exec"
	"testing"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// TestPushAndPullThroughHTTPS has Caddy make its own certificates for the hold's name, where its identity resolves as it
// does on the internet: repo-tool fetches the key that it checks signatures with.
func TestPushAndPullThroughHTTPS(t *testing.T) {
	tests := []struct {
		name     string
		protocol string
		s3       bool
	}{
		{"HTTP 1.1 with filesystem", "h1", false},
		{"HTTP 2 with filesystem", "h2", false},
		{"HTTP 2 with S3 through TLS", "h2", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.protocol != "h2" {
				t.Skip("HTTP/2 only")
			}
			s := setup{protocol: tt.protocol}
			if tt.s3 {
				s3 := peer.Versitygw(t)
				endpoint, roots := s3.TLS(t, nil)
				s.storage = onS3(s3, endpoint)
				s.trust = certificate(t, hostOf(t, endpoint), roots)
			}
			h := start(t, s)
			pushAndPull(t, h, crane, oras)
			verify := exec.Command(peer.Tool(t, "repo-tool"), "verify-car-signature", h.export(t))
			verify.Env = h.clientEnv(t)
			if _, err := peer.Run(verify); err != nil {
				t.Errorf("repo-tool: %v", err)
			}
		})
	}
}

// certificate returns a server's certificate in PEM.
func certificate(t *testing.T, address string, roots *x509.CertPool) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
}
