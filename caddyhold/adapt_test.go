package caddyhold_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "write what the golden tests get into their files")

// A golden file is a Caddyfile, a line of dashes, and the JSON or the error it becomes.
const goldenSeparator = "----------\n"

func TestAdapt(t *testing.T) {
	t.Setenv("ADAPT_TEST_KEY", "key-not-to-be-seen")
	t.Setenv("ADAPT_TEST_SECRET", "secret-not-to-be-seen")
	paths, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(file), goldenSeparator)
			got := adaptOrError(t, input)
			if *update {
				if err := os.WriteFile(path, []byte(input+goldenSeparator+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if isError := strings.HasPrefix(filepath.Base(path), "error_"); isError == strings.HasPrefix(got, "{") {
				t.Errorf("a file's name says whether it is an error: got %s", got)
			}
		})
	}
}

// adaptOrError returns indented JSON or the text of the error, and a newline.
func adaptOrError(t *testing.T, input string) string {
	t.Helper()
	adapted, err := adapt(input)
	if err != nil {
		return err.Error() + "\n"
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, adapted, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return indented.String() + "\n"
}

func adapt(input string) ([]byte, error) {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	return adapted, err
}
