package caddyhold

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	yes, no := true, false
	for name, tc := range map[string]struct {
		input string
		want  Handler
	}{
		"no block":                    {`atcr_hold`, Handler{}},
		"empty block":                 {`atcr_hold { }`, Handler{}},
		"a flag alone is true":        {"atcr_hold {\n test_mode\n}", Handler{TestMode: true}},
		"a flag may be false":         {"atcr_hold {\n test_mode false\n}", Handler{}},
		"a flag from elsewhere":       {"atcr_hold {\n test_mode TRUE\n}", Handler{TestMode: true}},
		"an empty flag is not given":  {"atcr_hold {\n presigned_urls \"\"\n}", Handler{}},
		"presigned URLs alone":        {"atcr_hold {\n presigned_urls\n}", Handler{PresignedURLs: &yes}},
		"no presigned URLs":           {"atcr_hold {\n presigned_urls false\n}", Handler{PresignedURLs: &no}},
		"days are durations too":      {"atcr_hold {\n url_lifetime 1d\n}", Handler{URLLifetime: caddy.Duration(24 * time.Hour)}},
		"an empty duration":           {"atcr_hold {\n url_lifetime \"\"\n}", Handler{}},
		"placeholders stay":           {"atcr_hold {\n owner {env.OWNER}\n}", Handler{Owner: "{env.OWNER}"}},
		"access, then more":           {"atcr_hold {\n access {\n public\n }\n region eu\n}", Handler{Access: Access{Public: true}, Region: "eu"}},
		"storage, then more":          {"atcr_hold {\n storage filesystem {\n root /b\n }\n region eu\n}", Handler{StorageRaw: json.RawMessage(`{"driver":"filesystem","root":"/b"}`), Region: "eu"}},
		"storage with nothing to say": {"atcr_hold {\n storage s3\n region eu\n}", Handler{StorageRaw: json.RawMessage(`{"driver":"s3"}`), Region: "eu"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got Handler
			if err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tc.input)); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// What is not there yet must not look as if it were.
func TestLaterWordsAreErrors(t *testing.T) {
	for word := range strings.FieldsSeq("quota bluesky identity relays trusted_appviews scanner_secret successor") {
		var h Handler
		err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("atcr_hold {\n " + word + " x\n}"))
		if err == nil || !strings.Contains(err.Error(), "unrecognized word '"+word+"'") {
			t.Errorf("%s: got %v", word, err)
		}
	}
}

func TestS3UnmarshalCaddyfile(t *testing.T) {
	var got S3
	err := got.UnmarshalCaddyfile(caddyfile.NewTestDispenser("s3 {\n bucket b\n path_style\n prefix a/b\n}"))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	if want := (S3{Bucket: "b", Prefix: "a/b", PathStyle: &yes}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// FuzzCaddyfile parses anything as a directive: it must end in an error or in a handler that
// survives the way through JSON.
func FuzzCaddyfile(f *testing.F) {
	for _, seed := range []string{
		"atcr_hold",
		"atcr_hold {\n}",
		"atcr_hold {\n public_url https://hold.example.com\n owner did:web:x\n}",
		"atcr_hold {\n storage s3 {\n bucket b\n path_style\n }\n access {\n public\n token_methods strict\n }\n}",
		"atcr_hold {\n storage filesystem {\n root {$X:/tmp}\n}\n url_lifetime 1d\n presigned_urls \"\"\n}",
		"atcr_hold {\n storage\n}",
		"atcr_hold {\n access {\n access {\n }\n }\n}",
		"atcr_hold { {",
		"atcr_hold {\n region \"a\nb\"\n}",
		"atcr_hold {\n region `\x00\xff`\n}",
		"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil {
			return
		}
		var parsed Handler
		if err := parsed.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			return
		}
		encoded, err := json.Marshal(&parsed)
		if err != nil {
			t.Fatalf("encoding what was parsed: %v", err)
		}
		var decoded Handler
		if err := caddy.StrictUnmarshalJSON(encoded, &decoded); err != nil {
			t.Fatalf("decoding %s: %v", encoded, err)
		}
		again, err := json.Marshal(&decoded)
		if err != nil || string(again) != string(encoded) {
			t.Fatalf("%s became %s (%v)", encoded, again, err)
		}
	})
}
