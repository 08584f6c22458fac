package xrpc

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// serveHealth answers _health: the version, and 503 while the storage of blobs is away.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) error {
	type status struct {
		Version string `json:"version"`
		Error   string `json:"error,omitempty"`
		Message string `json:"message,omitempty"`
	}
	w.Header().Set("Cache-Control", "no-store")
	if err := s.health.check(r.Context(), s.hold.Blobs().Healthy); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, status{
			Version: s.Version, Error: "StorageUnavailable",
			Message: "the storage of blobs does not answer; records are served",
		})
		return nil
	}
	return answer(w, status{Version: s.Version})
}

// healthLifetime is how long storage is not asked again, whoever wants to know.
const healthLifetime = 2 * time.Second

// health remembers for a moment how the storage is.
type health struct {
	mu      sync.Mutex
	checked time.Time
	err     error
}

func (h *health) check(ctx context.Context, ask func(context.Context) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.checked) < healthLifetime {
		return h.err
	}
	h.err = ask(context.WithoutCancel(ctx)) // the answer is for others too
	h.checked = time.Now()
	return h.err
}

// describeServer answers com.atproto.server.describeServer. A hold has no accounts to open.
func (s *Server) describeServer(w http.ResponseWriter, r *http.Request) error {
	return answer(w, map[string]any{
		"did":                  s.hold.State().DID(),
		"availableUserDomains": []string{},
		"inviteCodeRequired":   true,
		"links":                map[string]any{},
		"contact":              map[string]any{},
	})
}

// resolveHandle answers com.atproto.identity.resolveHandle for the one handle that is here.
func (s *Server) resolveHandle(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	handle, err := q.required("handle")
	if err != nil {
		return err
	}
	if !strings.EqualFold(handle, s.hold.Repo().Handle()) {
		return &Error{Status: http.StatusBadRequest, Name: "HandleNotFound", Message: "this hold has no such handle"}
	}
	return answer(w, map[string]string{"did": s.hold.State().DID()})
}

// isRepo says whether a DID or handle, in any spelling that clients use, names the hold's
// repository.
func (s *Server) isRepo(identifier string) bool {
	repo := s.hold.Repo()
	return pds.NormalizeDID(identifier) == pds.NormalizeDID(repo.DID().String()) ||
		strings.EqualFold(identifier, repo.Handle())
}
