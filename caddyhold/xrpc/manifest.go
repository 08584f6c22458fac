package xrpc

import (
	"net/http"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// notifyManifest takes note of a push or pull; the domain decides who may say so.
func (s *Server) notifyManifest(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.identified(r)
	if err != nil {
		return err
	}
	var in hold.Announcement
	if err := readJSON(w, r, maxManifestInput, &in); err != nil {
		return err
	}
	out, err := s.hold.NotifyManifest(r.Context(), caller, in)
	if err != nil {
		return err
	}
	return answer(w, out)
}
