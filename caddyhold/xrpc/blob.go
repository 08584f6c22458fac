package xrpc

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// getBlob serves both kinds of blob: OCI blobs, by digest, to whom the policy lets, and the
// blobs that records refer to, by CID, to everybody.
func (s *Server) getBlob(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	id, err := q.required("cid")
	if err != nil {
		return err
	}
	if strings.HasPrefix(id, "sha256:") {
		return s.getOCIBlob(w, r, q, id)
	}
	return s.getRecordBlob(w, q, id)
}

func (s *Server) getOCIBlob(w http.ResponseWriter, r *http.Request, q params, id string) error {
	d, err := blobs.ParseDigest(id)
	if err != nil {
		return err
	}
	s.LogField(r, "digest", id)
	if q.get("sig") != "" {
		if err := s.hold.Blobs().VerifyBlobURL(r.Method, d, map[string][]string(q)); err != nil {
			return err
		}
		return s.hold.Blobs().Serve(w, r, d)
	}

	caller, _, err := s.caller(r)
	if err != nil {
		return err
	}
	if err := s.hold.MayRead(caller, d); err != nil {
		return err
	}
	blob, err := s.hold.Blobs().Stat(r.Context(), d)
	if err != nil {
		return err
	}
	switch method := q.get("method"); {
	case method == http.MethodGet || method == http.MethodHead:
		url, err := s.hold.Blobs().URL(r.Context(), d, method)
		if err != nil {
			return err
		}
		carriesURL(w)
		return answer(w, map[string]string{"url": url})
	case method != "":
		return invalidRequest("method must be GET or HEAD")
	case r.Method == http.MethodHead:
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.FormatInt(blob.Size, 10))
		h.Set("Docker-Content-Digest", id)
		h.Set("ETag", strconv.Quote(id))
		h.Set("Accept-Ranges", "bytes")
		w.WriteHeader(http.StatusOK)
		return nil
	case !s.hold.Blobs().Direct():
		return s.hold.Blobs().Serve(w, r, d)
	}
	url, err := s.hold.Blobs().URL(r.Context(), d, http.MethodGet)
	if err != nil {
		return err
	}
	carriesURL(w)
	w.Header().Set("Location", url)
	w.Header().Set("Docker-Content-Digest", id)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

func (s *Server) getRecordBlob(w http.ResponseWriter, q params, id string) error {
	if err := s.checkDID(q); err != nil {
		return err
	}
	c, err := cid.Decode(id)
	if err != nil {
		return invalidRequest("cid is neither a CID nor a sha256 digest")
	}
	blob, body, err := s.hold.Repo().OpenBlob(c)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", blob.MIMEType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Content-Disposition", `attachment; filename="`+c.String()+`"`)
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(body)
	return nil
}
