package s3_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
	"github.com/caddyhold/caddyhold/internal/peer"
)

func TestPresignedURLsPointAtTheBucketAsClientsReachIt(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		config s3.Config
		want   string
	}{
		"amazon":                 {s3.Config{Region: "eu-west-1"}, "https://bucket.s3.eu-west-1.amazonaws.com/k"},
		"amazon, path":           {s3.Config{PathStyle: &yes}, "https://s3.us-east-1.amazonaws.com/bucket/k"},
		"endpoint":               {s3.Config{Endpoint: "http://minio:9000"}, "http://minio:9000/bucket/k"},
		"endpoint and slash":     {s3.Config{Endpoint: "http://minio:9000/"}, "http://minio:9000/bucket/k"},
		"endpoint with a path":   {s3.Config{Endpoint: "https://example.com/s3"}, "https://example.com/s3/bucket/k"},
		"endpoint, host style":   {s3.Config{Endpoint: "https://example.com", PathStyle: &no}, "https://bucket.example.com/k"},
		"public endpoint":        {s3.Config{Endpoint: "http://minio:9000", PublicEndpoint: "https://s3.example.com"}, "https://s3.example.com/bucket/k"},
		"prefix":                 {s3.Config{Endpoint: "http://minio:9000", Prefix: "/a/b/"}, "http://minio:9000/bucket/a/b/k"},
		"prefix to be escaped":   {s3.Config{Endpoint: "http://minio:9000", Prefix: "a b+ü%"}, "http://minio:9000/bucket/a%20b%2B%C3%BC%25/k"},
		"public, amazon's own":   {s3.Config{PublicEndpoint: "https://cdn.example.com"}, "https://bucket.cdn.example.com/k"},
		"public, path style too": {s3.Config{PublicEndpoint: "https://cdn.example.com", PathStyle: &yes}, "https://cdn.example.com/bucket/k"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Bucket, c.config.AccessKey, c.config.SecretKey = "bucket", "key", "secret"
			d, err := s3.New(t.Context(), c.config)
			if err != nil {
				t.Fatal(err)
			}
			signed, err := d.Presign(t.Context(), "k", http.MethodGet, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(signed)
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			u.RawQuery = ""
			if u.String() != c.want || q.Get("X-Amz-Expires") != "60" || q.Get("X-Amz-SignedHeaders") != "host" {
				t.Errorf("%s, want %s…", signed, c.want)
			}
		})
	}
}

func TestKeysThatNeedEscapingWorkEverywhere(t *testing.T) {
	bucket := peer.Versitygw(t)
	d := open(t, bucket, s3.Config{Prefix: "a b+ü=@,/$&"})
	content := bytesOf(6<<20, 5)
	if err := push(t, d, uploadID, content); err != nil {
		t.Fatal(err)
	}
	expectStored(t, d, content)
	signed, err := d.Presign(t.Context(), blobs.Key(digestOf(content)), http.MethodHead, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Head(signed)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(content)) {
		t.Errorf("%d, %d bytes", resp.StatusCode, resp.ContentLength)
	}
}
