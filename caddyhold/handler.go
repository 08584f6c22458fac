package caddyhold

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler serves a hold, the storage service of the ATProto Container Registry: a did:web
// identity with an ATProto repository, and a store of container blobs for its users. It
// answers `/xrpc/*`, `/.well-known/did.json` and `/.well-known/atproto-did`, and passes all
// other requests on.
//
// Handlers with the same data directory are one hold, and must be configured alike.
//
// Placeholders such as `{env.NAME}` and `{file./path}` are replaced in every text field, once,
// when the configuration is loaded. After a secret behind one changed, reload with `--force`.
//
// Access logs get the fields `nsid`, `did` and `digest`. They also have what opens a blob for
// a while: the query parameter `sig`, and redirects to signed URLs. Filter `resp_headers>Location`
// and the query of `request>uri`.
type Handler struct {
	// The URL under which clients and AppViews reach this hold, such as
	// `https://hold.example.com`: a scheme, a host and, if need be, a port. The hold's DID
	// follows from it, so it cannot change while the hold keeps its data directory. Required.
	PublicURL string `json:"public_url,omitempty"`

	// The DID of the hold's owner, the captain, who may do everything.
	// Default: the hold's own DID.
	Owner string `json:"owner,omitempty"`

	// The directory of the database and the signing key, made with mode 0700 if absent.
	// Default: `atcr_hold` in Caddy's [data directory](/docs/conventions#data-directory).
	DataDir string `json:"data_dir,omitempty"`

	// The file of the key that signs the hold's repository, made on first run if absent.
	// Default: `signing.key` in the data directory.
	SigningKey string `json:"signing_key,omitempty"`

	// Where blobs are kept. Default: the file system, under `blobs` in the data directory.
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=atcr_hold.storage inline_key=driver"`

	// Who may read and write.
	Access Access `json:"access,omitzero"`

	// Whether clients move bytes straight to and from storage that can be reached with signed
	// URLs. If false, every byte goes through the hold. Default: true.
	PresignedURLs *bool `json:"presigned_urls,omitempty"`

	// How long a signed URL is good for, at most 7 days. Default: 15m.
	URLLifetime caddy.Duration `json:"url_lifetime,omitempty"`

	// Another base URL of this hold, for the parts of uploads that go through it. An HTTP/1.1
	// address lets a single upload run faster over a long way than HTTP/2 does.
	// Default: the public URL.
	UploadURL string `json:"upload_url,omitempty"`

	// The PLC directory where did:plc identities are looked up.
	// Default: `https://plc.directory`.
	PLCDirectory string `json:"plc_directory,omitempty"`

	// Where the hold's storage is, at most 64 characters, for everyone to read in the
	// captain record. Default: not said.
	Region string `json:"region,omitempty"`

	// Accept identities on loopback too, there over plain HTTP. Those on private networks stay
	// refused. For tests only. Default: false.
	TestMode bool `json:"test_mode,omitempty"`

	service *service
}

// Access says who may read from a hold and write to it, besides its captain and its crew.
type Access struct {
	// Whether anyone may read. Default: false.
	Public bool `json:"public,omitempty"`

	// Whether every authenticated user may write, and read. Default: false.
	AllowAllCrew bool `json:"allow_all_crew,omitempty"`

	// Which service tokens are accepted. `compatible` is what AppViews need: one token for
	// many calls while it lives. With `strict` a token names the method it was made for,
	// lives for 5 minutes at most, and is good for one write. Default: `compatible`.
	TokenMethods string `json:"token_methods,omitempty"`
}

// Values of [Access].TokenMethods.
const (
	tokensCompatible = "compatible"
	tokensStrict     = "strict"
)

const (
	defaultURLLifetime  = 15 * time.Minute
	maxURLLifetime      = 7 * 24 * time.Hour // S3 signs for no longer
	defaultPLCDirectory = "https://plc.directory"
	maxRegion           = 64
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.atcr_hold",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets the defaults, loads the storage module and registers the hold with the app,
// which opens it when the configuration starts. It opens nothing itself.
func (h *Handler) Provision(ctx caddy.Context) error {
	identical, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encoding the configuration of a hold: %w", err)
	}
	if err := h.replacePlaceholders(); err != nil {
		return err
	}
	h.setDefaults()
	if err := h.normalize(); err != nil {
		return err
	}
	storage, err := ctx.LoadModule(h, "StorageRaw")
	if err != nil {
		return fmt.Errorf("loading storage: %w", err)
	}
	app, err := ctx.App(appID)
	if err != nil {
		return err
	}
	h.service, err = app.(*App).register(ctx, h, storage.(Storage), string(identical))
	return err
}

func (h *Handler) replacePlaceholders() error {
	return replacePlaceholders(
		field{"public_url", &h.PublicURL}, field{"owner", &h.Owner}, field{"data_dir", &h.DataDir},
		field{"signing_key", &h.SigningKey}, field{"token_methods", &h.Access.TokenMethods},
		field{"upload_url", &h.UploadURL}, field{"plc_directory", &h.PLCDirectory}, field{"region", &h.Region},
	)
}

// field is a text field and its name, for errors about it.
type field struct {
	name  string
	value *string
}

// replacePlaceholders resolves the placeholders in fields. One that is not known is an error;
// one that is known and empty, such as an unset environment variable, leaves the field empty,
// which means its default. A file that should hold a key must be there, else another key would
// be made or found in its stead.
func replacePlaceholders(fields ...field) error {
	repl := caddy.NewReplacer()
	for _, f := range fields {
		value, err := repl.ReplaceOrErr(*f.value, false, true)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if value == "" && strings.Contains(*f.value, "{file.") {
			return fmt.Errorf("%s: the file of %s is missing or empty", f.name, *f.value)
		}
		*f.value = value
	}
	return nil
}

func (h *Handler) setDefaults() {
	if h.DataDir == "" {
		h.DataDir = filepath.Join(caddy.AppDataDir(), "atcr_hold")
	}
	if h.SigningKey == "" {
		h.SigningKey = filepath.Join(h.DataDir, hold.KeyFile)
	}
	if h.StorageRaw == nil {
		h.StorageRaw = json.RawMessage(`{"driver":"filesystem"}`)
	}
	if h.Access.TokenMethods == "" {
		h.Access.TokenMethods = tokensCompatible
	}
	if h.PresignedURLs == nil {
		presigned := true
		h.PresignedURLs = &presigned
	}
	if h.URLLifetime == 0 {
		h.URLLifetime = caddy.Duration(defaultURLLifetime)
	}
	if h.PLCDirectory == "" {
		h.PLCDirectory = defaultPLCDirectory
	}
}

// normalize gives paths and URLs that mean the same one spelling, since they are compared
// with those of other handlers and of the hold that is open.
func (h *Handler) normalize() (err error) {
	for _, path := range []field{{"data_dir", &h.DataDir}, {"signing_key", &h.SigningKey}} {
		if *path.value, err = canonicalPath(*path.value); err != nil {
			return fmt.Errorf("%s: %w", path.name, err)
		}
	}
	for _, base := range []field{{"public_url", &h.PublicURL}, {"upload_url", &h.UploadURL}} {
		if *base.value == "" {
			continue
		}
		if *base.value, err = origin(*base.value); err != nil {
			return fmt.Errorf("%s: %w", base.name, err)
		}
	}
	return nil
}

// Validate checks what Provision has filled in.
func (h *Handler) Validate() error {
	if h.PublicURL == "" {
		return errors.New("public_url is required")
	}
	if _, err := pds.DIDForURL(h.PublicURL); err != nil {
		return fmt.Errorf("public_url: %w", err)
	}
	if _, err := parseHTTPURL(h.PLCDirectory); err != nil {
		return fmt.Errorf("plc_directory: %w", err)
	}
	if h.Owner != "" {
		if _, err := syntax.ParseDID(h.Owner); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if t := h.Access.TokenMethods; t != tokensCompatible && t != tokensStrict {
		return fmt.Errorf("token_methods: %q is neither %s nor %s", t, tokensCompatible, tokensStrict)
	}
	if l := time.Duration(h.URLLifetime); l < time.Second || l > maxURLLifetime {
		return fmt.Errorf("url_lifetime: %s is not between 1s and %s", l, maxURLLifetime)
	}
	if len(h.Region) > maxRegion {
		return fmt.Errorf("region: longer than %d bytes", maxRegion)
	}
	return nil
}

// origin returns scheme://host[:port] in lower case. A slash may follow in s, nothing more.
func origin(s string) (string, error) {
	u, err := parseHTTPURL(s)
	if err != nil {
		return "", err
	}
	if (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", fmt.Errorf("%q has more than a scheme, a host and a port", u.Redacted())
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

func parseHTTPURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is no http or https URL", u.Redacted())
	}
	return u, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
