package caddyhold

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A request that comes too early waits, but no longer than it or the configuration lives.
func TestRequestBeforeStart(t *testing.T) {
	for name, cancel := range map[string]func(request, config context.CancelFunc){
		"the client goes away":           func(request, _ context.CancelFunc) { request() },
		"the configuration never starts": func(_, config context.CancelFunc) { config() },
	} {
		t.Run(name, func(t *testing.T) {
			configCtx, endConfig := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer endConfig()
			h := &Handler{PublicURL: "http://127.0.0.1:8080"}
			h.service = newService(configCtx, h, nil, "")

			requestCtx, endRequest := context.WithCancel(t.Context())
			defer endRequest()
			r := httptest.NewRequestWithContext(requestCtx, http.MethodGet, "/xrpc/_health", nil)
			w := httptest.NewRecorder()
			served := make(chan error, 1)
			go func() { served <- h.ServeHTTP(w, r, nil) }()
			select {
			case err := <-served:
				t.Fatalf("did not wait: %v", err)
			default:
			}
			cancel(endRequest, endConfig)
			if err := <-served; err != nil {
				t.Fatal(err)
			}
			var body struct{ Error, Message string }
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error != "ServiceUnavailable" || body.Message == "" {
				t.Errorf("body %s: %v", w.Body, err)
			}
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %v", w.Code, w.Header())
			}
		})
	}
}

// What is not for the hold does not wait for it.
func TestOtherPathsBeforeStart(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	h := &Handler{PublicURL: "http://127.0.0.1:8080"}
	h.service = newService(ctx, h, nil, "")
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	requestCtx, end := context.WithTimeout(t.Context(), 5*time.Second)
	defer end()
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, httptest.NewRequestWithContext(requestCtx, http.MethodGet, "/index.html", nil), next)
	if err != nil || w.Code != http.StatusNoContent {
		t.Errorf("%d, %v", w.Code, err)
	}
}

// However a configuration spells a directory, it is one hold.
func TestCanonicalPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.Mkdir("real", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", "link"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"real":                         "real",
		"./real/":                      "real",
		"real/../real":                 "real",
		"link":                         "real",
		"link/not/there":               "real/not/there",
		filepath.Join(dir, "link"):     "real",
		filepath.Join(dir, "not", "x"): "not/x",
	} {
		got, err := canonicalPath(path)
		if want := filepath.Join(dir, want); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", path, got, err, want)
		}
	}
}

// Lasting state logs to the configuration that is current.
func TestLogSwitch(t *testing.T) {
	first, firstLogs := observer.New(zapcore.InfoLevel)
	second, secondLogs := observer.New(zapcore.ErrorLevel)
	s := newLogSwitch(zap.New(first).Named("hold"))
	logger := s.logger().With(zap.String("did", "did:web:x"))

	logger.Info("to the first", zap.Int64("seq", 1))
	s.set(zap.New(second))
	logger.Info("not wanted any more")
	logger.Error("to the second")

	if got := firstLogs.All(); len(got) != 1 || got[0].LoggerName != "hold" ||
		got[0].ContextMap()["did"] != "did:web:x" || got[0].ContextMap()["seq"] != int64(1) {
		t.Errorf("the first got %+v", got)
	}
	if got := secondLogs.All(); len(got) != 1 || got[0].Message != "to the second" || got[0].ContextMap()["did"] != "did:web:x" {
		t.Errorf("the second got %+v", got)
	}
}

// The last one out turns off the light, once.
func TestRequests(t *testing.T) {
	var r requests
	calls := 0
	r.enter()
	r.enter()
	r.whenIdle(func() { calls++ })
	r.leave()
	if calls != 0 {
		t.Error("called with a request under way")
	}
	r.leave()
	r.enter()
	r.leave()
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
	r.whenIdle(func() { calls++ })
	if calls != 2 {
		t.Error("not called though nothing was under way")
	}
}
