package s3_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

// Google rewrites Accept-Encoding; Ceph, over TLS, refuses checksums and
// trailers that nobody needs.
func TestRequestsBearNothingThatVendorsRefuse(t *testing.T) {
	bucket := peer.Versitygw(t)
	var requests atomic.Int64
	endpoint, roots := bucket.TLS(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			signed := strings.ToLower(r.Header.Get("Authorization"))
			for _, name := range []string{"accept-encoding", "x-amz-trailer", "x-amz-sdk-checksum-algorithm", "x-amz-checksum-crc", "content-encoding", "expect"} {
				if strings.Contains(signed, name) || r.Header.Get(name) != "" {
					t.Errorf("%s %s has %s", r.Method, r.URL, name)
				}
			}
			if r.ContentLength < 0 {
				t.Errorf("%s %s has no length", r.Method, r.URL)
			}
			next.ServeHTTP(w, r)
		})
	})
	d := open(t, bucket, s3.Config{Endpoint: endpoint, Client: s3.ClientTrusting(roots)})
	d.LimitCopies(6<<20, 5<<20)
	content := bytesOf(12<<20, 6)
	if err := push(t, d, uploadID, content); err != nil {
		t.Fatal(err)
	}
	expectStored(t, d, content)
	if requests.Load() < 10 {
		t.Errorf("only %d requests were seen", requests.Load())
	}
}
