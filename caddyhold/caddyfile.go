package caddyhold

import (
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("atcr_hold", parseCaddyfile)
	httpcaddyfile.RegisterDirectiveOrder("atcr_hold", httpcaddyfile.After, "encode")
}

func parseCaddyfile(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	atcr_hold [<matcher>] {
//	    public_url     <url>
//	    owner          <did>
//	    data_dir       <path>
//	    signing_key    <path>
//	    storage        <driver> {
//	        ...
//	    }
//	    access {
//	        public         [true|false]
//	        allow_all_crew [true|false]
//	        token_methods  compatible|strict
//	    }
//	    presigned_urls [true|false]
//	    url_lifetime   <duration>
//	    upload_url     <url>
//	    plc_directory  <url>
//	    region         <name>
//	    test_mode      [true|false]
//	}
//
// A flag without a value is true. An empty value ("") is as if the line were not there, so
// that environment variables which are set and empty mean the default.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	return parseBlock(d, map[string]argument{
		"public_url":     text(&h.PublicURL),
		"owner":          text(&h.Owner),
		"data_dir":       text(&h.DataDir),
		"signing_key":    text(&h.SigningKey),
		"storage":        h.unmarshalStorage,
		"access":         h.Access.unmarshalCaddyfile,
		"presigned_urls": optionalFlag(&h.PresignedURLs),
		"url_lifetime":   duration(&h.URLLifetime),
		"upload_url":     text(&h.UploadURL),
		"plc_directory":  text(&h.PLCDirectory),
		"region":         text(&h.Region),
		"test_mode":      flag(&h.TestMode),
	})
}

func (h *Handler) unmarshalStorage(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	driver := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "atcr_hold.storage."+driver)
	if err != nil {
		return err
	}
	h.StorageRaw = caddyconfig.JSONModuleObject(module, "driver", driver, nil)
	return nil
}

func (a *Access) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return parseBlock(d, map[string]argument{
		"public":         flag(&a.Public),
		"allow_all_crew": flag(&a.AllowAllCrew),
		"token_methods":  text(&a.TokenMethods),
	})
}

// argument reads what follows a word.
type argument func(d *caddyfile.Dispenser) error

// parseBlock reads the rest of the line, where nothing may stand, and the block that may
// follow: one known word to a line, none twice.
func parseBlock(d *caddyfile.Dispenser, words map[string]argument) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		read, known := words[word]
		if !known {
			return d.Errf("unrecognized word '%s'", word)
		}
		if seen[word] {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := read(d); err != nil {
			return err
		}
	}
	return nil
}

func text(field *string) argument {
	return func(d *caddyfile.Dispenser) error {
		if !d.AllArgs(field) {
			return d.ArgErr()
		}
		return nil
	}
}

func duration(field *caddy.Duration) argument {
	return func(d *caddyfile.Dispenser) error {
		var value string
		if !d.AllArgs(&value) {
			return d.ArgErr()
		}
		if value == "" {
			return nil
		}
		parsed, err := caddy.ParseDuration(value)
		if err != nil {
			return d.WrapErr(err)
		}
		*field = caddy.Duration(parsed)
		return nil
	}
}

func flag(field *bool) argument {
	return func(d *caddyfile.Dispenser) error {
		value, err := parseFlag(d)
		if value != nil {
			*field = *value
		}
		return err
	}
}

// optionalFlag is a flag that knows whether it was given.
func optionalFlag(field **bool) argument {
	return func(d *caddyfile.Dispenser) (err error) {
		*field, err = parseFlag(d)
		return err
	}
}

// parseFlag returns nil for an empty value.
func parseFlag(d *caddyfile.Dispenser) (*bool, error) {
	text := "true"
	if d.CountRemainingArgs() > 0 && !d.AllArgs(&text) {
		return nil, d.ArgErr()
	}
	if text == "" {
		return nil, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return nil, d.Errf("'%s' is neither true nor false", text)
	}
	return &value, nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Handler)(nil)
