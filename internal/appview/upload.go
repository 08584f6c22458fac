package appview

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
)

// partSize is the size of all parts of a blob but the last, in bytes.
const partSize = 10 << 20

// upload is a blob on its way from a client to the hold.
type upload struct {
	caller *caller
	id     string // the hold's
	parts  []part
	buffer []byte // less than a part, not yet sent
	size   int64  // bytes received
}

type part struct {
	Number int    `json:"partNumber"`
	ETag   string `json:"etag"`
}

// serveUpload answers the upload requests of the OCI distribution spec: POST opens an upload, PATCH adds bytes, PUT adds the
// last ones and names the digest.
func (s *session) serveUpload(w http.ResponseWriter, r *http.Request, repository, id string) error {
	switch {
	case r.Method == http.MethodPost && id == "":
		return s.openUpload(w, r, repository)
	case r.Method == http.MethodPatch:
		return s.patchUpload(w, r, repository, id)
	case r.Method == http.MethodPut:
		return s.finishUpload(w, r, repository, id)
	case r.Method == http.MethodDelete:
		return s.cancelUpload(w, r, id)
	}
	w.WriteHeader(http.StatusMethodNotAllowed)
	return nil
}

func (s *session) openUpload(w http.ResponseWriter, r *http.Request, repository string) error {
	var output struct {
		UploadID string `json:"uploadId"`
	}
	id := rand.Text()
	input := map[string]string{"digest": "uploads/temp-" + id}
	if err := s.caller.procedure(r.Context(), "io.atcr.hold.initiateUpload", input, &output); err != nil {
		return err
	}
	s.mu.Lock()
	s.uploads[id] = &upload{caller: &s.caller, id: output.UploadID}
	s.mu.Unlock()
	w.Header().Set("Location", uploadLocation(repository, id))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func uploadLocation(repository, id string) string {
	return "/v2/" + repository + "/blobs/uploads/" + id
}

func (s *session) patchUpload(w http.ResponseWriter, r *http.Request, repository, id string) error {
	u, err := s.upload(id)
	if err != nil {
		return err
	}
	if err := u.append(r.Context(), r.Body); err != nil {
		return s.drop(id, err)
	}
	w.Header().Set("Location", uploadLocation(repository, id))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (s *session) finishUpload(w http.ResponseWriter, r *http.Request, repository, id string) error {
	u, err := s.upload(id)
	if err != nil {
		return err
	}
	digest := r.URL.Query().Get("digest")
	if err := u.append(r.Context(), r.Body); err != nil {
		return s.drop(id, err)
	}
	if err := u.complete(r.Context(), digest); err != nil {
		return s.drop(id, err)
	}
	s.forget(id)
	w.Header().Set("Location", "/v2/"+repository+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *session) cancelUpload(w http.ResponseWriter, r *http.Request, id string) error {
	u, err := s.upload(id)
	if err != nil {
		return err
	}
	s.forget(id)
	if err := u.abort(r.Context()); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// upload finds an upload. The spec lets a client send the bytes of one only one after the other, so it needs no lock.
func (s *session) upload(id string) (*upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id]; u != nil {
		return u, nil
	}
	return nil, errUnknownUpload
}

func (s *session) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, id)
}

// drop gives up an upload that failed: the client has to begin anew. Whether the hold still hears of it or not, it has to
// cope.
func (s *session) drop(id string, cause error) error {
	u, err := s.upload(id)
	if err != nil {
		return cause
	}
	s.forget(id)
	_ = u.abort(context.Background())
	return cause
}

// append takes bytes from the client and passes them on in whole parts.
func (u *upload) append(ctx context.Context, body io.Reader) error {
	if u.buffer == nil {
		u.buffer = make([]byte, 0, partSize)
	}
	for {
		n, err := io.ReadFull(body, u.buffer[len(u.buffer):partSize])
		u.buffer = u.buffer[:len(u.buffer)+n]
		u.size += int64(n)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading from the client: %w", err)
		}
		if err := u.flush(ctx); err != nil {
			return err
		}
	}
}

func (u *upload) flush(ctx context.Context) error {
	number := len(u.parts) + 1
	var target struct {
		URL string `json:"url"`
	}
	input := map[string]any{"uploadId": u.id, "partNumber": number}
	if err := u.caller.procedure(ctx, "io.atcr.hold.getPartUploadUrl", input, &target); err != nil {
		return err
	}
	etag, err := u.caller.putPart(ctx, target.URL, u.buffer)
	if err != nil {
		return err
	}
	u.parts = append(u.parts, part{number, etag})
	u.buffer = u.buffer[:0]
	return nil
}

func (u *upload) complete(ctx context.Context, digest string) error {
	if len(u.buffer) > 0 {
		if err := u.flush(ctx); err != nil {
			return err
		}
	}
	if u.parts == nil {
		u.parts = []part{} // an empty blob has no parts
	}
	var output struct {
		Status string `json:"status"`
		Digest string `json:"digest"`
	}
	input := map[string]any{"uploadId": u.id, "digest": digest, "parts": u.parts}
	if err := u.caller.procedure(ctx, "io.atcr.hold.completeUpload", input, &output); err != nil {
		return err
	}
	if output.Status != "completed" || output.Digest != digest {
		return fmt.Errorf("completing %s: the hold answered %+v", digest, output)
	}
	return nil
}

func (u *upload) abort(ctx context.Context) error {
	var output struct {
		Status string `json:"status"`
	}
	return u.caller.procedure(ctx, "io.atcr.hold.abortUpload", map[string]string{"uploadId": u.id}, &output)
}
