package xrpc

import (
	"net/http"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// requestCrew makes the caller a member where the hold lets people join.
func (s *Server) requestCrew(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.identified(r)
	if err != nil {
		return err
	}
	var in hold.CrewRequest
	if err := readJSON(w, r, maxInput, &in); err != nil {
		return err
	}
	out, err := s.hold.RequestCrew(r.Context(), caller, in)
	if err != nil {
		return err
	}
	return answer(w, out)
}
