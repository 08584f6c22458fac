package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// buildTimeout bounds one build, the download of its sources included.
const buildTimeout = 9 * time.Minute

// Tool returns the path of the program that tools/go.mod lists under a package path ending in name, and builds it first
// where this machine has not yet done so.
func Tool(t testing.TB, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout) // cleanups may ask, too
	defer cancel()
	program, err := build(ctx, name)
	if err != nil {
		t.Fatalf("building peer %s: %v", name, err)
	}
	return program
}

// build keeps programs in a directory named by what decides their content, so a new version never meets an old program.
func build(ctx context.Context, name string) (string, error) {
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	dir, err := cacheDir(tools)
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, name)
	unlock, err := lock(program + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	pkg, err := toolPackage(ctx, tools, name)
	if err != nil {
		return "", err
	}
	// Renamed into place when whole: a build that was killed leaves nothing that looks finished.
	unfinished := program + ".new"
	if _, err := goCommand(ctx, tools, "build", "-trimpath", "-ldflags=-s -w", "-o", unfinished, pkg); err != nil {
		return "", err
	}
	return program, os.Rename(unfinished, program)
}

// toolsDir finds the module's tools directory above the working directory, which go test sets to the package's own.
func toolsDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding tools/go.mod: %w", err)
	}
	for {
		tools := filepath.Join(dir, "tools")
		if _, err := os.Stat(filepath.Join(tools, "go.mod")); err == nil {
			return tools, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no tools/go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

func cacheDir(tools string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	hash := sha256.New()
	hash.Write([]byte(runtime.Version()))
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(tools, file))
		if err != nil {
			return "", fmt.Errorf("reading the versions of peers: %w", err)
		}
		hash.Write(content)
	}
	dir := filepath.Join(cache, "caddyhold", "peers", hex.EncodeToString(hash.Sum(nil)[:8]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache directory: %w", err)
	}
	return dir, nil
}

func toolPackage(ctx context.Context, tools, name string) (string, error) {
	out, err := goCommand(ctx, tools, "mod", "edit", "-json")
	if err != nil {
		return "", err
	}
	var mod struct{ Tool []struct{ Path string } }
	if err := json.Unmarshal(out, &mod); err != nil {
		return "", fmt.Errorf("reading tools/go.mod: %w", err)
	}
	for _, tool := range mod.Tool {
		if path.Base(tool.Path) == name {
			return tool.Path, nil
		}
	}
	return "", fmt.Errorf("tools/go.mod has no tool %s", name)
}

func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, exit.Stderr)
	}
	return out, err
}
