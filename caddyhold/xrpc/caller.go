package xrpc

import (
	"net/http"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// caller establishes who makes a call: nobody in particular where there is no token, and an
// error where there is one that proves nothing. write says that the call changes something.
func (s *Server) caller(r *http.Request, write bool) (hold.Caller, error) {
	raw, err := bearer(r)
	if err != nil || raw == "" {
		return hold.Anonymous, err
	}
	did, err := s.tokens.verify(r.Context(), raw, nsid(r), write)
	if err != nil {
		return hold.Anonymous, err
	}
	s.LogField(r, "did", did)
	return s.hold.Caller(did)
}

// authorize is caller for calls that change something, where the caller may do op.
func (s *Server) authorize(r *http.Request, op hold.Operation) (hold.Caller, error) {
	c, err := s.caller(r, true)
	if err != nil {
		return c, err
	}
	return c, s.hold.Allow(c, op)
}

// identified is caller for calls that change something and that nobody makes anonymously.
func (s *Server) identified(r *http.Request) (hold.Caller, error) {
	c, err := s.caller(r, true)
	if err == nil && c.DID == "" {
		err = hold.ErrAuthRequired
	}
	return c, err
}
