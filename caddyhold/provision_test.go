package caddyhold_test

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestProvisionRefuses(t *testing.T) {
	t.Setenv("PROVISION_TEST_OWNER", "nobody")
	s3 := func(changes object) object {
		storage := object{"driver": "s3", "bucket": "blobs"}
		maps.Copy(storage, changes)
		return object{"storage": storage}
	}
	for name, tc := range map[string]struct {
		changes object
		want    string
	}{
		"no public URL":                     {object{"public_url": ""}, "public_url is required"},
		"a public URL without scheme":       {object{"public_url": "hold.example.com"}, "public_url: "},
		"a public URL of another scheme":    {object{"public_url": "ftp://hold.example.com"}, "is no http or https URL"},
		"a public URL with a path":          {object{"public_url": "https://example.com/hold"}, "more than a scheme"},
		"a public URL with a password":      {object{"public_url": "https://me:hunter2@example.com"}, "me:xxxxx@"},
		"a public URL that has no DID":      {object{"public_url": "http://[::1]:8080"}, "public_url: "},
		"a public URL of a host with space": {object{"public_url": "https://hold%20x.example.com"}, "public_url: "},
		"a public URL with no such port":    {object{"public_url": "https://example.com:99999"}, "port"},
		"a key's file that is not there":    {object{"signing_key": "{file./no/such/file}"}, "missing or empty"},
		"an upload URL with a query":        {object{"upload_url": "https://example.com?x=y"}, "upload_url: "},
		"a PLC directory that is no URL":    {object{"plc_directory": "plc"}, "plc_directory: "},
		"an owner that is no DID":           {object{"owner": "@alice.example.com"}, "owner: "},
		"an owner from the environment":     {object{"owner": "{env.PROVISION_TEST_OWNER}"}, "owner: "},
		"an unknown placeholder":            {object{"region": "{http.request.host}"}, "region: unrecognized placeholder"},
		"token methods it does not know":    {object{"access": object{"token_methods": "lax"}}, "token_methods: "},
		"a negative URL lifetime":           {object{"url_lifetime": "-1m"}, "url_lifetime: "},
		"a URL lifetime longer than S3's":   {object{"url_lifetime": "200h"}, "url_lifetime: "},
		"a region too long":                 {object{"region": strings.Repeat("r", 65)}, "region: "},
		"a storage driver it does not know": {object{"storage": object{"driver": "tape"}}, "unknown module: atcr_hold.storage.tape"},
		"a field it does not know":          {object{"publik": true}, "unknown field"},
		"S3 without a bucket":               {s3(object{"bucket": ""}), "bucket is required"},
		"S3 at no URL":                      {s3(object{"endpoint": "minio:9000"}), "endpoint: "},
		"S3 with half a credential":         {s3(object{"access_key": "id"}), "belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := provision(t, tc.changes); !contains(err, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestProvisionAccepts(t *testing.T) {
	t.Setenv("PROVISION_TEST_SECRET", "s")
	for name, changes := range map[string]object{
		"the least":                 nil,
		"a slash after the host":    {"public_url": "https://hold.example.com/"},
		"an upload URL at IPv6":     {"upload_url": "http://[::1]:8080"},
		"empty environment":         {"owner": "{env.PROVISION_TEST_UNSET}", "storage": object{"driver": "filesystem", "root": "{env.PROVISION_TEST_UNSET}"}},
		"secrets from environment":  {"storage": object{"driver": "s3", "bucket": "b", "access_key": "{env.PROVISION_TEST_SECRET}", "secret_key": "{env.PROVISION_TEST_SECRET}"}},
		"an S3 that is not there":   {"storage": object{"driver": "s3", "bucket": "b", "endpoint": "http://127.0.0.1:1"}},
		"a week for URLs":           {"url_lifetime": "168h"},
		"strict tokens":             {"access": object{"token_methods": "strict"}},
		"a data directory to make":  {"data_dir": "not/there/yet"},
		"an own PLC directory path": {"plc_directory": "https://example.com/plc"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := provision(t, changes); err != nil {
				t.Error(err)
			}
		})
	}
}

// Of several mistakes it is always the first that is reported.
func TestProvisionReportsInOrder(t *testing.T) {
	for range 10 {
		unknown := "{http.request.host}"
		changes := object{"public_url": unknown, "owner": unknown, "data_dir": unknown, "upload_url": unknown, "region": unknown}
		if err := provision(t, changes); !contains(err, "public_url: ") {
			t.Fatalf("got %v", err)
		}
		storage := object{"driver": "s3", "bucket": "b", "endpoint": "here", "public_endpoint": "there"}
		if err := provision(t, object{"storage": storage}); !contains(err, ": endpoint: ") {
			t.Fatalf("got %v", err)
		}
	}
}

// provision validates a configuration of one hold.
func provision(t *testing.T, changes object) error {
	t.Helper()
	site := &holdSite{t: t, port: "8080", dataDir: filepath.Join(t.TempDir(), "hold")}
	var parsed *caddy.Config
	if err := json.Unmarshal(config(t, site.server(site.handler(changes))), &parsed); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(parsed)
}
