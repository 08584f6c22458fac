package hold

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// Errors of NotifyManifest.
var (
	ErrInvalidOperation = errors.New("operation must be push or pull")
	ErrUserMismatch     = errors.New("only the user can announce their manifest")
	ErrLayerNotFound    = errors.New("a layer of the manifest is not in this hold")
)

// Bounds of an announcement; names and digests in bytes.
const (
	maxRepository     = 256
	maxManifestDigest = 128
	maxMediaType      = 256
	maxTag            = 128
	maxDescriptors    = 1000 // layers, or manifests of an index
	maxRepositories   = 100  // that one manifest is in
)

// Descriptor names a blob or manifest, as OCI descriptors do. Fields that the hold has no
// use for are ignored.
type Descriptor struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
}

// Announcement is the input of io.atcr.hold.notifyManifest.
type Announcement struct {
	Repository     string `json:"repository"`
	UserDID        string `json:"userDid"`
	ManifestDigest string `json:"manifestDigest"` // sha256:<hex>
	Manifest       struct {
		MediaType string       `json:"mediaType"`
		Config    *Descriptor  `json:"config"`
		Layers    []Descriptor `json:"layers"`
		Manifests []Descriptor `json:"manifests"` // of an index
		Subject   *Descriptor  `json:"subject"`
	} `json:"manifest"`
	Tag        string `json:"tag"`
	Operation  string `json:"operation"`  // push (default) or pull
	Visibility string `json:"visibility"` // public (default) or private; of a push
}

// Announced is the output of io.atcr.hold.notifyManifest.
type Announced struct {
	Success       bool   `json:"success"`
	Operation     string `json:"operation"`
	StatsUpdated  bool   `json:"statsUpdated"`
	LayersCreated *int   `json:"layersCreated,omitempty"` // of a push
}

// NotifyManifest takes note that a manifest was pushed or pulled. What a push writes (layer
// records, counts) is one commit; of a private one nothing goes into the repository.
func (h *Hold) NotifyManifest(ctx context.Context, c Caller, in Announcement) (Announced, error) {
	if c.DID == "" {
		return Announced{}, ErrAuthRequired
	}
	if in.Operation == "" {
		in.Operation = "push"
	}
	if in.Operation != "push" && in.Operation != "pull" {
		return Announced{}, ErrInvalidOperation
	}
	digest, err := in.check()
	if err != nil {
		return Announced{}, err
	}
	uri := atcr.ManifestURI(in.UserDID, digest.Hex())
	if in.Operation == "pull" {
		return h.pulled(ctx, c, in, uri)
	}
	return h.pushed(ctx, c, in, uri)
}

func (in *Announcement) check() (blobs.Digest, error) {
	bad := func(format string, args ...any) (blobs.Digest, error) {
		return "", fmt.Errorf("%w: "+format, append([]any{ErrInvalidRequest}, args...)...)
	}
	if _, err := syntax.ParseDID(in.UserDID); err != nil {
		return bad("userDid is not a DID")
	}
	in.UserDID = pds.NormalizeDID(in.UserDID)
	if in.Repository == "" || !isText(in.Repository, maxRepository) {
		return bad("repository must be a name of 1 to %d bytes", maxRepository)
	}
	if !isText(in.Tag, maxTag) {
		return bad("tag must be text of at most %d bytes", maxTag)
	}
	if in.Visibility != "" && in.Visibility != "public" && in.Visibility != "private" {
		return bad("visibility must be public or private")
	}
	if len(in.ManifestDigest) > maxManifestDigest {
		return bad("manifestDigest is longer than %d bytes", maxManifestDigest)
	}
	digest, err := blobs.ParseDigest(in.ManifestDigest)
	if err != nil {
		return bad("manifestDigest is not a sha256 digest")
	}
	named := slices.Concat(in.Manifest.Layers, in.Manifest.Manifests)
	if len(in.Manifest.Layers) > maxDescriptors || len(in.Manifest.Manifests) > maxDescriptors {
		return bad("a manifest may name at most %d layers and %d manifests", maxDescriptors, maxDescriptors)
	}
	if in.Manifest.Config != nil && in.Manifest.Config.Digest != "" {
		named = append(named, *in.Manifest.Config)
	}
	for _, d := range named {
		if _, err := blobs.ParseDigest(d.Digest); err != nil {
			return bad("%.80q is not a sha256 digest", d.Digest)
		}
		if !isText(d.MediaType, maxMediaType) {
			return bad("mediaType must be text of at most %d bytes", maxMediaType)
		}
	}
	return digest, nil
}

// isText says whether s is short, valid and without control characters.
func isText(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// pushed: see NotifyManifest.
func (h *Hold) pushed(ctx context.Context, c Caller, in Announcement, uri string) (Announced, error) {
	if err := h.Allow(c, Write); err != nil {
		return Announced{}, err
	}
	if in.UserDID != c.DID {
		return Announced{}, ErrUserMismatch
	}
	layers, err := h.storedLayers(ctx, c, in.Manifest.Layers)
	if err != nil {
		return Announced{}, err
	}
	configs, err := h.announcedConfig(ctx, c, in.Manifest.Config)
	if err != nil {
		return Announced{}, err
	}

	var created int
	_, err = h.Repo().Update(ctx, func(tx *pds.Tx) error {
		m, err := h.withVisibility(tx, uri, in.Visibility == "private")
		if err != nil {
			return err
		}
		if err := m.name(layers, configs, in.Manifest.Manifests, in.Repository); err != nil {
			return err
		}
		named := slices.Clone(configs)
		for _, l := range layers {
			named = append(named, l.Digest)
		}
		if err := refer(tx.Bolt(), uri, m.Private, named); err != nil {
			return err
		}
		if created, err = h.addLayers(tx, in.UserDID, uri, m); err != nil {
			return err
		}
		m.Counts[in.Repository].Pushes++
		if err := h.count(tx, in.UserDID, in.Repository, m.Private, tallies{Pushes: 1}); err != nil {
			return err
		}
		return saveManifest(tx.Bolt(), uri, m)
	})
	if err != nil {
		return Announced{}, wrap(err, "noting the push of "+uri)
	}
	return Announced{Success: true, Operation: "push", StatsUpdated: true, LayersCreated: &created}, nil
}

// storedLayers turns what a manifest names into what the hold has: each digest once, with
// the size as stored. The first one that is not there, or not there for this caller, is
// the error.
func (h *Hold) storedLayers(ctx context.Context, c Caller, named []Descriptor) ([]layer, error) {
	var layers []layer
	seen := make(map[string]bool)
	for _, d := range named {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		blob, err := h.announceable(ctx, c, d.Digest)
		if errors.Is(err, blobs.ErrBlobNotFound) {
			return nil, fmt.Errorf("%w: %s", ErrLayerNotFound, d.Digest)
		}
		if err != nil {
			return nil, fmt.Errorf("looking for layer %s: %w", d.Digest, err)
		}
		layers = append(layers, layer{Digest: d.Digest, Size: blob.Size, MediaType: d.MediaType})
	}
	return layers, nil
}

// announcedConfig returns the digest of the config blob, or nothing where the hold does not
// have it for this caller: unlike layers, configs are not required here.
func (h *Hold) announcedConfig(ctx context.Context, c Caller, config *Descriptor) ([]string, error) {
	if config == nil || config.Digest == "" {
		return nil, nil
	}
	_, err := h.announceable(ctx, c, config.Digest)
	if errors.Is(err, blobs.ErrBlobNotFound) {
		return nil, nil
	}
	return []string{config.Digest}, err
}

// announceable finds a blob that the caller may have in a manifest of theirs.
func (h *Hold) announceable(ctx context.Context, c Caller, digest string) (blobs.Blob, error) {
	d, err := blobs.ParseDigest(digest)
	if err != nil {
		return blobs.Blob{}, err
	}
	blob, err := h.blobs.Stat(ctx, d)
	if err != nil {
		return blobs.Blob{}, err
	}
	ok, err := h.mayAnnounce(c, d)
	if err == nil && !ok {
		err = blobs.ErrBlobNotFound
	}
	return blob, err
}

// name adds what an announcement names to what is remembered of the manifest. The same
// digest always names the same, so what goes beyond the bounds was never one manifest.
func (m *manifest) name(layers []layer, configs []string, manifests []Descriptor, repository string) error {
	for _, l := range layers {
		if !slices.ContainsFunc(m.Layers, func(have layer) bool { return have.Digest == l.Digest }) {
			m.Layers = append(m.Layers, l)
		}
	}
	for _, c := range configs {
		m.Config = c
	}
	for _, d := range manifests {
		if !slices.Contains(m.Manifests, d.Digest) {
			m.Manifests = append(m.Manifests, d.Digest)
		}
	}
	if m.Counts == nil {
		m.Counts = make(map[string]*tallies)
	}
	if m.Counts[repository] == nil {
		m.Counts[repository] = new(tallies)
	}
	if len(m.Layers) > maxDescriptors || len(m.Manifests) > maxDescriptors || len(m.Counts) > maxRepositories {
		return fmt.Errorf("%w: announcements of this manifest named more than %d layers, %d manifests or %d repositories",
			ErrInvalidRequest, maxDescriptors, maxDescriptors, maxRepositories)
	}
	return nil
}

// withVisibility loads the manifest and, where it was announced with the other visibility,
// moves what it has published into the index or back.
func (h *Hold) withVisibility(tx *pds.Tx, uri string, private bool) (*manifest, error) {
	m, err := loadManifest(tx.Bolt(), uri)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return &manifest{Private: private}, nil
	}
	if m.Private == private {
		return m, nil
	}
	user := syntax.ATURI(uri).Authority().String()
	for repository, n := range m.Counts {
		if err := h.moveCounts(tx, user, repository, private, *n); err != nil {
			return nil, err
		}
	}
	if private {
		if err := deleteLayers(tx, uri); err != nil {
			return nil, err
		}
	}
	m.Private = private
	named := make([]string, 0, len(m.Layers)+1)
	for _, l := range m.Layers {
		named = append(named, l.Digest)
	}
	if m.Config != "" {
		named = append(named, m.Config)
	}
	return m, refer(tx.Bolt(), uri, private, named)
}

// addLayers makes the layer records that are missing, and returns their number. Those of a
// private manifest exist only in the manifest's own entry.
func (h *Hold) addLayers(tx *pds.Tx, user, uri string, m *manifest) (int, error) {
	if m.Private {
		return 0, nil
	}
	created := 0
	for _, l := range m.Layers {
		if tx.Bolt().Bucket(layersBucket).Get(join(uri, l.Digest)) != nil {
			continue
		}
		value, err := atcr.Encode(&atcr.Layer{
			Digest: l.Digest, Size: l.Size, MediaType: l.MediaType,
			Manifest: uri, UserDID: user, CreatedAt: h.timestamp(),
		})
		if err != nil {
			return 0, err
		}
		if _, err := tx.Create(atcr.LayerCollection+"/"+tx.NextTID(), value); err != nil {
			return 0, err
		}
		created++
	}
	return created, nil
}

// deleteLayers removes the layer records of a manifest.
func deleteLayers(tx *pds.Tx, uri string) error {
	return eachWith(tx.Bolt().Bucket(layersBucket), uri, func(_ string, rkey []byte) error {
		return tx.Delete(atcr.LayerCollection + "/" + string(rkey))
	})
}

// pulled: see NotifyManifest. Anyone may say that they pulled what they may read. It counts
// where a push has made something to count, so that nobody fills the repository with names
// of their own.
func (h *Hold) pulled(ctx context.Context, c Caller, in Announcement, uri string) (Announced, error) {
	if err := h.mayPull(c, in.UserDID, uri); err != nil {
		return Announced{}, err
	}
	var counted bool
	_, err := h.Repo().Update(ctx, func(tx *pds.Tx) error {
		m, err := loadManifest(tx.Bolt(), uri)
		if err != nil {
			return err
		}
		private := m != nil && m.Private
		stored, err := statsAt(tx, atcr.StatsPath(in.UserDID, in.Repository), private)
		if counted = stored != nil; err != nil || !counted {
			return err
		}
		if err := h.count(tx, in.UserDID, in.Repository, private, tallies{Pulls: 1}); err != nil {
			return err
		}
		if m == nil || m.Counts[in.Repository] == nil {
			return nil
		}
		m.Counts[in.Repository].Pulls++
		return saveManifest(tx.Bolt(), uri, m)
	})
	if err != nil {
		return Announced{}, wrap(err, "noting the pull of "+uri)
	}
	return Announced{Success: true, Operation: "pull", StatsUpdated: counted}, nil
}

// mayPull decides who can say that they pulled a manifest: who could have.
func (h *Hold) mayPull(c Caller, user, uri string) error {
	var m *manifest
	err := h.Repo().View(func(tx *bbolt.Tx) (err error) {
		m, err = loadManifest(tx, uri)
		return err
	})
	switch {
	case err != nil:
		return err
	case m == nil || !m.Private:
		return h.Allow(c, Read)
	case c.Crew() || c.DID == user:
		return nil
	}
	return ErrForbidden
}
