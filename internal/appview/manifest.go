package appview

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

// serveManifest keeps manifests in memory, where a user's PDS would keep them, and announces pushes and pulls to the hold.
func (s *session) serveManifest(w http.ResponseWriter, r *http.Request, handle, repository, reference string) error {
	s.AppView.mu.Lock()
	owner := s.owners[handle]
	s.AppView.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		return s.putManifest(w, r, owner, repository, reference)
	case http.MethodGet:
		return s.getManifest(w, r, owner, repository)
	}
	s.manifests.ServeHTTP(w, r)
	return nil
}

func (s *session) putManifest(w http.ResponseWriter, r *http.Request, owner, repository, reference string) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxManifest))
	if err != nil {
		return fmt.Errorf("reading manifest: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	stored := httptest.NewRecorder()
	s.manifests.ServeHTTP(stored, r)
	if stored.Code == http.StatusCreated {
		a := announcement{Operation: "push", UserDID: owner, Repository: repository}
		if !strings.HasPrefix(reference, "sha256:") {
			a.Tag = reference
		}
		if err := s.announce(r.Context(), a, body); err != nil {
			return err
		}
	}
	send(w, stored)
	return nil
}

func (s *session) getManifest(w http.ResponseWriter, r *http.Request, owner, repository string) error {
	found := httptest.NewRecorder()
	s.manifests.ServeHTTP(found, r)
	if found.Code == http.StatusOK && s.caller.user != nil {
		a := announcement{Operation: "pull", UserDID: owner, Repository: repository}
		if err := s.announce(r.Context(), a, found.Body.Bytes()); err != nil {
			return err
		}
	}
	send(w, found)
	return nil
}

func send(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the client is gone
}

// announcement is the input of io.atcr.hold.notifyManifest.
type announcement struct {
	Repository     string          `json:"repository"`
	UserDID        string          `json:"userDid"`
	ManifestDigest string          `json:"manifestDigest"`
	Manifest       json.RawMessage `json:"manifest"`
	Tag            string          `json:"tag,omitempty"`
	Operation      string          `json:"operation"`
}

func (s *session) announce(ctx context.Context, a announcement, manifest []byte) error {
	digest := sha256.Sum256(manifest)
	a.ManifestDigest = "sha256:" + hex.EncodeToString(digest[:])
	a.Manifest = manifest
	var output struct {
		Success   bool   `json:"success"`
		Operation string `json:"operation"`
	}
	if err := s.caller.procedure(ctx, "io.atcr.hold.notifyManifest", a, &output); err != nil {
		return err
	}
	if !output.Success || output.Operation != a.Operation {
		return fmt.Errorf("announcing a %s: the hold answered %+v", a.Operation, output)
	}
	return nil
}
