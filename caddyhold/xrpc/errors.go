package xrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// Error is an XRPC error: a status, and a body {"error": Name, "message": Message}.
type Error struct {
	Status     int
	Name       string
	Message    string
	RetryAfter time.Duration // 0: no Retry-After header
}

// Error returns name and message.
func (e *Error) Error() string { return e.Name + ": " + e.Message }

func invalidRequest(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Name: "InvalidRequest", Message: fmt.Sprintf(format, args...)}
}

// known are the errors of the packages below that a caller can do something about: their
// text is the message. The first that matches counts.
var known = []struct {
	err    error
	status int
	name   string
}{
	{hold.ErrAuthRequired, http.StatusUnauthorized, "AuthRequired"},
	{hold.ErrForbidden, http.StatusForbidden, "Forbidden"},
	{hold.ErrProtectedRecord, http.StatusForbidden, "Forbidden"},
	{hold.ErrRegistrationDisabled, http.StatusForbidden, "RegistrationDisabled"},
	{hold.ErrUserMismatch, http.StatusForbidden, "UserMismatch"},
	{hold.ErrInvalidOperation, http.StatusBadRequest, "InvalidOperation"},
	{hold.ErrLayerNotFound, http.StatusBadRequest, "BlobNotFound"},
	{hold.ErrInvalidRequest, http.StatusBadRequest, "InvalidRequest"},

	{blobs.ErrUnavailable, http.StatusServiceUnavailable, "StorageUnavailable"},
	{blobs.ErrInsufficientStorage, http.StatusInsufficientStorage, "InsufficientStorage"},
	{blobs.ErrInvalidDigest, http.StatusBadRequest, "InvalidDigest"},
	{blobs.ErrInvalidUploadID, http.StatusBadRequest, "InvalidUploadId"},
	{blobs.ErrInvalidPartNumber, http.StatusBadRequest, "InvalidPartNumber"},
	{blobs.ErrPartTooLarge, http.StatusRequestEntityTooLarge, "PayloadTooLarge"},
	{blobs.ErrTooManyUploads, http.StatusTooManyRequests, "TooManyUploads"},
	{blobs.ErrMissingParts, http.StatusBadRequest, "MissingParts"},
	{blobs.ErrBadSignature, http.StatusForbidden, "Forbidden"},
	{blobs.ErrBlobNotFound, http.StatusNotFound, "BlobNotFound"},
	{blobs.ErrUploadFailed, http.StatusInternalServerError, "UploadFailed"},
	{blobs.ErrCompletionFailed, http.StatusInternalServerError, "CompletionFailed"},
	{blobs.ErrAbortFailed, http.StatusInternalServerError, "AbortFailed"},

	{pds.ErrBlobNotFound, http.StatusNotFound, "BlobNotFound"},
	{pds.ErrBlobTooLarge, http.StatusRequestEntityTooLarge, "PayloadTooLarge"},
	{pds.ErrInvalidSwap, http.StatusBadRequest, "InvalidSwap"},
	{pds.ErrInvalidRecord, http.StatusBadRequest, "InvalidRequest"},
	{pds.ErrInvalidCursor, http.StatusBadRequest, "InvalidRequest"},
	{pds.ErrInvalidPath, http.StatusBadRequest, "InvalidRequest"},
	{pds.ErrRecordExists, http.StatusBadRequest, "InvalidRequest"},
	{pds.ErrRecordNotFound, http.StatusBadRequest, "RecordNotFound"},
	{pds.ErrBlockNotFound, http.StatusBadRequest, "BlockNotFound"},
	{pds.ErrClosed, http.StatusServiceUnavailable, "ServiceUnavailable"},
}

// retryAfter is what a client is told to wait when the hold can not answer now.
const retryAfter = 5 * time.Second

// asError finds the answer for an error of any origin.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	for _, k := range known {
		if !errors.Is(err, k.err) {
			continue
		}
		e := &Error{Status: k.status, Name: k.name, Message: err.Error()}
		if k.status >= 500 {
			e.Message = k.err.Error() // details are for the log
		}
		if k.status == http.StatusServiceUnavailable {
			e.RetryAfter = retryAfter
		}
		return e
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &Error{Status: http.StatusRequestEntityTooLarge, Name: "PayloadTooLarge", Message: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	}
	return &Error{Status: http.StatusInternalServerError, Name: "InternalServerError", Message: "the hold failed; its log says why"}
}

// writeError answers with err and logs what the hold, not the caller, got wrong.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		e = &Error{Status: statusClientClosedRequest, Name: "ClientClosedRequest", Message: "the client went away"}
	}
	if e.Status >= 500 && e.Status != http.StatusNotImplemented {
		s.Logger.Error("request failed", zap.String("path", r.URL.Path), zap.String("error_name", e.Name), zap.Error(err))
	}
	if e.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer realm="+strconv.Quote(s.hold.State().DID())+", error="+strconv.Quote(e.Name))
	}
	WriteError(w, e)
}

// statusClientClosedRequest is what access logs show for a client that did not wait.
const statusClientClosedRequest = 499

// WriteError answers with e.
func WriteError(w http.ResponseWriter, e *Error) {
	allowBrowsers(w)
	h := w.Header()
	h.Del("Content-Length")
	h.Del("Etag")
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(e.RetryAfter.Seconds())))
	}
	writeJSON(w, e.Status, struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}{e.Name, e.Message})
}
