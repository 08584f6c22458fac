package caddyhold_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Metrics count by method, go on through reloads, and do not let strangers make up labels.
func TestMetrics(t *testing.T) {
	site, metrics := newHoldSite(t), newHoldSite(t)
	stopAtEnd(t)
	with := config(t, site.server(site.handler(nil)), metrics.server(object{"handler": "metrics"}))
	load(t, with)
	for _, path := range []string{"/xrpc/_health", "/xrpc/com.example.made.up", "/.well-known/did.json"} {
		if _, err := site.do("GET", path, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := site.do("OPTIONS", "/xrpc/com.example.another", false, nil); err != nil {
		t.Fatal(err)
	}
	load(t, with)
	site.follow()
	site.get("/xrpc/_health", nil)

	a, err := metrics.do("GET", "/", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	hold := `hold="` + site.did() + `"`
	for _, want := range []string{
		`caddy_atcr_hold_requests_total{` + hold + `,nsid="_health",status="2xx"} 2`,
		`caddy_atcr_hold_requests_total{` + hold + `,nsid="none",status="5xx"} 1`,
		`caddy_atcr_hold_requests_total{` + hold + `,nsid="none",status="2xx"} 2`,
		`caddy_atcr_hold_requests_in_flight{` + hold + `} 1`,
		`caddy_atcr_hold_firehose_consumers{` + hold + `} 1`,
		`caddy_atcr_hold_blobs{` + hold + `} 0`,
		`caddy_atcr_hold_blob_bytes{` + hold + `} 0`,
		`caddy_atcr_hold_open_uploads{` + hold + `} 0`,
		`caddy_atcr_hold_request_duration_seconds_count{` + hold + `,nsid="_health"} 2`,
	} {
		if !strings.Contains(string(a.body), want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(string(a.body), "com.example") {
		t.Error("strangers make up labels")
	}
}

// Access logs say which method was called, by whom and on which blob.
func TestAccessLogFields(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	path := filepath.Join(t.TempDir(), "access.log")
	server := site.server(site.handler(nil))
	server["logs"] = object{"default_logger_name": "access"}
	var logging object
	if err := json.Unmarshal(config(t, server), &logging); err != nil {
		t.Fatal(err)
	}
	logging["logging"] = object{"logs": object{"access": object{
		"writer": object{"output": "file", "filename": path, "roll": false}, "include": []string{"http.log.access.access"},
	}}}
	encoded, err := json.Marshal(logging)
	if err != nil {
		t.Fatal(err)
	}
	load(t, encoded)
	digest := "sha256:" + strings.Repeat("0", 64)
	if _, err := site.do("GET", "/xrpc/com.atproto.sync.getBlob?did=x&cid="+digest, true, nil); err != nil {
		t.Fatal(err)
	}

	var line struct {
		NSID   string `json:"nsid"`
		DID    string `json:"did"`
		Digest string `json:"digest"`
		Status int    `json:"status"`
	}
	eventually(t, "a line in the access log", func() bool {
		log, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(log, &line) == nil
	})
	if line.NSID != "com.atproto.sync.getBlob" || line.DID != site.did() || line.Digest != digest || line.Status != 404 {
		t.Errorf("got %+v", line)
	}
}
