package caddyhold_test

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// environment are the names that Caddyfile.example reads.
var environment = []string{
	"HOLD_PUBLIC_URL", "HOLD_SERVER_ADDR", "HOLD_PUBLIC", "STORAGE_DRIVER", "AWS_ACCESS_KEY_ID",
	"AWS_SECRET_ACCESS_KEY", "AWS_REGION", "S3_BUCKET", "S3_ENDPOINT", "STORAGE_ROOT_DIR",
	"HOLD_DATABASE_DIR", "HOLD_KEY_PATH", "HOLD_OWNER", "HOLD_ALLOW_ALL_CREW", "TEST_MODE",
	"DISABLE_PRESIGNED_URLS", "PLC_DIRECTORY_URL",
}

func TestExampleCaddyfile(t *testing.T) {
	type object = map[string]any
	defaults := object{
		"handler": "atcr_hold", "public_url": "http://127.0.0.1:8080", "data_dir": "./data",
		"presigned_urls": true, "storage": object{"driver": "filesystem"},
	}
	with := func(changes object) object {
		merged := maps.Clone(defaults)
		maps.Copy(merged, changes)
		return merged
	}
	s3 := object{
		"driver": "s3", "bucket": "blobs", "region": "eu-central-1", "endpoint": "https://s3.example.com",
		"access_key": "{env.AWS_ACCESS_KEY_ID}", "secret_key": "{env.AWS_SECRET_ACCESS_KEY}",
	}
	allEmpty := make(map[string]string)
	for _, name := range environment {
		if name != "HOLD_PUBLIC_URL" && name != "HOLD_DATABASE_DIR" {
			allEmpty[name] = ""
		}
	}
	for name, tc := range map[string]struct {
		env    map[string]string
		listen string
		want   object
	}{
		"nothing set": {nil, "atcr_hold/:8080", defaults},
		"all empty":   {allEmpty, "atcr_hold/:8080", defaults},
		"an existing hold on S3": {
			map[string]string{
				"HOLD_PUBLIC_URL": "https://hold.example.com", "HOLD_SERVER_ADDR": "0.0.0.0:9000",
				"HOLD_PUBLIC": "true", "STORAGE_DRIVER": "s3", "AWS_ACCESS_KEY_ID": "id",
				"AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-central-1", "S3_BUCKET": "blobs",
				"S3_ENDPOINT": "https://s3.example.com", "HOLD_DATABASE_DIR": "/var/lib/hold",
				"HOLD_KEY_PATH": "/etc/hold.key", "HOLD_OWNER": "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
				"HOLD_ALLOW_ALL_CREW": "true", "HOLD_BLUESKY_POSTS_ENABLED": "true",
				"HOLD_PROFILE_AVATAR": "https://example.com/a.png", "TEST_MODE": "false",
				"DISABLE_PRESIGNED_URLS": "true", "PLC_DIRECTORY_URL": "https://plc.example.com",
			},
			"atcr_hold/[0.0.0.0:9000]:8080",
			with(object{
				"public_url": "https://hold.example.com", "storage": s3, "data_dir": "/var/lib/hold",
				"signing_key": "/etc/hold.key", "owner": "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
				"access":         object{"public": true, "allow_all_crew": true},
				"presigned_urls": false, "plc_directory": "https://plc.example.com",
			}),
		},
		"an existing hold on disk": {
			map[string]string{
				"HOLD_SERVER_ADDR": ":9000", "STORAGE_DRIVER": "filesystem", "STORAGE_ROOT_DIR": "/srv/blobs",
				"HOLD_PUBLIC": "false", "TEST_MODE": "true", "DISABLE_PRESIGNED_URLS": "false",
			},
			"atcr_hold/[:9000]:8080",
			with(object{"storage": object{"driver": "filesystem", "root": "/srv/blobs"}, "test_mode": true}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, tc.env)
			adapted := adaptExample(t)
			if strings.Contains(string(adapted), "secret\"") && tc.env["AWS_SECRET_ACCESS_KEY"] != "" {
				t.Error("the configuration shows the secret")
			}
			var config struct {
				Apps struct {
					HTTP struct {
						Servers map[string]struct {
							Listen []string `json:"listen"`
							Routes []struct {
								Match  []any    `json:"match"`
								Handle []object `json:"handle"`
							} `json:"routes"`
						} `json:"servers"`
					} `json:"http"`
				} `json:"apps"`
			}
			if err := json.Unmarshal(adapted, &config); err != nil {
				t.Fatal(err)
			}
			server := config.Apps.HTTP.Servers["srv0"]
			if want := []string{tc.listen}; !reflect.DeepEqual(server.Listen, want) {
				t.Errorf("listens on %q, want %q", server.Listen, want)
			}
			if len(server.Routes) != 1 || server.Routes[0].Match != nil {
				t.Fatalf("want one route for any host, got %s", adapted)
			}
			if got := server.Routes[0].Handle[0]; !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			validate(t, adapted)
		})
	}
}

// An operator's mistakes stop the start rather than being ignored.
func TestExampleCaddyfileRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		want string
	}{
		"a storage driver it does not know": {map[string]string{"STORAGE_DRIVER": "tape"}, "storage_tape"},
		"a flag that is none":               {map[string]string{"HOLD_PUBLIC": "perhaps"}, "neither true nor false"},
	} {
		t.Run(name, func(t *testing.T) {
			setEnvironment(t, tc.env)
			_, err := adapt(readExample(t))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// setEnvironment sets exactly these of the names that the example reads.
func setEnvironment(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range environment {
		t.Setenv(name, "") // has the test restore it
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
}

func readExample(t *testing.T) string {
	t.Helper()
	example, err := os.ReadFile("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	return string(example)
}

func adaptExample(t *testing.T) []byte {
	t.Helper()
	adapted, err := adapt(readExample(t))
	if err != nil {
		t.Fatal(err)
	}
	return adapted
}

// validate does what the command caddy validate does, and sees to it that this opens nothing.
func validate(t *testing.T, adapted []byte) {
	t.Helper()
	t.Chdir(t.TempDir())
	var config *caddy.Config
	if err := caddy.StrictUnmarshalJSON(adapted, &config); err != nil {
		t.Fatal(err)
	}
	config.Admin = &caddy.AdminConfig{Disabled: true}
	if err := caddy.Validate(config); err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
		t.Errorf("validating made %v (%v)", made, err)
	}
}
