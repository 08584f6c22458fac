package caddyhold

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/s3"
)

func init() {
	caddy.RegisterModule(S3{})
}

// S3 keeps blobs in a bucket of Amazon S3 or of a server that speaks its protocol.
type S3 struct {
	// The name of the bucket, which must exist. Required.
	Bucket string `json:"bucket,omitempty"`

	// The region that requests are signed for. Default: `us-east-1`.
	Region string `json:"region,omitempty"`

	// The URL of the server. Default: Amazon's, in the region.
	Endpoint string `json:"endpoint,omitempty"`

	// The URL of the same server as clients reach it, for the URLs that are signed for them.
	// Default: the endpoint.
	PublicEndpoint string `json:"public_endpoint,omitempty"`

	// What the key of every object begins with. Default: nothing.
	Prefix string `json:"prefix,omitempty"`

	// The access key, best as a placeholder such as `{env.AWS_ACCESS_KEY_ID}`: what stands
	// here can be read in the configuration. Default: the environment, the shared
	// configuration files, and last the machine's own credentials, in the order of the AWS SDK.
	AccessKey string `json:"access_key,omitempty"`

	// The secret that belongs to the access key, as a placeholder likewise.
	SecretKey string `json:"secret_key,omitempty"`

	// Whether the bucket stands in the path of URLs rather than in their host.
	// Default: true where an endpoint is set, else false.
	PathStyle *bool `json:"path_style,omitempty"`
}

const defaultS3Region = "us-east-1"

// CaddyModule returns the Caddy module information.
func (S3) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "atcr_hold.storage.s3",
		New: func() caddy.Module { return new(S3) },
	}
}

// Provision resolves placeholders and sets the defaults.
func (s *S3) Provision(caddy.Context) error {
	err := replacePlaceholders(
		field{"bucket", &s.Bucket}, field{"region", &s.Region}, field{"endpoint", &s.Endpoint},
		field{"public_endpoint", &s.PublicEndpoint}, field{"prefix", &s.Prefix},
		field{"access_key", &s.AccessKey}, field{"secret_key", &s.SecretKey},
	)
	if err != nil {
		return err
	}
	if s.Region == "" {
		s.Region = defaultS3Region
	}
	return nil
}

// Validate checks what Provision has filled in.
func (s *S3) Validate() error {
	if s.Bucket == "" {
		return errors.New("bucket is required")
	}
	for _, endpoint := range []field{{"endpoint", &s.Endpoint}, {"public_endpoint", &s.PublicEndpoint}} {
		if *endpoint.value == "" {
			continue
		}
		if _, err := parseHTTPURL(*endpoint.value); err != nil {
			return fmt.Errorf("%s: %w", endpoint.name, err)
		}
	}
	if (s.AccessKey == "") != (s.SecretKey == "") {
		return errors.New("access_key and secret_key belong together")
	}
	return nil
}

// UnmarshalCaddyfile sets up the storage from Caddyfile tokens. Syntax:
//
//	s3 {
//	    bucket          <name>
//	    region          <name>
//	    endpoint        <url>
//	    public_endpoint <url>
//	    prefix          <prefix>
//	    access_key      <key>
//	    secret_key      <secret>
//	    path_style      [true|false]
//	}
func (s *S3) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the module's name
	return parseBlock(d, map[string]argument{
		"bucket":          text(&s.Bucket),
		"region":          text(&s.Region),
		"endpoint":        text(&s.Endpoint),
		"public_endpoint": text(&s.PublicEndpoint),
		"prefix":          text(&s.Prefix),
		"access_key":      text(&s.AccessKey),
		"secret_key":      text(&s.SecretKey),
		"path_style":      optionalFlag(&s.PathStyle),
	})
}

// OpenStorage implements [Storage].
func (s *S3) OpenStorage(ctx context.Context, _ string) (blobs.Driver, func() error, error) {
	driver, err := s3.New(ctx, s3.Config{
		Bucket:         s.Bucket,
		Region:         s.Region,
		Endpoint:       s.Endpoint,
		PublicEndpoint: s.PublicEndpoint,
		Prefix:         s.Prefix,
		AccessKey:      s.AccessKey,
		SecretKey:      s.SecretKey,
		PathStyle:      s.PathStyle,
	})
	if err != nil {
		return nil, nil, err
	}
	return driver, func() error { return nil }, nil
}

// Interface guards
var (
	_ Storage               = (*S3)(nil)
	_ caddy.Provisioner     = (*S3)(nil)
	_ caddy.Validator       = (*S3)(nil)
	_ caddyfile.Unmarshaler = (*S3)(nil)
)
