package blobs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The hold signs its own URLs as S3 does, so that clients need one way for
// both: an HMAC-SHA256 over what the URL allows and until when.

// signedPartURL returns a URL to PUT one part of an upload to the hold.
func (s *Service) signedPartURL(uploadID string, part int) string {
	expires := strconv.FormatInt(s.store.now().Add(s.lifetime).Unix(), 10)
	number := strconv.Itoa(part)
	q := url.Values{
		"uploadId":   {uploadID},
		"partNumber": {number},
		"expires":    {expires},
		"sig":        {s.store.sign("part", http.MethodPut, uploadID, number, expires)},
	}
	return s.partEndpoint + "?" + q.Encode()
}

// VerifyPartURL checks the query of a part URL that PartURL has signed, and
// returns what it allows to write: ErrBadSignature, or ErrInvalidUploadID where
// the upload is gone.
func (s *Service) VerifyPartURL(q url.Values) (owner, uploadID string, part int, err error) {
	uploadID, number, expires := q.Get("uploadId"), q.Get("partNumber"), q.Get("expires")
	if err := s.store.verify(q.Get("sig"), expires, "part", http.MethodPut, uploadID, number, expires); err != nil {
		return "", "", 0, err
	}
	if part, err = strconv.Atoi(number); err != nil {
		return "", "", 0, fmt.Errorf("%w: no number", ErrInvalidPartNumber)
	}
	sess, err := s.store.session(uploadID, s.storage)
	if err != nil {
		return "", "", 0, err
	}
	return sess.Owner, uploadID, part, nil
}

// signedBlobURL returns a URL to GET or HEAD a blob from the hold.
func (s *Service) signedBlobURL(d Digest, method string) string {
	expires := strconv.FormatInt(s.store.now().Add(s.lifetime).Unix(), 10)
	q := url.Values{
		"cid":     {string(d)},
		"expires": {expires},
		"sig":     {s.store.sign("blob", method, string(d), expires)},
	}
	if s.did != "" {
		q.Set("did", s.did)
	}
	return s.blobEndpoint + "?" + q.Encode()
}

// VerifyBlobURL checks the query of a URL that URL has signed, against the
// method it is used with. One signed for GET is good for HEAD too, which tells
// less.
func (s *Service) VerifyBlobURL(method string, d Digest, q url.Values) error {
	expires, sig := q.Get("expires"), q.Get("sig")
	err := s.store.verify(sig, expires, "blob", method, string(d), expires)
	if err != nil && method == http.MethodHead {
		err = s.store.verify(sig, expires, "blob", http.MethodGet, string(d), expires)
	}
	return err
}

// sign returns the signature of fields, none of which contains a line break
// when we sign, so that no two lists of fields look alike.
func (s *Store) sign(fields ...string) string {
	mac := hmac.New(sha256.New, s.urlKey)
	mac.Write([]byte(strings.Join(fields, "\n")))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (s *Store) verify(sig, expires string, fields ...string) error {
	if !hmac.Equal([]byte(sig), []byte(s.sign(fields...))) {
		return ErrBadSignature
	}
	until, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || !s.now().Before(time.Unix(until, 0)) {
		return fmt.Errorf("%w: the URL has expired", ErrBadSignature)
	}
	return nil
}
