package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Bounds of request bodies in bytes. A record's JSON can be about twice its DAG-CBOR; a part
// of an upload takes about 80 bytes to name.
const (
	maxInput         = 16 << 10
	maxManifestInput = 1 << 20
	maxPartsInput    = 2 << 20
	maxRecordInput   = 4 << 20
)

// inputTimeout bounds how long a client may take to send JSON.
const inputTimeout = 30 * time.Second

// writeJSON answers with v. The client's going away is no error of the hold's.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		http.Error(w, `{"error":"InternalServerError","message":"the answer can not be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}

// answer is writeJSON for a call that went well.
func answer(w http.ResponseWriter, v any) error {
	writeJSON(w, http.StatusOK, v)
	return nil
}

// readJSON decodes a body of at most limit bytes into v, an object. Unknown fields are
// ignored. An empty body is an empty object, since procedures may have no required field.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if t := r.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return invalidRequest("the body must be application/json")
		}
	}
	control := http.NewResponseController(w)
	// Where a server has no deadlines to set, its own apply.
	_ = control.SetReadDeadline(time.Now().Add(inputTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = control.SetReadDeadline(time.Time{})
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	if err != nil {
		return invalidRequest("the body ended early")
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil
	}
	if body[0] != '{' {
		return invalidRequest("the body must be a JSON object")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return invalidRequest("the body is not the JSON that this method takes: %s", jsonFault(err))
	}
	return nil
}

// jsonFault says what is wrong in terms of the caller's JSON, not of our types.
func jsonFault(err error) string {
	if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("field %q can not be a %s", typed.Field, typed.Value)
	}
	return err.Error()
}

// params are the parameters of a query.
type params url.Values

func parameters(r *http.Request) (params, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidRequest("the query string is malformed")
	}
	return params(q), nil
}

// get returns a parameter, or nothing if it is absent.
func (p params) get(name string) string { return url.Values(p).Get(name) }

func (p params) required(name string) (string, error) {
	if v := p.get(name); v != "" {
		return v, nil
	}
	return "", invalidRequest("parameter %s is missing", name)
}

// limit is the number of items asked for, 1 to most.
func (p params) limit(byDefault, most int) (int, error) {
	v := p.get("limit")
	if v == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > most {
		return 0, invalidRequest("limit must be 1 to %d", most)
	}
	return n, nil
}

func (p params) boolean(name string) (bool, error) {
	switch p.get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, invalidRequest("%s must be true or false", name)
}

func (p params) has(name string) bool { return url.Values(p).Has(name) }

// clientBody is a request's body that remembers whether reading it failed, which is the
// client's fault and not that of whoever wanted to store it.
type clientBody struct {
	io.Reader
	err error
}

// Read reads from the body.
func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// fault returns err, or that the client broke off where that is why.
func (b *clientBody) fault(name string, err error) error {
	if err != nil && b.err != nil {
		return &Error{Status: http.StatusBadRequest, Name: name, Message: "the body ended early"}
	}
	return err
}
