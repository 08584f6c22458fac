package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// hasCode says whether the server answered with one of these error codes.
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode() == code {
			return true
		}
	}
	return false
}

// notFound says whether there is no object; a HEAD has no body to say more than
// the status does.
func notFound(err error) bool {
	return hasCode(err, "NoSuchKey", "NotFound") || status(err) == http.StatusNotFound
}

// noSuchUpload says whether a multipart upload is completed, aborted or was
// never there.
func noSuchUpload(err error) bool { return hasCode(err, "NoSuchUpload") }

// status returns the status code of the answer, 0 where there was none.
func status(err error) int {
	if answer, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return answer.HTTPStatusCode()
	}
	return 0
}

// explain says what an error of the SDK, after its retries, means to blobs.
func explain(err error) error {
	var send *smithyhttp.RequestSendError
	code := status(err)
	switch {
	case err == nil:
		return nil
	case code == http.StatusInsufficientStorage, hasCode(err, "XMinioStorageFull", "QuotaExceeded"):
		return fmt.Errorf("%w: %w", blobs.ErrInsufficientStorage, err)
	case errors.Is(err, context.DeadlineExceeded), // of the driver: requests have none of their own
		hasCode(err, "NoSuchBucket"), // for who set the hold up to see to
		hasCode(err, "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests"),
		code == http.StatusTooManyRequests,
		code >= http.StatusInternalServerError && code != http.StatusNotImplemented,
		errors.As(err, &send):
		return fmt.Errorf("%w: %w", blobs.ErrUnavailable, err)
	default:
		return err
	}
}
