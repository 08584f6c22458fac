package xrpc

import (
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// Options is what a [Server] serves and how. Hold is required.
type Options struct {
	Hold         *hold.Hold
	PLCDirectory string  // URL that resolves did:plc; empty: https://plc.directory
	TestMode     bool    // identities on loopback, over http
	StrictTokens bool    // lxm must be the method, short lifetimes, a jti writes once
	Memory       *Memory // survives configurations; nil: one of its own
	Version      string  // for _health
	Logger       *zap.Logger

	// LogField is called with what becomes known of a request while it is served: its
	// nsid, the caller's did, a blob's digest. Nil: not called.
	LogField func(r *http.Request, key, value string)

	// Done closes when the hold itself goes away, not when only this configuration does:
	// WebSockets then close with status 1012. Nil: never.
	Done <-chan struct{}
}

// Server answers a hold's HTTP requests under one configuration. It is safe for
// concurrent use.
type Server struct {
	Options
	hold   *hold.Hold
	tokens *verifier
	health health
}

// New returns a Server.
func New(o Options) *Server {
	if o.Memory == nil {
		o.Memory = NewMemory()
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.LogField == nil {
		o.LogField = func(*http.Request, string, string) {}
	}
	return &Server{Options: o, hold: o.Hold, tokens: newVerifier(o)}
}

// endpoint answers one path. What it returns as an error becomes the answer, so it must
// not have written anything then.
type endpoint struct {
	methods []string
	serve   func(*Server, http.ResponseWriter, *http.Request) error
}

func query(serve func(*Server, http.ResponseWriter, *http.Request) error) endpoint {
	return endpoint{[]string{http.MethodGet, http.MethodHead}, serve}
}

func procedure(serve func(*Server, http.ResponseWriter, *http.Request) error) endpoint {
	return endpoint{[]string{http.MethodPost}, serve}
}

const prefix = "/xrpc/"

var wellKnown = map[string]endpoint{
	"/.well-known/did.json":    query((*Server).didDocument),
	"/.well-known/atproto-did": query((*Server).atprotoDID),
}

var methods = map[string]endpoint{
	"_health": query((*Server).serveHealth),

	"com.atproto.server.describeServer":  query((*Server).describeServer),
	"com.atproto.identity.resolveHandle": query((*Server).resolveHandle),

	"com.atproto.repo.describeRepo": query((*Server).describeRepo),
	"com.atproto.repo.getRecord":    query((*Server).getRecord),
	"com.atproto.repo.listRecords":  query((*Server).listRecords),
	"com.atproto.repo.createRecord": procedure((*Server).createRecord),
	"com.atproto.repo.putRecord":    procedure((*Server).putRecord),
	"com.atproto.repo.deleteRecord": procedure((*Server).deleteRecord),
	"com.atproto.repo.applyWrites":  procedure((*Server).applyWrites),
	"com.atproto.repo.uploadBlob":   procedure((*Server).uploadBlob),

	"com.atproto.sync.getBlob":         query((*Server).getBlob),
	"com.atproto.sync.getBlocks":       query((*Server).getBlocks),
	"com.atproto.sync.getLatestCommit": query((*Server).getLatestCommit),
	"com.atproto.sync.getRecord":       query((*Server).getRecordProof),
	"com.atproto.sync.getRepo":         query((*Server).getRepo),
	"com.atproto.sync.getRepoStatus":   query((*Server).getRepoStatus),
	"com.atproto.sync.listBlobs":       query((*Server).listBlobs),
	"com.atproto.sync.listRepos":       query((*Server).listRepos),
	"com.atproto.sync.subscribeRepos":  {[]string{http.MethodGet}, (*Server).subscribeRepos},

	"io.atcr.hold.initiateUpload":   procedure((*Server).initiateUpload),
	"io.atcr.hold.getPartUploadUrl": procedure((*Server).getPartUploadURL),
	"io.atcr.hold.uploadPart":       {[]string{http.MethodPut, http.MethodPost}, (*Server).uploadPart},
	"io.atcr.hold.completeUpload":   procedure((*Server).completeUpload),
	"io.atcr.hold.abortUpload":      procedure((*Server).abortUpload),
	"io.atcr.hold.notifyManifest":   procedure((*Server).notifyManifest),
	"io.atcr.hold.requestCrew":      procedure((*Server).requestCrew),
}

// Handles says whether a path is the hold's to answer.
func Handles(path string) bool {
	_, ok := wellKnown[path]
	return ok || strings.HasPrefix(path, prefix)
}

// ServeHTTP answers a request to a path that is the hold's, as [Handles] says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowBrowsers(w)
	if r.Method == http.MethodOptions {
		preflight(w, r)
		return
	}
	if err := s.dispatch(w, r); err != nil {
		s.writeError(w, r, err)
	}
}

func (s *Server) dispatch(w http.ResponseWriter, r *http.Request) error {
	e, ok := wellKnown[r.URL.Path]
	if !ok {
		nsid := nsid(r)
		e, ok = methods[nsid]
		if !ok {
			return &Error{Status: http.StatusNotImplemented, Name: "MethodNotImplemented", Message: "this hold has no such method"}
		}
		s.LogField(r, "nsid", nsid)
	}
	if !slices.Contains(e.methods, r.Method) {
		w.Header().Set("Allow", strings.Join(e.methods, ", "))
		return &Error{Status: http.StatusMethodNotAllowed, Name: "InvalidRequest", Message: "wrong HTTP method: use " + e.methods[0]}
	}
	return e.serve(s, w, r)
}

// nsid is the method that a request to /xrpc/ calls.
func nsid(r *http.Request) string { return strings.TrimPrefix(r.URL.Path, prefix) }

// allowBrowsers lets every page read the answer.
func allowBrowsers(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", "*")
}

// preflight lets every page call: no endpoint trusts what a browser adds by itself.
func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= 1024 {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400")
	w.WriteHeader(http.StatusNoContent)
}
