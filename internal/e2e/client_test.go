package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyhold/caddyhold/internal/peer"
)

// clientTimeout bounds one push or pull.
const clientTimeout = 3 * time.Minute

// client is a program that pushes image layouts to a registry and pulls them.
type client struct {
	name string
	push func(dir, ref string) []string // arguments for the layout in dir tagged v1, to ref
	pull func(ref, dir string) []string // into a new layout in dir
}

var crane = client{
	name: "crane",
	push: func(dir, ref string) []string { return []string{"push", dir, ref} },
	pull: func(ref, dir string) []string { return []string{"pull", "--format=oci", ref, dir} },
}

var oras = client{
	name: "oras",
	push: func(dir, ref string) []string {
		return []string{"cp", "--no-tty", "--to-plain-http", "--from-oci-layout", dir + ":v1", ref}
	},
	pull: func(ref, dir string) []string {
		return []string{"cp", "--no-tty", "--from-plain-http", "--to-oci-layout", ref, dir + ":v1"}
	},
}

func (c client) run(t *testing.T, h *hold, args []string) error {
	t.Helper()
	program := c.name // a skopeo is on the path
	if c.name != "skopeo" {
		program = peer.Tool(t, c.name)
	}
	return runClient(t, h, program, "", args...)
}

func runClient(t *testing.T, h *hold, program, dir string, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = h.clientEnv(t)
	cmd.Dir = dir
	_, err := peer.Run(cmd)
	return err
}

// pushImage pushes a layout to a registry.
func (c client) pushImage(t *testing.T, h *hold, l *layout, ref string) error {
	t.Helper()
	return c.run(t, h, c.push(l.dir, ref))
}

// pullImage pulls and compares with what was pushed.
func (c client) pullImage(t *testing.T, h *hold, ref string, want *layout) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pulled")
	if err := c.run(t, h, c.pull(ref, dir)); err != nil {
		return err
	}
	return want.compare(dir)
}

// pushArtifact pushes a file as an artifact with oras, which has a command for that.
func pushArtifact(t *testing.T, h *hold, ref, content string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sbom.json"), []byte(content), 0o600); err != nil {
		return err
	}
	return runClient(t, h, peer.Tool(t, "oras"), dir, "push", "--no-tty", "--plain-http",
		"--artifact-type", "application/vnd.example.sbom", ref, "sbom.json:application/json")
}

// pullArtifact returns the file of an artifact.
func pullArtifact(t *testing.T, h *hold, ref string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := runClient(t, h, peer.Tool(t, "oras"), dir, "pull", "--no-tty", "--plain-http", ref); err != nil {
		return "", err
	}
	content, err := os.ReadFile(filepath.Join(dir, "sbom.json"))
	return string(content), err
}
