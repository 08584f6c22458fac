package xrpc

import (
	"net/http"
	"strconv"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// Bounds of the upload procedures' fields.
const (
	maxDigest   = 128
	maxUploadID = 256
)

// initiateUpload opens an upload session. The digest is often a placeholder: clients stream
// before they know it.
func (s *Server) initiateUpload(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authorize(r, hold.Write)
	if err != nil {
		return err
	}
	var in struct {
		Digest string `json:"digest"`
	}
	if err := readJSON(w, r, maxInput, &in); err != nil {
		return err
	}
	if in.Digest == "" || len(in.Digest) > maxDigest {
		return &Error{Status: http.StatusBadRequest, Name: "InvalidDigest", Message: "digest must have 1 to 128 bytes"}
	}
	id, err := s.hold.Blobs().Initiate(r.Context(), caller.DID, in.Digest)
	if err != nil {
		return err
	}
	return answer(w, map[string]string{"uploadId": id})
}

// uploadRef is how the procedures name a session and a part of it.
type uploadRef struct {
	UploadID   string `json:"uploadId"`
	PartNumber int    `json:"partNumber"`
}

func (u uploadRef) check() error {
	if u.UploadID == "" || len(u.UploadID) > maxUploadID {
		return blobs.ErrInvalidUploadID
	}
	return nil
}

// ownUpload is who calls, and for which of their uploads.
func (s *Server) ownUpload(w http.ResponseWriter, r *http.Request) (caller hold.Caller, in uploadRef, err error) {
	if caller, err = s.authorize(r, hold.Write); err != nil {
		return caller, in, err
	}
	if err := readJSON(w, r, maxInput, &in); err != nil {
		return caller, in, err
	}
	return caller, in, in.check()
}

// getPartUploadURL says where a part goes: to the store itself, or to uploadPart here.
func (s *Server) getPartUploadURL(w http.ResponseWriter, r *http.Request) error {
	caller, in, err := s.ownUpload(w, r)
	if err != nil {
		return err
	}
	target, err := s.hold.Blobs().PartURL(r.Context(), caller.DID, in.UploadID, in.PartNumber)
	if err != nil {
		return err
	}
	headers := target.Headers
	if headers == nil {
		headers = map[string]string{}
	}
	carriesURL(w)
	return answer(w, map[string]any{"url": target.URL, "method": target.Method, "headers": headers})
}

// carriesURL keeps an answer with a signed URL out of caches and referrers.
func carriesURL(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

// uploadPart takes a part's bytes, by token and headers or by the signed URL of
// getPartUploadUrl.
func (s *Server) uploadPart(w http.ResponseWriter, r *http.Request) error {
	owner, part, err := s.partUploader(r)
	if err != nil {
		return err
	}
	body := &clientBody{Reader: r.Body}
	etag, err := s.hold.Blobs().WritePart(r.Context(), owner, part.UploadID, part.PartNumber, body, r.ContentLength)
	if err != nil {
		return body.fault("UploadFailed", err)
	}
	w.Header().Set("ETag", strconv.Quote(etag))
	return answer(w, map[string]string{"etag": etag})
}

func (s *Server) partUploader(r *http.Request) (owner string, part uploadRef, err error) {
	q, err := parameters(r)
	if err != nil {
		return "", part, err
	}
	if q.get("sig") != "" {
		owner, part.UploadID, part.PartNumber, err = s.hold.Blobs().VerifyPartURL(map[string][]string(q))
		return owner, part, err
	}
	caller, err := s.authorize(r, hold.Write)
	if err != nil {
		return "", part, err
	}
	part.UploadID = r.Header.Get("X-Upload-Id")
	if err := part.check(); err != nil {
		return "", part, err
	}
	part.PartNumber, err = strconv.Atoi(r.Header.Get("X-Part-Number"))
	if err != nil {
		return "", part, blobs.ErrInvalidPartNumber
	}
	return caller.DID, part, nil
}

// completeUpload joins the parts and verifies the digest: only then there is a blob.
func (s *Server) completeUpload(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authorize(r, hold.Write)
	if err != nil {
		return err
	}
	var in struct {
		uploadRef
		Digest string `json:"digest"`
		Parts  []struct {
			PartNumber int    `json:"partNumber"`
			ETag       string `json:"etag"`
		} `json:"parts"`
	}
	if err := readJSON(w, r, maxPartsInput, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	digest := blobs.Digest(in.Digest) // a malformed one ends the session, as a wrong one does
	s.LogField(r, "digest", in.Digest)
	parts := make([]blobs.Part, len(in.Parts))
	for n, p := range in.Parts {
		parts[n] = blobs.Part{Number: p.PartNumber, ETag: p.ETag}
	}
	// Who may not read it (or where that cannot be told) has to prove that they have it.
	mayRead := s.hold.MayRead(caller, digest) == nil
	if _, err := s.hold.Blobs().Complete(r.Context(), caller.DID, in.UploadID, digest, parts, mayRead); err != nil {
		return err
	}
	return answer(w, map[string]string{"status": "completed", "digest": in.Digest})
}

// abortUpload ends a session and removes what it has stored.
func (s *Server) abortUpload(w http.ResponseWriter, r *http.Request) error {
	caller, in, err := s.ownUpload(w, r)
	if err != nil {
		return err
	}
	if err := s.hold.Blobs().Abort(r.Context(), caller.DID, in.UploadID); err != nil {
		return err
	}
	return answer(w, map[string]string{"status": "aborted"})
}
