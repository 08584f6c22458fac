package appview

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/caddyhold/caddyhold/internal/account"
)

// AppView is a registry in front of one hold. Repositories are named <handle>/<name>, by their owner's handle.
type AppView struct {
	hold      hold
	manifests http.Handler

	mu     sync.Mutex
	owners map[string]string // handle → DID
}

// New returns an AppView for the hold with this public URL and DID, which it calls with client.
func New(holdURL, holdDID string, client *http.Client) *AppView {
	return &AppView{
		hold:      hold{url: holdURL, did: holdDID, client: client},
		manifests: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)),
		owners:    make(map[string]string),
	}
}

// Serve starts a registry until the test ends, in which every client is logged in as user (nil: nobody), and returns its
// host and port; clients reach it over plain http. All registries of an AppView have the same content.
func (a *AppView) Serve(t testing.TB, user *account.Account) (host string) {
	t.Helper()
	if user != nil {
		a.mu.Lock()
		a.owners[user.Handle] = user.DID.String()
		a.mu.Unlock()
	}
	s := &session{AppView: a, caller: caller{hold: a.hold, user: user}, uploads: make(map[string]*upload)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// session is the registry as one user sees it.
type session struct {
	*AppView
	caller caller

	mu      sync.Mutex
	uploads map[string]*upload
}

var (
	uploadsPath  = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`)
	blobPath     = regexp.MustCompile(`^/v2/(.+)/blobs/([^/]+)$`)
	manifestPath = regexp.MustCompile(`^/v2/([^/]+)/(.+)/manifests/([^/]+)$`)
)

// ServeHTTP sends blobs to the hold, and everything else to the manifest store.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	if m := uploadsPath.FindStringSubmatch(r.URL.Path); m != nil {
		err = s.serveUpload(w, r, m[1], m[2])
	} else if m := blobPath.FindStringSubmatch(r.URL.Path); m != nil {
		err = s.serveBlob(w, r, m[2])
	} else if m := manifestPath.FindStringSubmatch(r.URL.Path); m != nil {
		err = s.serveManifest(w, r, m[1], m[2], m[3])
	} else {
		s.manifests.ServeHTTP(w, r)
	}
	if err != nil {
		writeError(w, err)
	}
}
