package hold_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/blobs/filesystem"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

const (
	captain  = "did:plc:captain000000000000000000"
	alice    = "did:plc:alice00000000000000000000"
	bob      = "did:plc:bob0000000000000000000000"
	stranger = "did:plc:stranger0000000000000000"
)

// ship is a hold over a directory of the test's, under configurations that can change.
type ship struct {
	t      *testing.T
	dir    string
	state  *hold.State
	driver *filesystem.Driver
	*hold.Hold
}

func launch(t *testing.T, c hold.Config) *ship {
	s := &ship{t: t, dir: t.TempDir()}
	driver, err := filesystem.Open(s.dir + "/blobs")
	if err != nil {
		t.Fatal(err)
	}
	s.driver = driver
	t.Cleanup(func() { _ = driver.Close() })
	s.open()
	t.Cleanup(func() { _ = s.state.Close(context.Background()) })
	s.configure(c)
	return s
}

func (s *ship) open() {
	s.t.Helper()
	state, err := hold.Open(hold.Options{DataDir: s.dir, PublicURL: "https://hold.example.com"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.state = state
}

func (s *ship) reopen(c hold.Config) {
	s.t.Helper()
	if err := s.state.Close(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	s.open()
	s.configure(c)
}

func (s *ship) configure(c hold.Config) {
	s.t.Helper()
	s.Hold = hold.New(s.state, c, blobs.New(blobs.Config{Store: s.state.Blobs(), Driver: s.driver, BaseURL: "https://hold.example.com"}))
	if err := s.SyncRecords(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *ship) caller(did string) hold.Caller {
	s.t.Helper()
	c, err := s.Caller(did)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// upload stores content as did and returns its descriptor.
func (s *ship) upload(did, content string) hold.Descriptor {
	s.t.Helper()
	d := blobs.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))))
	b := s.Blobs()
	id, err := b.Initiate(s.t.Context(), did, "uploads/temp-1")
	if err != nil {
		s.t.Fatal(err)
	}
	etag, err := b.WritePart(s.t.Context(), did, id, 1, bytes.NewReader([]byte(content)), int64(len(content)))
	if err != nil {
		s.t.Fatal(err)
	}
	mayRead := s.MayRead(s.caller(did), d) == nil
	if _, err := b.Complete(s.t.Context(), did, id, d, []blobs.Part{{Number: 1, ETag: etag}}, mayRead); err != nil {
		s.t.Fatal(err)
	}
	return hold.Descriptor{Digest: string(d), Size: int64(len(content)), MediaType: "application/vnd.oci.image.layer.v1.tar+gzip"}
}

func (s *ship) announce(did string, change func(*hold.Announcement), layers ...hold.Descriptor) (hold.Announced, error) {
	s.t.Helper()
	in := hold.Announcement{
		Repository: "app", UserDID: did, Tag: "latest",
		ManifestDigest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("manifest"))),
	}
	in.Manifest.Layers = layers
	if change != nil {
		change(&in)
	}
	return s.NotifyManifest(s.t.Context(), s.caller(did), in)
}

func (s *ship) mustAnnounce(did string, change func(*hold.Announcement), layers ...hold.Descriptor) hold.Announced {
	s.t.Helper()
	out, err := s.announce(did, change, layers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func private(in *hold.Announcement) { in.Visibility = "private" }
func pull(in *hold.Announcement)    { in.Operation = "pull" }

func (s *ship) records(collection string) []pds.Record {
	s.t.Helper()
	records, _, err := s.Repo().Records(collection, pds.ListOptions{Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	return records
}

func (s *ship) stats(owner, repository string) (stats atcr.Stats) {
	s.t.Helper()
	r, err := s.Repo().Record(atcr.StatsPath(owner, repository))
	if errors.Is(err, pds.ErrRecordNotFound) {
		return stats
	}
	if err == nil {
		err = atcr.Decode(r.Value, &stats)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// crew adds a member as an administrator would.
func (s *ship) crew(member string, permissions ...string) {
	s.t.Helper()
	value, err := atcr.Encode(&atcr.Crew{Member: member, Role: "member", Permissions: permissions, AddedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Repo().Update(s.t.Context(), func(tx *pds.Tx) error {
		_, err := tx.Put(hold.NewPath(tx, atcr.CrewCollection, value), value)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *ship) captainRecord() (captain atcr.Captain) {
	s.t.Helper()
	r, err := s.Repo().Record(atcr.CaptainPath)
	if err == nil {
		err = atcr.Decode(r.Value, &captain)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return captain
}

func TestCaptainRecordFollowsTheConfiguration(t *testing.T) {
	s := launch(t, hold.Config{})
	first := s.captainRecord()
	if first.Owner != s.state.DID() || first.Public || first.AllowAllCrew || first.Region != nil {
		t.Errorf("without configuration the captain record is %+v", first)
	}
	if c := s.caller(s.state.DID()); !c.Captain {
		t.Error("the hold is not its own captain")
	}

	before := s.Repo().Head()
	s.configure(hold.Config{})
	if s.Repo().Head() != before {
		t.Error("the same configuration again made a commit")
	}

	s.configure(hold.Config{Owner: captain, Region: "eu", Policy: hold.Policy{Public: true, AllowAllCrew: true}})
	second := s.captainRecord()
	if second.Owner != captain || !second.Public || !second.AllowAllCrew || second.Region == nil || *second.Region != "eu" {
		t.Errorf("the captain record is %+v", second)
	}
	if second.DeployedAt != first.DeployedAt {
		t.Error("deployedAt changed")
	}
	crew := s.records(atcr.CrewCollection)
	if len(crew) != 1 || crew[0].Path != atcr.CrewPath(captain) {
		t.Errorf("crew after a new owner: %v, want the new owner alone", crew)
	}
	if got := s.Repo().Head().Rev; got == before.Rev {
		t.Error("no commit for the new configuration")
	}
}

func TestCaptainRecordKeepsFieldsItDoesNotKnow(t *testing.T) {
	s := launch(t, hold.Config{})
	_, err := s.Repo().Update(t.Context(), func(tx *pds.Tx) error {
		r, err := tx.Get(atcr.CaptainPath)
		if err != nil {
			return err
		}
		fields, err := atdata.UnmarshalCBOR(r.Value)
		if err != nil {
			return err
		}
		fields["motto"] = "fluctuat nec mergitur"
		value, err := atdata.MarshalCBOR(fields)
		if err != nil {
			return err
		}
		_, err = tx.Put(atcr.CaptainPath, value)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.configure(hold.Config{Policy: hold.Policy{Public: true}})
	r, err := s.Repo().Record(atcr.CaptainPath)
	if err != nil {
		t.Fatal(err)
	}
	fields, err := atdata.UnmarshalCBOR(r.Value)
	if err != nil || fields["motto"] == nil || fields["public"] != true {
		t.Errorf("captain record is %v, %v", fields, err)
	}
}

func TestPushWritesLayersAndCountsInOneCommit(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	a, b := s.upload(captain, "layer a"), s.upload(captain, "layer b")
	b.Size = 1 << 40 // what is stored counts, not what is announced

	before := s.Repo().Head().Seq
	out := s.mustAnnounce(captain, nil, a, b, a)
	if !out.Success || out.Operation != "push" || !out.StatsUpdated || out.LayersCreated == nil || *out.LayersCreated != 2 {
		t.Errorf("answer %+v", out)
	}
	if got := s.Repo().Head().Seq - before; got != 1 {
		t.Errorf("%d events for one push, want 1 commit", got)
	}
	sizes := make(map[string]int64)
	for _, r := range s.records(atcr.LayerCollection) {
		var l atcr.Layer
		if err := atcr.Decode(r.Value, &l); err != nil {
			t.Fatal(err)
		}
		sizes[l.Digest] = l.Size
		if l.UserDID != captain || l.Manifest != atcr.ManifestURI(captain, fmt.Sprintf("%x", sha256.Sum256([]byte("manifest")))) {
			t.Errorf("layer record %+v", l)
		}
	}
	if want := map[string]int64{a.Digest: 7, b.Digest: 7}; !maps.Equal(sizes, want) {
		t.Errorf("layers %v, want %v", sizes, want)
	}

	again := s.mustAnnounce(captain, nil, a, b)
	if *again.LayersCreated != 0 || len(s.records(atcr.LayerCollection)) != 2 {
		t.Error("the same manifest again added layers")
	}
	s.mustAnnounce(captain, pull, a, b)
	if got := s.stats(captain, "app"); got.PushCount != 2 || got.PullCount != 1 || got.LastPull == nil || got.LastPush == nil {
		t.Errorf("stats %+v", got)
	}
}

func TestPushOfIndexCountsOnce(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	out := s.mustAnnounce(captain, func(in *hold.Announcement) {
		in.Manifest.Manifests = []hold.Descriptor{{Digest: in.ManifestDigest, Size: 5}, {Digest: in.ManifestDigest, Size: 5}}
	})
	if *out.LayersCreated != 0 || s.stats(captain, "app").PushCount != 1 {
		t.Errorf("answer %+v, stats %+v", out, s.stats(captain, "app"))
	}
}

func TestPushOfManyLayersIsComplete(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads 300 blobs")
	}
	s := launch(t, hold.Config{Owner: captain})
	var layers []hold.Descriptor
	for i := range 300 {
		layers = append(layers, s.upload(captain, fmt.Sprint("layer ", i)))
	}
	if out := s.mustAnnounce(captain, nil, layers...); *out.LayersCreated != 300 {
		t.Errorf("%d layers created, want 300", *out.LayersCreated)
	}
	if n := len(s.records(atcr.LayerCollection)); n != 300 {
		t.Errorf("%d layer records, want 300", n)
	}
}

func TestAnnouncementErrors(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain, Policy: hold.Policy{Public: true}})
	s.crew(alice, atcr.PermissionWrite)
	s.crew(bob, atcr.PermissionRead)
	l := s.upload(alice, "layer")
	missing := hold.Descriptor{Digest: fmt.Sprintf("sha256:%064d", 0)}
	for _, c := range []struct {
		name   string
		did    string
		change func(*hold.Announcement)
		layers []hold.Descriptor
		want   error
	}{
		{"anonymous", "", nil, nil, hold.ErrAuthRequired},
		{"push without blob:write", bob, nil, nil, hold.ErrForbidden},
		{"push by a stranger", stranger, nil, nil, hold.ErrForbidden},
		{"push for somebody else", alice, func(in *hold.Announcement) { in.UserDID = captain }, nil, hold.ErrUserMismatch},
		{"push by the captain for somebody else", captain, func(in *hold.Announcement) { in.UserDID = alice }, nil, hold.ErrUserMismatch},
		{"another operation", alice, func(in *hold.Announcement) { in.Operation = "delete" }, nil, hold.ErrInvalidOperation},
		{"a layer that is not there", alice, nil, []hold.Descriptor{l, missing}, hold.ErrLayerNotFound},
		{"a layer without digest", alice, nil, []hold.Descriptor{{}}, hold.ErrInvalidRequest},
		{"no repository", alice, func(in *hold.Announcement) { in.Repository = "" }, nil, hold.ErrInvalidRequest},
		{"a long repository", alice, func(in *hold.Announcement) { in.Repository = string(make([]byte, 257)) }, nil, hold.ErrInvalidRequest},
		{"no manifest digest", alice, func(in *hold.Announcement) { in.ManifestDigest = "" }, nil, hold.ErrInvalidRequest},
		{"no user", alice, func(in *hold.Announcement) { in.UserDID = "" }, nil, hold.ErrInvalidRequest},
		{"another visibility", alice, func(in *hold.Announcement) { in.Visibility = "secret" }, nil, hold.ErrInvalidRequest},
		{"too many layers", alice, nil, slices.Repeat([]hold.Descriptor{l}, 1001), hold.ErrInvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := s.Repo().Head()
			if _, err := s.announce(c.did, c.change, c.layers...); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if s.Repo().Head() != before {
				t.Error("something was written")
			}
		})
	}
	t.Run("pull by a stranger of a public hold", func(t *testing.T) {
		alices := func(in *hold.Announcement) { pull(in); in.UserDID = alice }
		out, err := s.announce(stranger, alices)
		if err != nil || out.StatsUpdated || s.stats(alice, "app").Repository != "" {
			t.Errorf("of a repository that nobody pushed to: %+v, %v, want nothing counted", out, err)
		}
		s.mustAnnounce(alice, nil, l)
		out, err = s.announce(stranger, alices)
		if got := s.stats(alice, "app").PullCount; err != nil || !out.StatsUpdated || got != 1 {
			t.Errorf("%+v, %v, pull count %d, want 1", out, err, got)
		}
	})
	s.configure(hold.Config{Owner: captain})
	if _, err := s.announce(stranger, func(in *hold.Announcement) { pull(in); in.UserDID = alice }); !errors.Is(err, hold.ErrForbidden) {
		t.Errorf("pull by a stranger of a private hold: %v, want ErrForbidden", err)
	}
}

func TestPrivateManifestsHideTheirBlobs(t *testing.T) {
	everyone := hold.Config{Owner: captain, Policy: hold.Policy{Public: true, AllowAllCrew: true}}
	s := launch(t, everyone)
	s.crew(bob, atcr.PermissionRead)
	secret := s.upload(alice, "secret")
	before := s.Repo().Head()
	out := s.mustAnnounce(alice, private, secret)
	if *out.LayersCreated != 0 || s.Repo().Head() != before {
		t.Errorf("a private push was published: %+v", out)
	}

	d := blobs.Digest(secret.Digest)
	readers := func(want map[string]error) {
		t.Helper()
		for _, did := range []string{"", captain, alice, bob, stranger} {
			if err := s.MayRead(s.caller(did), d); !errors.Is(err, want[did]) || err != nil && want[did] == nil {
				t.Errorf("%q may read: %v, want %v", did, err, want[did])
			}
		}
	}
	readers(map[string]error{"": hold.ErrAuthRequired, stranger: hold.ErrForbidden})

	if _, err := s.announce(stranger, func(in *hold.Announcement) { in.Repository = "theirs" }, secret); !errors.Is(err, hold.ErrLayerNotFound) {
		t.Errorf("a stranger announces a blob they cannot read: %v, want ErrLayerNotFound", err)
	}
	if _, err := s.announce(stranger, func(in *hold.Announcement) {
		in.Manifest.Config = &hold.Descriptor{Digest: secret.Digest}
	}); err != nil {
		t.Errorf("a config that is not there for the caller: %v", err)
	}
	readers(map[string]error{"": hold.ErrAuthRequired, stranger: hold.ErrForbidden})
	if _, err := s.announce(stranger, func(in *hold.Announcement) { pull(in); in.UserDID = alice }); !errors.Is(err, hold.ErrForbidden) {
		t.Errorf("a stranger's pull: %v, want ErrForbidden", err)
	}
	s.mustAnnounce(bob, func(in *hold.Announcement) { pull(in); in.UserDID = alice })
	if got := s.stats(alice, "app"); got.PullCount+got.PushCount != 0 {
		t.Errorf("private counts were published: %+v", got)
	}

	// Flipped to public, layers and counts are published; back, they are gone.
	if out := s.mustAnnounce(alice, nil, secret); *out.LayersCreated != 1 {
		t.Errorf("flip to public: %+v", out)
	}
	if got := s.stats(alice, "app"); got.PushCount != 2 || got.PullCount != 1 {
		t.Errorf("stats after the flip: %+v", got)
	}
	readers(nil)
	s.mustAnnounce(bob, func(in *hold.Announcement) { pull(in); in.UserDID = alice })
	if got := s.stats(alice, "app"); got.PullCount != 2 {
		t.Errorf("a public pull: %+v", got)
	}
	s.mustAnnounce(alice, private)
	if n := len(s.records(atcr.LayerCollection)); n != 0 {
		t.Errorf("%d layer records after the flip back", n)
	}
	if got := s.stats(alice, "app"); got.Repository != "" {
		t.Errorf("stats after the flip back: %+v", got)
	}
	readers(map[string]error{"": hold.ErrAuthRequired, stranger: hold.ErrForbidden})

	// Who uploads the same bytes has them, and can publish them.
	same := s.upload(stranger, "secret")
	if _, err := s.announce(stranger, nil, same); err != nil {
		t.Errorf("a stranger who uploaded the bytes announces them: %v", err)
	}
	readers(nil)
}

func TestRequestCrew(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	request := func(did string, in hold.CrewRequest) (hold.CrewMembership, error) {
		return s.RequestCrew(t.Context(), s.caller(did), in)
	}
	if _, err := request("", hold.CrewRequest{}); !errors.Is(err, hold.ErrAuthRequired) {
		t.Errorf("anonymous: %v", err)
	}
	if _, err := request(alice, hold.CrewRequest{}); !errors.Is(err, hold.ErrRegistrationDisabled) {
		t.Errorf("by invitation: %v", err)
	}
	if m, err := request(captain, hold.CrewRequest{}); err != nil || m.Status != "already_member" {
		t.Errorf("captain: %+v, %v", m, err)
	}

	s.configure(hold.Config{Owner: captain, Policy: hold.Policy{AllowAllCrew: true}})
	for _, in := range []hold.CrewRequest{{Role: "admin"}, {Role: "owner"}, {Role: "cook"}, {Permissions: []string{atcr.PermissionAdmin}}, {Permissions: []string{"x"}}} {
		if _, err := request(alice, in); !errors.Is(err, hold.ErrInvalidRequest) {
			t.Errorf("%+v: %v, want ErrInvalidRequest", in, err)
		}
	}
	created, err := request(alice, hold.CrewRequest{})
	if err != nil || created.Status != "created" || created.URI != "at://did:web:hold.example.com/"+atcr.CrewPath(alice) || created.CID == "" {
		t.Errorf("first request: %+v, %v", created, err)
	}
	before := s.Repo().Head()
	again, err := request(alice, hold.CrewRequest{})
	if err != nil || again.Status != "already_member" || again.URI != created.URI || again.CID != created.CID {
		t.Errorf("second request: %+v, %v", again, err)
	}
	if s.Repo().Head() != before {
		t.Error("the second request made a commit")
	}
	s.configure(hold.Config{Owner: captain})
	if err := s.Allow(s.caller(alice), hold.Write); err != nil {
		t.Errorf("who joined may not write: %v", err)
	}
	if m, err := request(alice, hold.CrewRequest{Role: "admin"}); err != nil || m.Status != "already_member" {
		t.Errorf("a member who asks for more: %+v, %v", m, err)
	}
	if _, err := request(bob, hold.CrewRequest{Role: "admin"}); !errors.Is(err, hold.ErrRegistrationDisabled) {
		t.Errorf("a stranger who asks for more by invitation: %v", err)
	}
	if m, err := request(alice, hold.CrewRequest{}); err != nil || m.Status != "already_member" {
		t.Errorf("a member while registration is closed: %+v, %v", m, err)
	}
}

func TestCrewIsFoundByMemberWhateverTheKey(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	path := atcr.CrewCollection + "/some.other.key"
	write := func(fn func(tx *pds.Tx) error) {
		t.Helper()
		if _, err := s.Repo().Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	put := func(member string) func(tx *pds.Tx) error {
		value, err := atcr.Encode(&atcr.Crew{Member: member, Role: "write", Permissions: []string{atcr.PermissionWrite}, AddedAt: "2026-01-01T00:00:00Z"})
		if err != nil {
			t.Fatal(err)
		}
		return func(tx *pds.Tx) error {
			_, err := tx.Put(path, value)
			return err
		}
	}
	may := func(did string) bool { return s.Allow(s.caller(did), hold.Write) == nil }

	write(put(alice))
	if !may(alice) {
		t.Error("a member may not write")
	}
	write(put(bob))
	if may(alice) || !may(bob) {
		t.Error("the record changed hands, the permission did not")
	}
	s.reopen(hold.Config{Owner: captain})
	if !may(bob) {
		t.Error("after a restart the member is not found")
	}
	write(func(tx *pds.Tx) error { return tx.Delete(path) })
	if may(bob) {
		t.Error("after removal the member may still write")
	}
}

func TestDIDsAreComparedWhateverTheirSpelling(t *testing.T) {
	s := launch(t, hold.Config{Owner: "did:web:127.0.0.1:7000"})
	if c := s.caller("did:web:127.0.0.1%3A7000"); !c.Captain {
		t.Error("the owner is not the captain")
	}
	if n := len(s.records(atcr.CrewCollection)); n != 1 {
		t.Errorf("%d crew records", n)
	}
	s.configure(hold.Config{Owner: "did:web:127.0.0.1%3A7000"})
	if n := len(s.records(atcr.CrewCollection)); n != 1 {
		t.Errorf("%d crew records after another spelling", n)
	}
	s.crew("did:web:127.0.0.1:7001", atcr.PermissionWrite)
	for _, did := range []string{"did:web:127.0.0.1%3A7001", "did:web:127.0.0.1:7001"} {
		if err := s.Allow(s.caller(did), hold.Write); err != nil {
			t.Errorf("%s: %v", did, err)
		}
	}
	if _, err := s.announce("did:web:127.0.0.1:7001", nil); err != nil {
		t.Errorf("a push: %v", err)
	}
}

func TestAnnouncementsOfOneManifestAreBounded(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	var err error
	for i := 0; i <= 100 && err == nil; i++ {
		_, err = s.announce(captain, func(in *hold.Announcement) { in.Repository = fmt.Sprint("app", i) })
	}
	if !errors.Is(err, hold.ErrInvalidRequest) {
		t.Errorf("the same manifest in 101 repositories: %v, want ErrInvalidRequest", err)
	}
}

func TestRequestCrewWhereAnothersRecordIsInTheWay(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain, Policy: hold.Policy{AllowAllCrew: true}})
	value, err := atcr.Encode(&atcr.Crew{Member: bob, Role: "member", AddedAt: "2026-01-01T00:00:00Z"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Repo().Update(t.Context(), func(tx *pds.Tx) error {
		_, err := tx.Put(atcr.CrewPath(alice), value)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m, err := s.RequestCrew(t.Context(), s.caller(alice), hold.CrewRequest{})
	if err != nil || m.Status != "created" {
		t.Fatalf("%+v, %v", m, err)
	}
	if again, err := s.RequestCrew(t.Context(), s.caller(alice), hold.CrewRequest{}); err != nil || again.Status != "already_member" || again.URI != m.URI || again.CID != m.CID {
		t.Errorf("again: %+v, %v, want %+v", again, err, m)
	}
	if !s.caller(bob).Crew() && len(s.records(atcr.CrewCollection)) != 3 {
		t.Error("the record that was in the way is gone")
	}
}

func TestConfigurationOwnsItsRecords(t *testing.T) {
	s := launch(t, hold.Config{Owner: captain})
	crew := func(member string) []byte {
		value, err := atcr.Encode(&atcr.Crew{Member: member, Role: "member", AddedAt: "2026-01-01T00:00:00Z"})
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	for name, c := range map[string]struct {
		path  string
		value []byte
		want  error
	}{
		"captain record":                {atcr.CaptainPath, nil, hold.ErrProtectedRecord},
		"another captain record":        {atcr.CaptainCollection + "/x", crew(alice), hold.ErrProtectedRecord},
		"captain's crew record":         {atcr.CrewPath(captain), nil, hold.ErrProtectedRecord},
		"captain under another key":     {atcr.CrewCollection + "/x", crew(captain), hold.ErrProtectedRecord},
		"crew record":                   {atcr.CrewPath(alice), crew(alice), nil},
		"crew record's deletion":        {atcr.CrewPath(alice), nil, nil},
		"crew record that is too large": {atcr.CrewPath(alice), padded(t, crew(alice), 65<<10), pds.ErrInvalidRecord},
		"layer that is a crew record":   {atcr.LayerCollection + "/x", crew(alice), pds.ErrInvalidRecord},
		"record of another collection":  {"com.example.note/x", crew(alice), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.CheckWrite(c.path, c.value); !errors.Is(err, c.want) || err != nil && c.want == nil {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// padded adds an unknown field to a record.
func padded(t *testing.T, value []byte, size int) []byte {
	t.Helper()
	fields, err := atdata.UnmarshalCBOR(value)
	if err != nil {
		t.Fatal(err)
	}
	fields["ballast"] = string(bytes.Repeat([]byte("x"), size))
	value, err = atdata.MarshalCBOR(fields)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestOpenErrors(t *testing.T) {
	s := launch(t, hold.Config{})
	if _, err := hold.Open(hold.Options{DataDir: t.TempDir(), PublicURL: "not a url"}); err == nil {
		t.Error("a bad public URL is accepted")
	}
	if err := s.state.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Open(hold.Options{DataDir: s.dir, PublicURL: "https://other.example.com"}); !errors.Is(err, pds.ErrIdentityMismatch) {
		t.Errorf("another public URL: %v, want ErrIdentityMismatch", err)
	}
	s.open()
	if testing.Short() {
		return // the lock is waited for
	}
	if _, err := hold.Open(hold.Options{DataDir: s.dir, PublicURL: "https://hold.example.com"}); !errors.Is(err, hold.ErrLocked) {
		t.Errorf("opened twice: %v, want ErrLocked", err)
	}
}
