package caddyhold

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/xrpc"
)

// ServeHTTP answers the hold's own paths and passes other requests on. A request to the hold
// that comes before the configuration has started waits for it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !xrpc.Handles(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	s := h.service
	if err := s.await(r.Context()); err != nil {
		s.logger.Warn("request came before the hold was ready", zap.Error(err))
		xrpc.WriteError(w, &xrpc.Error{
			Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable",
			Message: "the hold is not ready yet", RetryAfter: time.Second,
		})
		return nil
	}
	s.enter()
	defer s.leave()

	c := &call{start: time.Now()}
	rec := caddyhttp.NewResponseRecorder(w, nil, nil)
	s.lasting.metrics.begin()
	defer func() { s.lasting.metrics.end(c, rec.Status()) }()
	s.server.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	return nil
}

// call is what becomes known of a request while it is served.
type call struct {
	start time.Time
	nsid  string // of a method that exists; empty for well-known paths and unknown methods
}

type callKey struct{}

// logField notes what becomes known of a request, for the access log and the metrics.
func logField(r *http.Request, key, value string) {
	if c, ok := r.Context().Value(callKey{}).(*call); ok && key == "nsid" {
		c.nsid = value
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.String(key, value))
	}
}
