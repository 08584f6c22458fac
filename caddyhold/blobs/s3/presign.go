package s3

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// presigner makes URLs for clients. A hold makes one for each layer that is
// pulled, so it signs them itself: the SDK's way through its middleware takes
// three times as long and gives the same URL.
type presigner struct {
	signer      *v4.Signer
	credentials aws.CredentialsProvider
	region      string
	base        url.URL // of the bucket
}

func newPresigner(ctx context.Context, sdk aws.Config, bucket, endpoint string, pathStyle bool) (*presigner, error) {
	params := s3.EndpointParameters{Bucket: &bucket, Region: &sdk.Region, ForcePathStyle: &pathStyle}
	if endpoint != "" {
		params.Endpoint = &endpoint
	}
	resolved, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("configuring s3: %w", err)
	}
	return &presigner{
		signer:      v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }), // S3 escapes once
		credentials: sdk.Credentials, region: sdk.Region, base: resolved.URI,
	}, nil
}

// url returns a URL good for one method on one key, with only the host signed
// beside the query, so that clients need send no header.
func (p *presigner) url(ctx context.Context, method, key string, query url.Values, lifetime time.Duration) (string, error) {
	credentials, err := p.credentials.Retrieve(ctx)
	if err != nil {
		return "", fmt.Errorf("retrieving credentials: %w", err)
	}
	query.Set("X-Amz-Expires", strconv.FormatInt(int64(lifetime/time.Second), 10))
	target := p.base
	target.Path = strings.TrimRight(p.base.Path, "/") + "/" + key
	target.RawPath = httpbinding.EscapePath(target.Path, false)
	target.RawQuery = query.Encode()
	request := (&http.Request{Method: method, URL: &target, Host: target.Host, Header: make(http.Header)}).WithContext(ctx)
	signed, _, err := p.signer.PresignHTTP(ctx, credentials, request, "UNSIGNED-PAYLOAD", "s3", p.region, time.Now())
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return signed, nil
}

// PresignPart presigns UploadPart to the staging key.
func (d *Driver) PresignPart(ctx context.Context, u blobs.Upload, part int, lifetime time.Duration) (blobs.Target, error) {
	query := url.Values{"partNumber": {strconv.Itoa(part)}, "uploadId": {u.Handle}}
	signed, err := d.presigner.url(ctx, http.MethodPut, *d.key(stagingKey(u.ID)), query, lifetime)
	if err != nil {
		return blobs.Target{}, err
	}
	return blobs.Target{URL: signed, Method: http.MethodPut, Headers: map[string]string{}}, nil
}

// Presign presigns GetObject or HeadObject: a server takes neither for the other.
func (d *Driver) Presign(ctx context.Context, key, method string, lifetime time.Duration) (string, error) {
	return d.presigner.url(ctx, method, *d.key(key), make(url.Values), lifetime)
}
