package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	// The tests run the hold as a program. The import tells go test's cache that their results depend on it.
	_ "github.com/caddyhold/caddyhold/caddyhold"
)

// caddy is the program under test, built once by TestMain.
var caddy string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddyhold-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a directory for the program:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	caddy = filepath.Join(dir, "caddy")
	args := []string{"build", "-o", caddy}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../cmd/caddy")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building cmd/caddy: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
