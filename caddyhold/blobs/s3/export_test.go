package s3

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"
)

// LimitCopies has objects of a few megabytes count as large.
func (d *Driver) LimitCopies(whole, part int64) { d.copyLimit, d.copyPartSize = whole, part }

// ClientTrusting is the client of the driver for a server of that certificate.
func ClientTrusting(roots *x509.CertPool) *http.Client {
	client := newClient()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
	return client
}

// Hurry bounds small requests by less time.
func (d *Driver) Hurry(limit time.Duration) { d.quickTimeout = limit }
