package hold

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// Buckets of this package. The first two mirror records and can be rebuilt from them;
// the others are the only place of what they hold.
var (
	crewBucket         = []byte("hold.crew")          // member 0 rkey → crew record
	layersBucket       = []byte("hold.layers")        // manifest at-uri 0 digest → rkey of the layer record
	manifestsBucket    = []byte("hold.manifests")     // manifest at-uri → manifest as JSON
	referencesBucket   = []byte("hold.references")    // digest 0 manifest at-uri → visibility byte
	privateStatsBucket = []byte("hold.private_stats") // path of the stats record it would be → stats record
	metaBucket         = []byte("hold.meta")          // names below → values
)

var (
	indexVersionKey = []byte("index_version")
	indexVersion    = []byte{1} // raise to have the mirrors rebuilt
)

// Values of referencesBucket.
const (
	publicReference  = '+'
	privateReference = '-'
)

// errStop ends an iteration early.
var errStop = errors.New("stop")

// ensureIndex makes the buckets, and fills the mirrors when they are new or of an older
// form.
func ensureIndex(db *bbolt.DB, repo *pds.Repo) error {
	var current bool
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{crewBucket, layersBucket, manifestsBucket, referencesBucket, privateStatsBucket, metaBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		current = bytes.Equal(tx.Bucket(metaBucket).Get(indexVersionKey), indexVersion)
		return nil
	})
	if err != nil || current {
		return wrap(err, "making the index")
	}

	return wrap(rebuildIndex(db, repo), "rebuilding the index")
}

// rebuildIndex fills the mirrors anew, page by page. One that is cut short begins again at
// the next start.
func rebuildIndex(db *bbolt.DB, repo *pds.Repo) error {
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{crewBucket, layersBucket} {
			if err := tx.DeleteBucket(name); err != nil {
				return err
			}
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	})
	for _, collection := range []string{atcr.CrewCollection, atcr.LayerCollection} {
		for cursor, more := "", true; more && err == nil; more = cursor != "" {
			var page []pds.Record
			page, cursor, err = repo.Records(collection, pds.ListOptions{Limit: 1000, Cursor: cursor})
			if err != nil {
				break
			}
			changes := make([]pds.Change, len(page))
			for i, r := range page {
				changes[i] = pds.Change{Path: r.Path, CID: r.CID, New: r.Value}
			}
			err = db.Update(func(tx *bbolt.Tx) error { return indexChanges(tx, changes) })
		}
	}
	if err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(indexVersionKey, indexVersion)
	})
}

func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// indexChanges mirrors the records that a commit changes. A record that does not fit its
// lexicon grants nothing and is left out.
func indexChanges(tx *bbolt.Tx, changes []pds.Change) error {
	if tx.Bucket(crewBucket) == nil {
		return nil // the repository's first commit comes before the buckets
	}
	for _, c := range changes {
		collection, rkey, _ := strings.Cut(c.Path, "/")
		switch collection {
		case atcr.CrewCollection:
			if err := mirror(tx.Bucket(crewBucket), c, crewKey(rkey), func(record []byte) []byte { return record }); err != nil {
				return err
			}
		case atcr.LayerCollection:
			if err := mirror(tx.Bucket(layersBucket), c, layerKey, func([]byte) []byte { return []byte(rkey) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// mirror removes the entry of the record's old form and puts that of the new one.
func mirror(b *bbolt.Bucket, c pds.Change, key func(record []byte) []byte, value func(record []byte) []byte) error {
	if old := key(c.Old); old != nil {
		if err := b.Delete(old); err != nil {
			return err
		}
	}
	if k := key(c.New); k != nil {
		return b.Put(k, value(c.New))
	}
	return nil
}

func crewKey(rkey string) func([]byte) []byte {
	return func(record []byte) []byte {
		var crew atcr.Crew
		if record == nil || atcr.Decode(record, &crew) != nil {
			return nil
		}
		return join(pds.NormalizeDID(crew.Member), rkey)
	}
}

func layerKey(record []byte) []byte {
	var layer atcr.Layer
	if record == nil || atcr.Decode(record, &layer) != nil {
		return nil
	}
	return join(layer.Manifest, layer.Digest)
}

// join makes a key of two parts; neither DIDs, digests nor at-uris contain a zero byte.
func join(a, b string) []byte { return []byte(a + "\x00" + b) }

// eachWith calls fn for every key of b that begins with first and a zero byte, with what
// follows that.
func eachWith(b *bbolt.Bucket, first string, fn func(second string, value []byte) error) error {
	prefix := join(first, "")
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := fn(string(k[len(prefix):]), v); err != nil {
			return err
		}
	}
	return nil
}

// eachCrew calls fn for every crew record of member.
func eachCrew(tx *bbolt.Tx, member string, fn func(rkey string, crew *atcr.Crew) error) error {
	return eachWith(tx.Bucket(crewBucket), member, func(rkey string, value []byte) error {
		var crew atcr.Crew
		if err := atcr.Decode(value, &crew); err != nil {
			return err
		}
		return fn(rkey, &crew)
	})
}

// blobVisibility says whether a manifest names the blob, whether a public one does, and
// whether the user has announced one that does.
func blobVisibility(tx *bbolt.Tx, d blobs.Digest, user string) (named, public, announced bool) {
	own := "at://" + user + "/"
	// errStop is the only error that fn gives.
	_ = eachWith(tx.Bucket(referencesBucket), string(d), func(uri string, value []byte) error {
		named = true
		announced = announced || user != "" && strings.HasPrefix(uri, own)
		if len(value) == 1 && value[0] == publicReference {
			public = true
			return errStop
		}
		return nil
	})
	return named, public, announced
}

// manifest is what the hold remembers of an announced manifest, public or private.
type manifest struct {
	Private   bool                `json:"private,omitempty"`
	Layers    []layer             `json:"layers,omitempty"`
	Config    string              `json:"config,omitempty"`    // digest
	Manifests []string            `json:"manifests,omitempty"` // digests that an index names
	Counts    map[string]*tallies `json:"counts,omitempty"`    // by repository, so that a flip of visibility can move them
}

type layer struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
}

type tallies struct {
	Pushes int64 `json:"pushes,omitempty"`
	Pulls  int64 `json:"pulls,omitempty"`
}

// loadManifest returns nil where the manifest has not been announced.
func loadManifest(tx *bbolt.Tx, uri string) (*manifest, error) {
	value := tx.Bucket(manifestsBucket).Get([]byte(uri))
	if value == nil {
		return nil, nil
	}
	m := new(manifest)
	return m, wrap(json.Unmarshal(value, m), "reading manifest "+uri)
}

func saveManifest(tx *bbolt.Tx, uri string, m *manifest) error {
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return tx.Bucket(manifestsBucket).Put([]byte(uri), value)
}

// refer notes that the manifest names the blobs.
func refer(tx *bbolt.Tx, uri string, private bool, digests []string) error {
	visibility := byte(publicReference)
	if private {
		visibility = privateReference
	}
	for _, d := range digests {
		if err := tx.Bucket(referencesBucket).Put(join(d, uri), []byte{visibility}); err != nil {
			return err
		}
	}
	return nil
}
