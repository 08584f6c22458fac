package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Config says which bucket, where, and as whom.
type Config struct {
	Bucket string
	Region string // "": us-east-1
	// Endpoint is the URL of the server; "" is Amazon's for the region.
	Endpoint string
	// PublicEndpoint is the URL at which clients reach the server, for presigned
	// URLs; "" is Endpoint.
	PublicEndpoint string
	// Prefix stands before every key, as a directory would; "" is the bucket's top.
	Prefix string
	// AccessKey and SecretKey are used alone if they are set; otherwise the
	// environment, the shared configuration files and, when there is nothing else,
	// the instance metadata service are asked.
	AccessKey, SecretKey string
	// PathStyle puts the bucket in the path instead of the host; nil: yes where an
	// Endpoint is set.
	PathStyle *bool
	// Client sends the requests; nil is one made for large bodies. It must not
	// decompress answers.
	Client *http.Client
}

const (
	defaultRegion = "us-east-1"

	// credentialMargin is how long credentials must live on when a URL is signed
	// with them, since the URL dies with them.
	credentialMargin = 15 * time.Minute

	// answerTimeout bounds the wait for the head of an answer: completing and
	// copying may take minutes.
	answerTimeout = 15 * time.Minute
	// quickTimeout bounds requests that take a moment, all attempts together.
	quickTimeout = 10 * time.Second
	// spools is how many parts of unknown size are in temporary files at once.
	spools = 4

	copyLimit    = 5 << 30 // what CopyObject copies
	copyPartSize = 1 << 30
)

// Driver keeps blobs in a bucket. It holds no state but the result of the
// self-test.
type Driver struct {
	client    *s3.Client
	presigner *presigner
	bucket    string
	prefix    string
	identity  string

	copyLimit    int64 // constants, smaller in tests
	copyPartSize int64
	quickTimeout time.Duration

	spooling chan struct{} // an element for each part that is spooled

	selfTest sync.Mutex
	tested   bool // the self-test has come to a result
	sha256   bool // the result: CopyObject computes SHA-256 checksums
}

// New returns the driver of a bucket. It sends no request: the server may be
// away.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	if cfg.Bucket == "" {
		return nil, errors.New("configuring s3: no bucket")
	}
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	sdk, err := sdkConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	pathStyle := cfg.Endpoint != ""
	if cfg.PathStyle != nil {
		pathStyle = *cfg.PathStyle
	}
	client := s3.NewFromConfig(sdk, s3.WithAPIOptions(dropAcceptEncoding), func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
		o.ContinueHeaderThresholdBytes = -1 // some servers never answer 100
	})
	public := cfg.PublicEndpoint
	if public == "" {
		public = cfg.Endpoint
	}
	presigner, err := newPresigner(ctx, sdk, cfg.Bucket, public, pathStyle)
	if err != nil {
		return nil, err
	}
	prefix := strings.Trim(cfg.Prefix, "/")
	if prefix != "" {
		prefix += "/"
	}
	place := cfg.Endpoint
	if place == "" {
		place = "aws"
	}
	return &Driver{
		client:       client,
		presigner:    presigner,
		bucket:       cfg.Bucket,
		prefix:       prefix,
		identity:     "s3:" + strings.TrimRight(place, "/") + "/" + cfg.Bucket + "/" + prefix,
		copyLimit:    copyLimit,
		copyPartSize: copyPartSize,
		quickTimeout: quickTimeout,
		spooling:     make(chan struct{}, spools),
	}, nil
}

func sdkConfig(ctx context.Context, cfg Config) (aws.Config, error) {
	client := cfg.Client
	if client == nil {
		client = newClient()
	}
	// Checksums that are sent unasked are refused by servers of real vendors, over
	// TLS only.
	sdk := aws.Config{
		Region:                     cfg.Region,
		HTTPClient:                 client,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	}
	if cfg.AccessKey != "" || cfg.SecretKey != "" {
		sdk.Credentials = credentials.NewStaticCredentialsProvider(cfg.AccessKey, cfg.SecretKey, "")
		return sdk, nil
	}
	loaded, err := config.LoadDefaultConfig(ctx,
		config.WithRegion(cfg.Region),
		config.WithHTTPClient(client),
		config.WithRequestChecksumCalculation(sdk.RequestChecksumCalculation),
		config.WithResponseChecksumValidation(sdk.ResponseChecksumValidation),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = credentialMargin }),
	)
	if err != nil {
		return aws.Config{}, fmt.Errorf("configuring s3: %w", err)
	}
	return loaded, nil
}

// newClient returns an HTTP/1.1 client: large bodies go faster that way. It does
// not ask for compression, so ranges and sizes are those of the objects.
func newClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   100,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
		Protocols:             protocols,
	}}
}

// dropAcceptEncoding keeps the header from being signed: Google rewrites it on
// the way, and the signature is wrong then.
func dropAcceptEncoding(stack *middleware.Stack) error {
	drop := middleware.FinalizeMiddlewareFunc("DropAcceptEncoding",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			if r, ok := in.Request.(*smithyhttp.Request); ok {
				r.Header.Del("Accept-Encoding")
			}
			return next.HandleFinalize(ctx, in)
		})
	return stack.Finalize.Insert(drop, "Signing", middleware.Before)
}

// Identity is made of endpoint, bucket and prefix.
func (d *Driver) Identity() string { return d.identity }

// key returns the full key of a driver's key.
func (d *Driver) key(key string) *string { return aws.String(d.prefix + key) }
