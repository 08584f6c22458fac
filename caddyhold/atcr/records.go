package atcr

import (
	"encoding/base32"
	"strings"

	"crypto/sha256"
)

// Collections of a hold's repository (NSIDs of the record lexicons).
const (
	CaptainCollection = "io.atcr.hold.captain"
	CrewCollection    = "io.atcr.hold.crew"
	LayerCollection   = "io.atcr.hold.layer"
	StatsCollection   = "io.atcr.hold.stats"

	// ManifestCollection is where users' repositories keep their manifests; a hold
	// names them but does not store them.
	ManifestCollection = "io.atcr.manifest"
)

// CaptainPath is the path of the one captain record.
const CaptainPath = CaptainCollection + "/self"

// Permissions that a crew record can carry.
const (
	PermissionRead  = "blob:read"
	PermissionWrite = "blob:write"
	PermissionAdmin = "crew:admin"
)

// Captain (io.atcr.hold.captain/self) says who owns the hold and how open it is.
type Captain struct {
	LexiconTypeID      string  `json:"$type" cborgen:"$type,const=io.atcr.hold.captain"`
	Owner              string  `json:"owner" cborgen:"owner"`   // DID
	Public             bool    `json:"public" cborgen:"public"` // anonymous reads
	AllowAllCrew       bool    `json:"allowAllCrew" cborgen:"allowAllCrew"`
	EnableBlueskyPosts bool    `json:"enableBlueskyPosts" cborgen:"enableBlueskyPosts"`
	DeployedAt         string  `json:"deployedAt" cborgen:"deployedAt"` // RFC 3339
	Region             *string `json:"region,omitempty" cborgen:"region,omitempty"`
	Successor          *string `json:"successor,omitempty" cborgen:"successor,omitempty"` // DID
}

// Crew (io.atcr.hold.crew, one per member) grants a DID permissions on the hold.
type Crew struct {
	LexiconTypeID string   `json:"$type" cborgen:"$type,const=io.atcr.hold.crew"`
	Member        string   `json:"member" cborgen:"member"` // DID
	Role          string   `json:"role" cborgen:"role"`     // owner, admin, write, read or member; says nothing about permissions
	Permissions   []string `json:"permissions" cborgen:"permissions"`
	AddedAt       string   `json:"addedAt" cborgen:"addedAt"` // RFC 3339
	Tier          *string  `json:"tier,omitempty" cborgen:"tier,omitempty"`
}

// Layer (io.atcr.hold.layer) says that a manifest of a user names a blob of this hold.
type Layer struct {
	LexiconTypeID string `json:"$type" cborgen:"$type,const=io.atcr.hold.layer"`
	Digest        string `json:"digest" cborgen:"digest"` // sha256:<hex>
	Size          int64  `json:"size" cborgen:"size"`     // bytes as stored
	MediaType     string `json:"mediaType" cborgen:"mediaType"`
	Manifest      string `json:"manifest" cborgen:"manifest"` // at://<userDid>/io.atcr.manifest/<hex>
	UserDID       string `json:"userDid" cborgen:"userDid"`
	CreatedAt     string `json:"createdAt" cborgen:"createdAt"` // RFC 3339
}

// Stats (io.atcr.hold.stats, one per owner and repository) counts pushes and pulls.
type Stats struct {
	LexiconTypeID string  `json:"$type" cborgen:"$type,const=io.atcr.hold.stats"`
	OwnerDID      string  `json:"ownerDid" cborgen:"ownerDid"`
	Repository    string  `json:"repository" cborgen:"repository"`
	PullCount     int64   `json:"pullCount" cborgen:"pullCount"`
	LastPull      *string `json:"lastPull,omitempty" cborgen:"lastPull,omitempty"` // RFC 3339
	PushCount     int64   `json:"pushCount" cborgen:"pushCount"`
	LastPush      *string `json:"lastPush,omitempty" cborgen:"lastPush,omitempty"` // RFC 3339
	UpdatedAt     string  `json:"updatedAt" cborgen:"updatedAt"`                   // RFC 3339
}

// CrewPath is the path at which this hold writes the crew record of member. Records
// of the same member may exist under other keys when somebody else wrote them.
func CrewPath(member string) string {
	return CrewCollection + "/" + hashKey(member)
}

// StatsPath is the path of the stats record of a repository.
func StatsPath(ownerDID, repository string) string {
	return StatsCollection + "/" + hashKey(ownerDID+"/"+repository)
}

// ManifestURI is the at-uri of the manifest with this hex digest in a user's repository.
func ManifestURI(userDID, digestHex string) string {
	return "at://" + userDID + "/" + ManifestCollection + "/" + digestHex
}

var keyEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// hashKey makes a record key of 26 characters that depends on s alone.
func hashKey(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(keyEncoding.EncodeToString(sum[:16]))
}
