package appview

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/caddyhold/caddyhold/internal/account"
)

// tokenMethod is what AppViews ask a service token for, whatever they call with it.
const tokenMethod = "com.atproto.repo.getRecord"

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// hold is where a hold is.
type hold struct {
	url    string
	did    string
	client *http.Client
}

// caller calls a hold in the name of a user, or of nobody.
type caller struct {
	hold
	user *account.Account

	mu      sync.Mutex
	token   string
	expires time.Time
}

// authorization returns the one token that is used while it lives.
func (c *caller) authorization() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.After(c.expires.Add(-5 * time.Second)) {
		c.token = c.user.ServiceToken(c.did, tokenMethod)
		c.expires = now.Add(account.TokenLife)
	}
	return "Bearer " + c.token
}

// procedure calls an XRPC procedure and reads its output.
func (c *caller) procedure(ctx context.Context, nsid string, input, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return fmt.Errorf("encoding input of %s: %w", nsid, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/xrpc/"+nsid, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return c.call(r, output)
}

// blobURL asks for a URL at which anybody may GET or HEAD a blob. The DID goes into the query as it is, its %3A too.
func (c *caller) blobURL(ctx context.Context, digest, method string) (string, error) {
	u := fmt.Sprintf("%s/xrpc/com.atproto.sync.getBlob?did=%s&cid=%s&method=%s", c.url, c.did, url.QueryEscape(digest), method)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return "", err
	}
	var output struct {
		URL string `json:"url"`
	}
	if err := c.call(r, &output); err != nil {
		return "", err
	}
	return output.URL, nil
}

func (c *caller) call(r *http.Request, output any) error {
	if c.user != nil {
		r.Header.Set("Authorization", c.authorization())
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading answer to %s: %w", r.URL.Path, err)
	}
	if resp.StatusCode != http.StatusOK {
		refusal := &holdError{Status: resp.StatusCode}
		if err := json.Unmarshal(body, refusal); err != nil {
			refusal.Message = "no XRPC error: " + string(body)
		}
		return fmt.Errorf("calling %s: %w", r.URL.Path, refusal)
	}
	if err := json.Unmarshal(body, output); err != nil {
		return fmt.Errorf("decoding answer to %s: %w", r.URL.Path, err)
	}
	return nil
}

// putPart sends a part to where the hold said, which needs no more than the URL, and returns its ETag.
func (c *caller) putPart(ctx context.Context, url string, part []byte) (etag string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(part))
	if err != nil {
		return "", err
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("reading answer to a part: %w", err)
	}
	etag = resp.Header.Get("ETag")
	if resp.StatusCode != http.StatusOK || etag == "" {
		return "", fmt.Errorf("putting a part: status %d, ETag %q: %s", resp.StatusCode, etag, body)
	}
	return etag, nil
}
