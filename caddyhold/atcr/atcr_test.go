package atcr

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
)

const someTime = "2026-01-02T03:04:05.678Z"

// records has a valid one of each type, with every optional field.
func records() map[string]Record {
	return map[string]Record{
		CaptainCollection: &Captain{Owner: "did:plc:captain", Public: true, DeployedAt: someTime, Region: new("eu"), Successor: new("did:web:new.example.com")},
		CrewCollection:    &Crew{Member: "did:plc:crew", Role: "member", Permissions: []string{PermissionRead}, AddedAt: someTime, Tier: new("deckhand")},
		LayerCollection:   &Layer{Digest: "sha256:" + strings.Repeat("0", 64), Size: 1 << 40, MediaType: "application/octet-stream", Manifest: ManifestURI("did:plc:crew", strings.Repeat("1", 64)), UserDID: "did:plc:crew", CreatedAt: someTime},
		StatsCollection:   &Stats{OwnerDID: "did:plc:crew", Repository: "app", PullCount: 2, PushCount: 1, UpdatedAt: someTime, LastPull: new(someTime), LastPush: new(someTime)},
	}
}

func TestRecordsSurviveEncoding(t *testing.T) {
	for collection, r := range records() {
		t.Run(collection, func(t *testing.T) {
			value, err := Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			if name, err := atdata.ExtractTypeCBOR(value); err != nil || name != collection {
				t.Errorf("$type is %q (%v), want %q", name, err, collection)
			}
			got := New(collection)
			if err := Decode(value, got); err != nil {
				t.Fatal(err)
			}
			again, err := Encode(got)
			if err != nil || !reflect.DeepEqual(value, again) {
				t.Errorf("decoded and encoded again: %v, %x, want %x", err, again, value)
			}
			fields, err := atdata.UnmarshalCBOR(value)
			if err != nil {
				t.Fatal(err)
			}
			canonical, err := atdata.MarshalCBOR(fields)
			if err != nil || !reflect.DeepEqual(value, canonical) {
				t.Errorf("the encoding is not canonical DAG-CBOR: %v", err)
			}
		})
	}
}

func TestUpdateKeepsUnknownFieldsAndDropsClearedOnes(t *testing.T) {
	value, err := Encode(records()[CaptainCollection])
	if err != nil {
		t.Fatal(err)
	}
	fields, err := atdata.UnmarshalCBOR(value)
	if err != nil {
		t.Fatal(err)
	}
	fields["futureField"] = map[string]any{"nested": int64(7)}
	stored, err := atdata.MarshalCBOR(fields)
	if err != nil {
		t.Fatal(err)
	}

	var captain Captain
	if err := Decode(stored, &captain); err != nil {
		t.Fatal(err)
	}
	captain.Public = false
	captain.Region = nil
	updated, err := Update(stored, &captain)
	if err != nil {
		t.Fatal(err)
	}
	got, err := atdata.UnmarshalCBOR(updated)
	if err != nil {
		t.Fatal(err)
	}
	fields["public"] = false
	delete(fields, "region")
	if !reflect.DeepEqual(got, fields) {
		t.Errorf("updated record is %v, want %v", got, fields)
	}
}

func TestValidateRefusesWhatTheLexiconsDo(t *testing.T) {
	cases := map[string]Record{
		"captain without owner":       &Captain{DeployedAt: someTime},
		"captain without time":        &Captain{Owner: "did:plc:captain"},
		"captain with a long region":  &Captain{Owner: "did:plc:captain", DeployedAt: someTime, Region: new(strings.Repeat("x", 65))},
		"crew that is no DID":         &Crew{Member: "somebody", Role: "member", AddedAt: someTime},
		"crew without role":           &Crew{Member: "did:plc:crew", AddedAt: someTime},
		"crew with a long role":       &Crew{Member: "did:plc:crew", Role: strings.Repeat("x", 33), AddedAt: someTime},
		"crew, unknown permission":    &Crew{Member: "did:plc:crew", Role: "member", AddedAt: someTime, Permissions: []string{"root"}},
		"crew, too many permissions":  &Crew{Member: "did:plc:crew", Role: "member", AddedAt: someTime, Permissions: make([]string, 65)},
		"layer of negative size":      &Layer{Digest: "sha256:0", Size: -1, Manifest: "at://did:plc:crew/a.b.c/d", UserDID: "did:plc:crew", CreatedAt: someTime},
		"layer without manifest":      &Layer{Digest: "sha256:0", UserDID: "did:plc:crew", CreatedAt: someTime},
		"stats with a negative count": &Stats{OwnerDID: "did:plc:crew", Repository: "app", PullCount: -1, UpdatedAt: someTime},
		"stats without repository":    &Stats{OwnerDID: "did:plc:crew", UpdatedAt: someTime},
	}
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := Encode(r); !errors.Is(err, ErrInvalid) {
				t.Errorf("Encode: %v, want ErrInvalid", err)
			}
		})
	}
}

func TestKeysDependOnTheirNamesAlone(t *testing.T) {
	if a, b := CrewPath("did:plc:a"), CrewPath("did:plc:b"); a == b || a != CrewPath("did:plc:a") {
		t.Errorf("crew paths %s and %s", a, b)
	}
	// base32 (RFC 4648, lower case, no padding) of the first 16 bytes of
	// SHA-256("did:plc:abc/app").
	if got, want := StatsPath("did:plc:abc", "app"), StatsCollection+"/"; len(got) != len(want)+26 || !strings.HasPrefix(got, want) {
		t.Errorf("stats path %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range records() {
		value, err := Encode(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for collection := range records() {
			r := New(collection)
			if Decode(value, r) != nil || r.Validate() != nil {
				continue
			}
			if _, err := Encode(r); err != nil {
				t.Errorf("%s decoded from %x but does not encode: %v", collection, value, err)
			}
		}
	})
}
