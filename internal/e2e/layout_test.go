package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// emptyDigest is the digest of no bytes.
const emptyDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// layout is an OCI image layout in a directory, with one tagged image or index. The directory is named by the test, whose
// name must have no comma: oras splits its arguments there.
type layout struct {
	dir   string
	seed  [32]byte
	count int
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func newLayout(t *testing.T) *layout {
	t.Helper()
	l := &layout{dir: t.TempDir(), seed: sha256.Sum256([]byte(t.Name()))}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// layer writes a layer of random bytes, different in every test.
func (l *layout) layer(t *testing.T, size int64) descriptor {
	t.Helper()
	l.count++
	l.seed[0] ^= byte(l.count)
	return l.write(t, typeLayer, io.LimitReader(rand.NewChaCha8(l.seed), size))
}

func (l *layout) write(t *testing.T, mediaType string, content io.Reader) descriptor {
	t.Helper()
	file, err := os.CreateTemp(l.dir, "blob-")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash), content)
	if err != nil {
		t.Fatal(err)
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	if err := os.Rename(file.Name(), filepath.Join(l.dir, "blobs", "sha256", sum)); err != nil {
		t.Fatal(err)
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: size}
}

func (l *layout) writeJSON(t *testing.T, mediaType string, value any) descriptor {
	t.Helper()
	read, write := io.Pipe()
	go func() { write.CloseWithError(json.NewEncoder(write).Encode(value)) }()
	return l.write(t, mediaType, read)
}

// image writes an image for a platform.
func (l *layout) image(t *testing.T, p platform, layers ...descriptor) descriptor {
	t.Helper()
	contents := make([]string, len(layers)) // uncompressed layers: their digests are those of their content
	for i, layer := range layers {
		contents[i] = layer.Digest
	}
	config := l.writeJSON(t, typeConfig, map[string]any{
		"architecture": p.Architecture,
		"os":           p.OS,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": contents},
	})
	image := l.writeJSON(t, typeManifest, map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": layers,
	})
	image.Platform = &p
	return image
}

// index writes an index of images.
func (l *layout) index(t *testing.T, images ...descriptor) descriptor {
	t.Helper()
	return l.writeJSON(t, typeIndex, map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": images,
	})
}

// tag makes an image or index the one that the layout is about.
func (l *layout) tag(t *testing.T, root descriptor, name string) {
	t.Helper()
	root.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	entry, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{root},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), entry, 0o600); err != nil {
		t.Fatal(err)
	}
}

var amd64, arm64 = platform{"amd64", "linux"}, platform{"arm64", "linux"}

// newImage makes an image of several layers, an empty one among them. Its largest is of the given size in bytes.
func newImage(t *testing.T, largest int64) *layout {
	t.Helper()
	l := newLayout(t)
	l.tag(t, l.image(t, amd64, l.layer(t, largest), l.layer(t, 0), l.layer(t, 12345), l.layer(t, 1)), "v1")
	return l
}

// newIndex makes an index of two platforms, which share a layer.
func newIndex(t *testing.T) *layout {
	t.Helper()
	l := newLayout(t)
	shared := l.layer(t, 300_000)
	l.tag(t, l.index(t, l.image(t, amd64, shared, l.layer(t, 4000)), l.image(t, arm64, shared, l.layer(t, 5000))), "v1")
	return l
}

// compare checks that what a client has pulled into a directory has every blob of the layout, by digest.
func (l *layout) compare(pulled string) error {
	entries, err := os.ReadDir(filepath.Join(l.dir, "blobs", "sha256"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		file, err := os.Open(filepath.Join(pulled, "blobs", "sha256", entry.Name()))
		if err != nil {
			return fmt.Errorf("a blob was not pulled: %w", err)
		}
		hash := sha256.New()
		_, err = io.Copy(hash, file)
		file.Close()
		if err != nil {
			return err
		}
		if sum := hex.EncodeToString(hash.Sum(nil)); sum != entry.Name() {
			return fmt.Errorf("the pulled blob %s has the digest %s", entry.Name(), sum)
		}
	}
	return nil
}
