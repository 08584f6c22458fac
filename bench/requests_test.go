package bench_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// BenchmarkRequest makes the small requests that holds get most, and requests to Caddy's respond directive in the same
// process, in turn.
func BenchmarkRequest(b *testing.B) {
	s3 := peer.Versitygw(b)
	h := newHold(b, fmt.Sprintf("s3 {\n bucket %s\n region %s\n endpoint %s\n access_key %s\n secret_key %s\n}",
		s3.Bucket, s3.Region, s3.Endpoint, s3.AccessKey, s3.SecretKey))
	blob := newContent(1 << 20)
	if err := h.upload(blob); err != nil {
		b.Fatalf("uploading: %v", err)
	}
	address := strings.TrimPrefix(h.url, "http://")
	captain := "/xrpc/com.atproto.repo.getRecord?collection=io.atcr.hold.captain&rkey=self&repo=" + h.did
	for _, bench := range []struct {
		name    string
		request request
	}{
		{"getBlobRedirect", get(address, h.blobPath(blob), 307)},
		{"getBlobURL", get(address, h.blobPath(blob)+"&method=GET", 200)},
		{"getRecord", get(address, captain, 200)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			control := get(address, respondPath, 200)
			measured := make(samples)
			for b.Loop() {
				respond := measured.requests(b, "respond", h, control)
				rate := measured.requests(b, "hold", h, bench.request)
				measured.add("x-respond", rate/respond)
			}
			measured.report(b)
		})
	}
}

// requests makes one kind of request for some time and returns the rate.
func (s samples) requests(b *testing.B, name string, h *hold, r request) float64 {
	b.Helper()
	worked := processorTime(b, h.process.PID())
	rate := load(b, strings.TrimPrefix(h.url, "http://"), r, *connections)
	worked = processorTime(b, h.process.PID()) - worked
	s.add(name+"-req/s", rate)
	s.add(name+"-cpu-µs/req", float64(worked.Microseconds())/(rate*duration.Seconds()))
	return rate
}
