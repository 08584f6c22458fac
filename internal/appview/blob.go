package appview

import (
	"fmt"
	"net/http"
	"strconv"
)

// serveBlob redirects a GET to where the blob is. A HEAD it answers itself, from what it finds there.
func (s *session) serveBlob(w http.ResponseWriter, r *http.Request, digest string) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	url, err := s.caller.blobURL(r.Context(), digest, r.Method)
	if err != nil {
		return err
	}
	w.Header().Set("Docker-Content-Digest", digest)
	if r.Method == http.MethodGet {
		w.Header().Set("Location", url)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return nil
	}
	size, err := s.sizeAt(r, url)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *session) sizeAt(r *http.Request, url string) (int64, error) {
	head, err := http.NewRequestWithContext(r.Context(), http.MethodHead, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.caller.client.Do(head)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength < 0 {
		return 0, fmt.Errorf("HEAD of a blob: status %d, length %d", resp.StatusCode, resp.ContentLength)
	}
	return resp.ContentLength, nil
}
