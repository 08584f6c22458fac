//go:build peers

package e2e_test

import (
	"os/exec"
	"testing"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// skopeo is the Debian package, not a tool that the tests build.
var skopeo = client{
	name: "skopeo",
	push: func(dir, ref string) []string {
		return []string{"--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:" + dir + ":v1", "docker://" + ref}
	},
	pull: func(ref, dir string) []string {
		return []string{"--insecure-policy", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://" + ref, "oci:" + dir + ":v1"}
	},
}

func TestPushAndPullWithSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(t *testing.T) setup{
		"filesystem public": func(*testing.T) setup { return setup{public: true} },
		"filesystem HTTPS":  func(*testing.T) setup { return setup{protocol: "h2"} },
		"S3 private":        func(t *testing.T) setup { return setup{storage: onS3(peer.Versitygw(t), "")} },
		"S3 public proxied": func(t *testing.T) setup {
			return setup{storage: onS3(peer.Versitygw(t), ""), public: true, proxied: true}
		},
	}
	for name, s := range tests {
		t.Run(name, func(t *testing.T) {
			pushAndPull(t, start(t, s(t)), skopeo, crane)
		})
	}
}

func TestLargeLayerWithSkopeo(t *testing.T) {
	h := start(t, setup{public: true, storage: onS3(peer.Versitygw(t), "")})
	ref := h.appview.Serve(t, h.alice) + "/alice.test/large:v1"
	image := newImage(t, 205<<20)
	if err := skopeo.pushImage(t, h, image, ref); err != nil {
		t.Fatal(err)
	}
	if err := skopeo.pullImage(t, h, ref, image); err != nil {
		t.Error(err)
	}
}
