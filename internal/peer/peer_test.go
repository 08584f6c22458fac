package peer_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/peer"
)

func TestEveryToolTheTestsUseBuildsAndRuns(t *testing.T) {
	for name, args := range map[string][]string{
		"crane":     {"version"},
		"oras":      {"version"},
		"repo-tool": {"--help"},
		"versitygw": {"--version"},
	} {
		t.Run(name, func(t *testing.T) {
			program := peer.Tool(t, name)
			if again := peer.Tool(t, name); again != program {
				t.Errorf("a second call gave %s, the first %s", again, program)
			}
			if _, err := peer.Run(exec.CommandContext(t.Context(), program, args...)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVersitygwRefusesStrangersAndSurvivesARestart(t *testing.T) {
	s3 := peer.Versitygw(t)
	secure, roots := s3.TLS(t, nil)
	client := &http.Client{Transport: secureTransport(roots), Timeout: 10 * time.Second}
	for _, endpoint := range []string{s3.Endpoint, s3.Proxy(t, nil), secure} {
		if status := get(t, client, endpoint+"/"+s3.Bucket+"?list-type=2"); status != http.StatusForbidden {
			t.Errorf("%s answers an unsigned request with %d, want 403", endpoint, status)
		}
	}
	s3.Stop()
	if err := peer.Listening(s3.Endpoint[len("http://"):]); err == nil {
		t.Error("a stopped server still listens")
	}
	s3.Start(t)
	if status := get(t, client, s3.Endpoint); status != http.StatusForbidden {
		t.Errorf("the restarted server answers %d, want 403", status)
	}
}

func TestProcessThatEndsEarlyIsReportedWithItsOutput(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := peer.Start(t, exec.CommandContext(ctx, program, "-test.run=^$"))
	<-p.Exited()
	if err := p.WaitFor(time.Minute, func() error { return os.ErrNotExist }); err == nil {
		t.Error("no error for a server that is gone")
	}
}
