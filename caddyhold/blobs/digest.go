package blobs

import (
	"fmt"
	"hash"
	"strings"
)

// Digest names a blob by its content: "sha256:" and 64 lower-case hexadecimal
// digits (OCI image specification, descriptor digests).
type Digest string

const digestPrefix = "sha256:"

// ParseDigest returns s as a digest, or ErrInvalidDigest.
func ParseDigest(s string) (Digest, error) {
	hex, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: not sha256: and 64 lower-case hexadecimal digits", ErrInvalidDigest)
	}
	return Digest(s), nil
}

// DigestOf returns the digest that h, a SHA-256, has come to.
func DigestOf(h hash.Hash) Digest {
	return Digest(fmt.Sprintf("%s%x", digestPrefix, h.Sum(nil)))
}

// Hex returns the digits without the algorithm.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Key returns where the blob of d lies below a storage's prefix: where the
// registry of the distribution project keeps it too, so that its bucket or
// directory serves as it is. d must have been parsed.
func Key(d Digest) string {
	hex := d.Hex()
	return "docker/registry/v2/blobs/sha256/" + hex[:2] + "/" + hex + "/data"
}
