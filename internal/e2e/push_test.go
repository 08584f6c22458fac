package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyhold/caddyhold/internal/account"
	"github.com/caddyhold/caddyhold/internal/peer"
)

// onS3 is the storage configuration for an S3 server; endpoint, where it is not empty, is how to reach it.
func onS3(s3 *peer.S3, endpoint string) string {
	if endpoint == "" {
		endpoint = s3.Endpoint
	}
	return fmt.Sprintf("storage s3 {\nbucket %s\nregion %s\nendpoint %s\naccess_key %s\nsecret_key %s\n}",
		s3.Bucket, s3.Region, endpoint, s3.AccessKey, s3.SecretKey)
}

// TestPushAndPull has each client pull what each client has pushed, on every kind of hold.
func TestPushAndPull(t *testing.T) {
	for _, storage := range []string{"filesystem", "s3"} {
		for _, public := range []bool{true, false} {
			for _, proxied := range []bool{false, true} {
				name := fmt.Sprintf("%s public=%t proxied=%t", storage, public, proxied)
				t.Run(name, func(t *testing.T) {
					if testing.Short() && public != (storage == "filesystem") {
						t.Skip("one hold of each storage, not all")
					}
					s := setup{public: public, proxied: proxied}
					storageHost := ""
					if storage == "s3" {
						s3 := peer.Versitygw(t)
						s.storage = onS3(s3, "")
						storageHost = hostOf(t, s3.Endpoint)
					}
					h := start(t, s)
					pushAndPull(t, h, crane, oras)
					if wantDirect := storage == "s3" && !proxied; wantDirect != (blobHost(t, h) == storageHost) {
						t.Errorf("blobs come from %s, storage is at %q", blobHost(t, h), storageHost)
					}
				})
			}
		}
	}
}

// pushAndPull has each client push images of every kind as the captain, and all clients pull them as somebody who may.
func pushAndPull(t *testing.T, h *hold, clients ...client) {
	t.Helper()
	captain := h.appview.Serve(t, h.alice)
	bob := h.directory.New(t, "bob.test", account.P256)
	reader := h.appview.Serve(t, nil)
	if !h.public {
		h.addCrew(t, bob, "blob:read")
		reader = h.appview.Serve(t, bob)
	}
	images := map[string]*layout{"image": newImage(t, 11<<20), "index": newIndex(t)}
	for kind, image := range images {
		for _, pusher := range clients {
			ref := "/alice.test/" + kind + "-" + pusher.name + ":v1"
			if err := pusher.pushImage(t, h, image, captain+ref); err != nil {
				t.Fatalf("pushing %s with %s: %v", kind, pusher.name, err)
			}
			for _, puller := range clients {
				if err := puller.pullImage(t, h, reader+ref, image); err != nil {
					t.Errorf("pulling %s with %s: %v", ref, puller.name, err)
				}
			}
		}
	}
	checkStrangers(t, h, clients[0], images["image"])
	if size := blobSize(t, h, emptyDigest); size != 0 {
		t.Errorf("the empty layer has %d bytes", size)
	}
}

// checkStrangers checks that people without permission neither push anywhere nor pull from a private hold.
func checkStrangers(t *testing.T, h *hold, c client, image *layout) {
	t.Helper()
	carol := h.directory.New(t, "carol.test", account.K256)
	ref := "/alice.test/image-" + c.name + ":v1"
	for who, registry := range map[string]string{"nobody": h.appview.Serve(t, nil), "carol": h.appview.Serve(t, carol)} {
		if err := c.pushImage(t, h, image, registry+"/carol.test/stolen-by-"+who+":v1"); err == nil {
			t.Errorf("%s pushed", who)
		}
		err := c.pullImage(t, h, registry+ref, image)
		if h.public && err != nil {
			t.Errorf("%s can not pull from a public hold: %v", who, err)
		}
		if !h.public && err == nil {
			t.Errorf("%s pulled from a private hold", who)
		}
	}
}

func TestArtifactsArePushedAndPulled(t *testing.T) {
	h := start(t, setup{public: true})
	ref := h.appview.Serve(t, h.alice) + "/alice.test/sbom:v1"
	const content = `{"packages": []}`
	if err := pushArtifact(t, h, ref, content); err != nil {
		t.Fatal(err)
	}
	got, err := pullArtifact(t, h, ref)
	if err != nil {
		t.Fatal(err)
	}
	if got != content {
		t.Errorf("pulled %q, pushed %q", got, content)
	}
}

func TestLayerOfMoreThan200MB(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, storage := range []string{"filesystem", "s3", "s3 proxied"} {
		t.Run(storage, func(t *testing.T) {
			s := setup{public: true, proxied: strings.HasSuffix(storage, "proxied")}
			if storage != "filesystem" {
				s.storage = onS3(peer.Versitygw(t), "")
			}
			h := start(t, s)
			ref := h.appview.Serve(t, h.alice) + "/alice.test/large:v1"
			image := newImage(t, 205<<20)
			if err := crane.pushImage(t, h, image, ref); err != nil {
				t.Fatal(err)
			}
			for _, puller := range []client{crane, oras} {
				if err := puller.pullImage(t, h, ref, image); err != nil {
					t.Errorf("pulling with %s: %v", puller.name, err)
				}
			}
		})
	}
}

func TestPushesAndPullsAreInTheRepository(t *testing.T) {
	h := start(t, setup{public: true})
	ref := h.appview.Serve(t, h.alice) + "/alice.test/image:"
	image := newImage(t, 1000)
	for _, tag := range []string{"v1", "v2"} { // the second adds no layers
		if err := crane.pushImage(t, h, image, ref+tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := crane.pullImage(t, h, ref+"v1", image); err != nil {
		t.Fatal(err)
	}
	var stats struct {
		Records []struct {
			Value struct {
				OwnerDID   string `json:"ownerDid"`
				Repository string `json:"repository"`
				PushCount  int    `json:"pushCount"`
				PullCount  int    `json:"pullCount"`
			} `json:"value"`
		} `json:"records"`
	}
	h.get(t, "com.atproto.repo.listRecords?repo="+h.did+"&collection=io.atcr.hold.stats", &stats)
	if len(stats.Records) != 1 {
		t.Fatalf("%d stats records for one repository", len(stats.Records))
	}
	got := stats.Records[0].Value
	if got.OwnerDID != h.alice.DID.String() || got.Repository != "image" || got.PushCount != 2 || got.PullCount < 1 {
		t.Errorf("after two pushes and a pull the stats are %+v", got)
	}
	var layers struct{ Records []struct{} }
	h.get(t, "com.atproto.repo.listRecords?repo="+h.did+"&collection=io.atcr.hold.layer", &layers)
	if len(layers.Records) != 4 {
		t.Errorf("%d layer records for 4 layers", len(layers.Records))
	}
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// blobHost is the host that clients are sent to for blobs.
func blobHost(t *testing.T, h *hold) string {
	t.Helper()
	return hostOf(t, blobURL(t, h, emptyDigest, http.MethodGet))
}

// blobURL asks the hold for a blob's URL as the captain.
func blobURL(t *testing.T, h *hold, digest, method string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		h.url+"/xrpc/com.atproto.sync.getBlob?did="+h.did+"&cid="+digest+"&method="+method, nil)
	if err != nil {
		t.Fatal(err)
	}
	var output struct {
		URL string `json:"url"`
	}
	r.Header.Set("Authorization", "Bearer "+h.alice.ServiceToken(h.did, "com.atproto.sync.getBlob"))
	h.do(t, r, &output)
	return output.URL
}

// blobSize is the size of a blob that is there, in bytes.
func blobSize(t *testing.T, h *hold, digest string) int64 {
	t.Helper()
	resp, err := h.client.Head(blobURL(t, h, digest, http.MethodHead))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("HEAD of %s: status %d", digest, resp.StatusCode)
	}
	return resp.ContentLength
}

// digestAt reads what is at a URL and returns its digest.
func digestAt(t *testing.T, h *hold, address string) string {
	t.Helper()
	resp, err := h.client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET of a blob: status %d, %v", resp.StatusCode, err)
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}
