package caddyhold

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// xcaddy.json is the JSON of an xcaddy build of this module, and names what go.mod names.
func TestXcaddyJSON(t *testing.T) {
	type replacement struct {
		Old string `json:"old"`
		New string `json:"new"`
	}
	type plugin struct {
		ModulePath string `json:"module_path"`
	}
	type builder struct {
		CaddyVersion string        `json:"caddy_version"`
		Plugins      []plugin      `json:"plugins"`
		Replacements []replacement `json:"replacements"`
	}
	file, err := os.Open("../xcaddy.json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var got builder
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}

	want := builder{
		CaddyVersion: required(t, "github.com/caddyserver/caddy/v2"),
		Plugins:      []plugin{{reflect.TypeFor[Handler]().PkgPath()}},
		Replacements: []replacement{{modulePath, "."}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// required is the version of a module in go.mod.
func required(t *testing.T, module string) string {
	t.Helper()
	gomod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(gomod)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == module {
			return fields[1]
		}
	}
	t.Fatalf("go.mod does not require %s", module)
	return ""
}
