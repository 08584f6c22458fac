package pds

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

const didWeb = "did:web:"

// DIDForURL is the did:web of a service at a URL, with its port
// percent-encoded (https://w3c-ccg.github.io/did-method-web/): that of
// http://127.0.0.1:8080 is did:web:127.0.0.1%3A8080.
func DIDForURL(publicURL string) (syntax.DID, error) {
	host, err := HandleForURL(publicURL)
	if err != nil {
		return "", err
	}
	did, err := syntax.ParseDID(didWeb + strings.ReplaceAll(host, ":", "%3A"))
	if err != nil {
		return "", fmt.Errorf("public URL %s: %w", publicURL, err)
	}
	return did, nil
}

// HandleForURL is the handle of a service at a URL: its host, and its port
// unless that is the scheme's own.
func HandleForURL(publicURL string) (string, error) {
	u, err := url.Parse(publicURL)
	if err == nil {
		err = checkPublicURL(u)
	}
	if err != nil {
		return "", fmt.Errorf("public URL %q: %w", publicURL, err)
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		return host, nil
	}
	return net.JoinHostPort(host, port), nil
}

func checkPublicURL(u *url.URL) error {
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must begin with https:// or http://")
	case u.Hostname() == "":
		return errors.New("has no host")
	case strings.Contains(u.Hostname(), ":"):
		return errors.New("a did:web cannot name an IPv6 address")
	case strings.HasSuffix(u.Hostname(), "."):
		return errors.New("has a host that ends with a dot")
	case !validPort(u.Port()):
		return errors.New("has a port that does not exist")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("must be a scheme and a host, nothing else")
	}
	return nil
}

// validPort accepts the absence of a port.
func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// NormalizeDID gives the spellings of a did:web with a port one form, so that
// they can be compared: did:web:host:8080 becomes did:web:host%3A8080, and a
// host has no capitals. Other strings stay as they are.
func NormalizeDID(s string) string {
	rest, ok := strings.CutPrefix(s, didWeb)
	if !ok {
		return s
	}
	host, path, hasPath := strings.Cut(rest, ":")
	host = strings.ToLower(host)
	if name, port, ok := strings.Cut(host, "%3a"); ok {
		host = name + "%3A" + port
	} else if port, after, _ := strings.Cut(path, ":"); isPort(port) && hasPath {
		host, path, hasPath = host+"%3A"+port, after, after != ""
	}
	if hasPath {
		host += ":" + path
	}
	return didWeb + host
}

func isPort(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

// Service is a service of a DID document.
type Service struct {
	ID       string // "#atproto_pds"
	Type     string // "AtprotoPersonalDataServer"
	Endpoint string // URL
}

// Document is the DID document of an account, as JSON
// (https://atproto.com/specs/did#did-documents).
func Document(did syntax.DID, handle string, key atcrypto.PublicKey, services []Service) ([]byte, error) {
	type verificationMethod struct {
		ID                 string `json:"id"`
		Type               string `json:"type"`
		Controller         string `json:"controller"`
		PublicKeyMultibase string `json:"publicKeyMultibase"`
	}
	type service struct {
		ID              string `json:"id"`
		Type            string `json:"type"`
		ServiceEndpoint string `json:"serviceEndpoint"`
	}
	list := make([]service, len(services))
	for i, s := range services {
		list[i] = service{s.ID, s.Type, s.Endpoint}
	}
	doc, err := json.Marshal(struct {
		Context            []string             `json:"@context"`
		ID                 string               `json:"id"`
		AlsoKnownAs        []string             `json:"alsoKnownAs"`
		VerificationMethod []verificationMethod `json:"verificationMethod"`
		Service            []service            `json:"service"`
	}{
		Context: []string{
			"https://www.w3.org/ns/did/v1",
			"https://w3id.org/security/multikey/v1",
			"https://w3id.org/security/suites/secp256k1-2019/v1",
		},
		ID:                 did.String(),
		AlsoKnownAs:        []string{"at://" + handle},
		VerificationMethod: []verificationMethod{{did.String() + "#atproto", "Multikey", did.String(), key.Multibase()}},
		Service:            list,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the DID document: %w", err)
	}
	return doc, nil
}
