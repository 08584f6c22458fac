package appview

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// holdError is an XRPC error that the hold answered with.
type holdError struct {
	Status  int
	Name    string `json:"error"`
	Message string `json:"message"`
}

// Error tells what the hold said.
func (e *holdError) Error() string {
	return fmt.Sprintf("hold: %d %s: %s", e.Status, e.Name, e.Message)
}

// errUnknownUpload is for sessions that this registry does not have.
var errUnknownUpload = errors.New("unknown upload")

// writeError translates what went wrong into the errors of the OCI distribution spec.
func writeError(w http.ResponseWriter, err error) {
	status, code := http.StatusBadGateway, "UNKNOWN" // clients try again
	var refusal *holdError
	switch {
	case errors.Is(err, errUnknownUpload):
		status, code = http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"
	case !errors.As(err, &refusal):
	case refusal.Status == http.StatusUnauthorized:
		status, code = http.StatusUnauthorized, "UNAUTHORIZED"
	case refusal.Status == http.StatusForbidden:
		status, code = http.StatusForbidden, "DENIED"
	case refusal.Name == "BlobNotFound":
		status, code = http.StatusNotFound, "BLOB_UNKNOWN"
	case refusal.Name == "InvalidDigest":
		status, code = http.StatusBadRequest, "DIGEST_INVALID"
	case refusal.Status < 500:
		status = refusal.Status
	}
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]entry{"errors": {{code, err.Error()}}}) // the client is gone
}
