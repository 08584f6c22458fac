package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// TestKilledInTheMiddleOfAPush kills the hold at various moments, then starts it again and checks that what it had
// acknowledged is there, and that the client can simply push again.
func TestKilledInTheMiddleOfAPush(t *testing.T) {
	moments := []struct {
		name  string
		calls string // part of the path
		nth   int
		delay time.Duration // from when the request leaves
	}{
		{"before a part arrives", "getPartUploadUrl", 2, 0},
		{"while a part is on its way", "getPartUploadUrl", 3, 4 * time.Millisecond},
		{"while the first blob is completed", "completeUpload", 1, time.Millisecond},
		{"while the second blob is completed", "completeUpload", 2, 3 * time.Millisecond},
		{"while the last blob is completed", "completeUpload", 5, 6 * time.Millisecond},
		{"before the push is announced", "notifyManifest", 2, 0},
		{"while the push is announced", "notifyManifest", 2, time.Millisecond},
		{"after the push was announced", "notifyManifest", 2, 10 * time.Millisecond},
	}
	for _, storage := range []string{"filesystem", "s3"} {
		for i, moment := range moments {
			t.Run(storage+" "+moment.name, func(t *testing.T) {
				if testing.Short() && i != 4 {
					t.Skip("takes seconds each")
				}
				t.Parallel() // clients wait a while before they try again
				s := setup{public: true}
				if storage == "s3" {
					s.storage = onS3(peer.Versitygw(t), "")
				}
				killedPush(t, s, moment.calls, moment.nth, moment.delay)
			})
		}
	}
}

func killedPush(t *testing.T, s setup, calls string, nth int, delay time.Duration) {
	t.Helper()
	var h *hold
	var push journal
	var mu sync.Mutex
	killed := make(chan struct{})
	seen := 0
	s.onRequest = func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(r.URL.Path, calls) {
			return
		}
		if seen++; seen == nth {
			process := h.process
			go func() {
				time.Sleep(delay)
				process.Kill()
				close(killed)
			}()
			if delay == 0 {
				<-killed
			}
		}
	}
	s.onResponse = push.record
	h = start(t, s)

	l := newLayout(t)
	shared := l.layer(t, 12<<20) // two parts
	l.tag(t, l.index(t, l.image(t, amd64, shared, l.layer(t, 40_000)), l.image(t, arm64, shared, l.layer(t, 11<<20))), "v1")
	ref := h.appview.Serve(t, h.alice) + "/alice.test/image:v1"
	_ = crane.pushImage(t, h, l, ref) // may fail, or end just before the kill
	select {
	case <-killed:
	case <-time.After(time.Minute):
		t.Fatal("the push never came to where the hold was to be killed")
	}

	h.restart(t)
	push.check(t, h)
	if err := crane.pushImage(t, h, l, ref); err != nil {
		t.Fatalf("pushing again: %v", err)
	}
	if err := oras.pullImage(t, h, ref, l); err != nil {
		t.Errorf("pulling after the second push: %v", err)
	}
}

// journal remembers what a hold has acknowledged.
type journal struct {
	mu     sync.Mutex
	blobs  []string // digests
	layers []string // at-uri of the manifest and digest of a layer
}

// record looks at the answers to an AppView.
func (j *journal) record(r *http.Request, resp *http.Response) {
	if resp.StatusCode != http.StatusOK || r.GetBody == nil {
		return
	}
	body, err := r.GetBody()
	if err != nil {
		return
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/io.atcr.hold.completeUpload"):
		var input struct{ Digest string }
		if json.Unmarshal(text, &input) == nil {
			j.blobs = append(j.blobs, input.Digest)
		}
	case strings.HasSuffix(r.URL.Path, "/io.atcr.hold.notifyManifest"):
		var input struct {
			UserDID        string
			ManifestDigest string
			Manifest       struct{ Layers []descriptor }
		}
		if json.Unmarshal(text, &input) == nil {
			manifest := "at://" + input.UserDID + "/io.atcr.manifest/" + strings.TrimPrefix(input.ManifestDigest, "sha256:")
			for _, layer := range input.Manifest.Layers {
				j.layers = append(j.layers, manifest+" "+layer.Digest)
			}
		}
	}
}

// check looks for everything that was acknowledged.
func (j *journal) check(t *testing.T, h *hold) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, digest := range j.blobs {
		if got := digestAt(t, h, blobURL(t, h, digest, http.MethodGet)); got != digest {
			t.Errorf("the blob %s has become %s", digest, got)
		}
	}
	var list struct {
		Records []struct {
			Value struct{ Manifest, Digest string }
		}
	}
	query := url.Values{"repo": {h.did}, "collection": {"io.atcr.hold.layer"}, "limit": {"100"}}
	h.get(t, "com.atproto.repo.listRecords?"+query.Encode(), &list)
	there := make(map[string]bool)
	for _, record := range list.Records {
		there[record.Value.Manifest+" "+record.Value.Digest] = true
	}
	for _, layer := range j.layers {
		if !there[layer] {
			t.Errorf("no layer record for %s", layer)
		}
	}
	t.Logf("%d blobs and %d layers had been acknowledged", len(j.blobs), len(j.layers))
}
