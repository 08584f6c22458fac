package xrpc

import (
	"net/http"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// caller establishes who makes a call: nobody in particular where there is no token, which
// is nil then, and an error where there is one that proves nothing.
func (s *Server) caller(r *http.Request) (hold.Caller, *token, error) {
	raw, err := bearer(r)
	if err != nil || raw == "" {
		return hold.Anonymous, nil, err
	}
	t, did, err := s.tokens.verify(r.Context(), raw, nsid(r))
	if err != nil {
		return hold.Anonymous, nil, err
	}
	s.LogField(r, "did", did)
	c, err := s.hold.Caller(did)
	return c, t, err
}

// authorize is caller for calls that change something, by who may do op.
func (s *Server) authorize(r *http.Request, op hold.Operation) (hold.Caller, error) {
	c, t, err := s.caller(r)
	if err != nil {
		return c, err
	}
	if err := s.hold.Allow(c, op); err != nil {
		return c, err
	}
	return c, s.tokens.spend(t)
}

// identified is caller for calls that change something and that nobody makes anonymously.
func (s *Server) identified(r *http.Request) (hold.Caller, error) {
	c, t, err := s.caller(r)
	if err != nil {
		return c, err
	}
	if t == nil {
		return c, hold.ErrAuthRequired
	}
	return c, s.tokens.spend(t)
}
