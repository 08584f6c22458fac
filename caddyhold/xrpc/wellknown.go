package xrpc

import (
	"io"
	"net/http"
	"strconv"

	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// document is the hold's DID document.
func (s *Server) document() ([]byte, error) {
	repo := s.hold.Repo()
	key, err := repo.Key().PublicKey()
	if err != nil {
		return nil, err
	}
	url := s.hold.State().PublicURL()
	return pds.Document(repo.DID(), repo.Handle(), key, []pds.Service{
		{ID: "#atproto_pds", Type: "AtprotoPersonalDataServer", Endpoint: url},
		{ID: "#atcr_hold", Type: "AtcrHoldService", Endpoint: url},
	})
}

// didDocument serves /.well-known/did.json (https://w3c-ccg.github.io/did-method-web/).
func (s *Server) didDocument(w http.ResponseWriter, r *http.Request) error {
	doc, err := s.document()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(doc)))
	_, _ = w.Write(doc)
	return nil
}

// atprotoDID serves /.well-known/atproto-did (https://atproto.com/specs/handle).
func (s *Server) atprotoDID(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, s.hold.State().DID())
	return nil
}
