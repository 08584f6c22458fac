package pds

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

// text is a CBOR text string of less than 24 bytes.
func text(s string) string { return string(rune(0x60+len(s))) + s }

// typed is a record with one more field, whose name is longer than "$type".
func typed(encoded string) []byte {
	return []byte("\xa2" + text("$type") + text(collection) + text("value_") + encoded)
}

func nested(levels int) string { return strings.Repeat("\x81", levels) + "\x01" }

func cborLink(c cid.Cid) string { return "\xd8\x2a\x58\x25\x00" + string(c.Bytes()) }

func TestRecordsAreInTheDataModel(t *testing.T) {
	link := sum(cid.DagCBOR, nil)
	tests := []struct {
		name  string
		value []byte
		valid bool
	}{
		{"null", typed("\xf6"), true},
		{"booleans", typed("\x82\xf4\xf5"), true},
		{"integer of 53 bits", typed("\x1b\x00\x1f\xff\xff\xff\xff\xff\xff"), true},
		{"integer of 54 bits", typed("\x1b\x00\x20\x00\x00\x00\x00\x00\x00"), false},
		{"least integer", typed("\x3b\x00\x1f\xff\xff\xff\xff\xff\xfe"), true},
		{"less than that", typed("\x3b\x00\x1f\xff\xff\xff\xff\xff\xff"), false},
		{"integer of 64 bits", typed("\x1b\xff\xff\xff\xff\xff\xff\xff\xff"), false},
		{"integer not in its shortest form", typed("\x18\x17"), false},
		{"long integer not in its shortest form", typed("\x1a\x00\x00\xff\xff"), false},
		{"half", typed("\xf9\x3c\x00"), false},
		{"single", typed("\xfa\x3f\x80\x00\x00"), false},
		{"double", typed("\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"), false},
		{"undefined", typed("\xf7"), false},
		{"simple value", typed("\xe0"), false},
		{"bytes", typed("\x43\x00\xff\x00"), true},
		{"bytes of indefinite length", typed("\x5f\x41\x00\xff"), false},
		{"array of indefinite length", typed("\x9f\x01\xff"), false},
		{"text", typed(text("é")), true},
		{"text that is not UTF-8", typed("\x62\xc3\x28"), false},
		{"link", typed(cborLink(link)), true},
		{"link to raw data", typed(cborLink(sum(cid.Raw, nil))), true},
		{"link of CID version 0", typed("\xd8\x2a\x58\x23\x00" + string(cid.NewCidV0(link.Hash()).Bytes())), false},
		{"link without its prefix", typed("\xd8\x2a\x58\x24" + string(link.Bytes())), false},
		{"other tag", typed("\xc1\x01"), false},
		{"32 levels", typed(nested(31)), true},
		{"33 levels", typed(nested(32)), false},
		{"a million levels", typed(nested(900_000)), false},
		{"map", typed("\xa2\x61a\x01\x61b\x01"), true},
		{"map with fields out of order", typed("\xa2\x61b\x01\x61a\x01"), false},
		{"map with a longer field first", typed("\xa2\x62aa\x01\x61b\x01"), false},
		{"map with a field twice", typed("\xa2\x61a\x01\x61a\x02"), false},
		{"map with a number for a field", typed("\xa1\x01\x01"), false},
		{"array that ends early", typed("\x9b\x00\x00\x00\xff\xff\xff\xff\xff"), false},
		{"text that ends early", typed("\x7b\xff\xff\xff\xff\xff\xff\xff\xff"), false},
		{"data after its end", append(typed("\x01"), 0), false},
		{"nothing", nil, false},
		{"no map", []byte("\x80"), false},
		{"no type", []byte("\xa0"), false},
		{"another type", value(t, "com.example.other", nil), false},
		{"a type that is no text", []byte("\xa1" + text("$type") + "\x01"), false},
		{"the type of another's prefix", value(t, collection+"s", nil), false},
		{"the greatest size", sized(MaxRecordSize), true},
		{"more than that", sized(MaxRecordSize + 1), false},
	}
	r := open(t, newDB(t))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.Update(t.Context(), func(tx *Tx) error {
				_, err := tx.Put(path("x"), test.value)
				return err
			})
			if test.valid && err != nil || !test.valid && !errors.Is(err, ErrInvalidRecord) {
				t.Error(err)
			}
		})
	}
}

// sized is a record of n bytes.
func sized(n int) []byte {
	head := typed("")
	size := n - len(head) - 5
	return append(append(head, 0x5a, byte(size>>24), byte(size>>16), byte(size>>8), byte(size)), make([]byte, size)...)
}

func TestPathsAreCollectionAndRecordKey(t *testing.T) {
	r := open(t, newDB(t))
	long := strings.Repeat("k", 512)
	for rkey, valid := range map[string]bool{
		"self": true, "3jzfcijpj2z2a": true, "a:b_c~d.e-f": true, long: true, "...": true,
		"": false, ".": false, "..": false, long + "k": false, "a/b": false, "é": false, "a b": false, "a\x00": false,
	} {
		_, err := r.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.Create(path(rkey), thing(t, 1))
			return err
		})
		if valid && err != nil || !valid && !errors.Is(err, ErrInvalidPath) {
			t.Errorf("%.20q: %v", rkey, err)
		}
	}
	for _, p := range []string{"", "/", collection, "example/x", "/x", "com.example/x", "com.example.3/x"} {
		_, err := r.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.Put(p, thing(t, 1))
			return err
		})
		if !errors.Is(err, ErrInvalidPath) {
			t.Errorf("%q: %v", p, err)
		}
		if _, err := r.Record(p); !errors.Is(err, ErrRecordNotFound) {
			t.Errorf("record %q: %v", p, err)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(typed("\x01"))
	f.Add(typed(nested(31)))
	f.Add(typed(cborLink(sum(cid.Raw, nil))))
	f.Add(typed("\xa4" + text("ref") + cborLink(sum(cid.Raw, nil)) + text("size") + "\x01" + text("$type") + text("blob") + text("mimeType") + text("a/b")))
	f.Add(typed("\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		recordType, _, err := inspect(data)
		if err != nil {
			return
		}
		decoded, err := atdata.UnmarshalCBOR(data)
		if err != nil {
			return // it knows more of what a blob must look like
		}
		if got, _ := decoded["$type"].(string); got != recordType {
			t.Fatalf("type %q instead of %q", recordType, got)
		}
		again, err := atdata.MarshalCBOR(decoded)
		if err != nil {
			t.Fatal(err)
		}
		empty := bytes.IndexByte(data, majorBytes<<5) >= 0 // which it takes for null
		if !bytes.Equal(again, data) && !empty {
			t.Fatalf("%x is written %x by others", data, again)
		}
	})
}

func TestCollectionIsListedInPages(t *testing.T) {
	r := open(t, newDB(t))
	const other, before = "com.example.thing.more", "com.example.thin"
	update(t, r, func(tx *Tx) error {
		for i := range 25 {
			if _, err := tx.Create(path(fmt.Sprintf("k%02d", i)), thing(t, i)); err != nil {
				return err
			}
		}
		_, err := tx.Create(other+"/k", value(t, other, nil))
		_, err2 := tx.Create(before+"/k", value(t, before, nil))
		return errors.Join(err, err2)
	})
	tests := []struct {
		name       string
		collection string
		o          ListOptions
		want       int
		pages      int
		first      string
	}{
		{"newest first", collection, ListOptions{Limit: 10}, 25, 3, "k24"},
		{"oldest first", collection, ListOptions{Limit: 10, Reverse: true}, 25, 3, "k00"},
		{"pages that fit exactly", collection, ListOptions{Limit: 5}, 25, 5, "k24"},
		{"no limit", collection, ListOptions{}, 25, 1, "k24"},
		{"one by one", collection, ListOptions{Limit: 1, Reverse: true}, 25, 25, "k00"},
		{"from a key that is not there", collection, ListOptions{Limit: 50, Cursor: "k105"}, 11, 1, "k10"},
		{"oldest first from a key that is not there", collection, ListOptions{Limit: 50, Cursor: "k105", Reverse: true}, 14, 1, "k11"},
		{"the last collection", other, ListOptions{Limit: 1}, 1, 1, "k"},
		{"the first collection", before, ListOptions{Limit: 1}, 1, 1, "k"},
		{"no collection", "com.example", ListOptions{}, 0, 1, ""},
		{"after all", "com.zzz.a", ListOptions{}, 0, 1, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			pages := 0
			for more := true; more; more = test.o.Cursor != "" {
				recs, cursor, err := r.Records(test.collection, test.o)
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range recs {
					got = append(got, strings.TrimPrefix(rec.Path, test.collection+"/"))
					if one, err := r.Record(rec.Path); err != nil || !bytes.Equal(one.Value, rec.Value) || one.CID != rec.CID || one.Rev != rec.Rev {
						t.Errorf("%+v is also %+v, %v", rec, one, err)
					}
				}
				test.o.Cursor = cursor
				pages++
			}
			if len(got) != test.want || pages != test.pages || len(got) > 0 && got[0] != test.first {
				t.Errorf("%d records on %d pages, first %v", len(got), pages, got[:min(1, len(got))])
			}
			if !test.o.Reverse {
				slices.Reverse(got)
			}
			if !slices.IsSorted(got) || len(slices.Compact(got)) != test.want {
				t.Errorf("order %v", got)
			}
		})
	}
	collections, err := r.Collections()
	if want := []string{before, collection, other}; err != nil || !slices.Equal(collections, want) {
		t.Errorf("collections %v, %v", collections, err)
	}
}

func TestUpdateSeesItsOwnWrites(t *testing.T) {
	r := open(t, newDB(t))
	put(t, r, path("old"), thing(t, 1))
	update(t, r, func(tx *Tx) error {
		if rec, err := tx.Get(path("old")); err != nil || rec.Rev != tx.Head().Rev {
			t.Errorf("%+v, %v", rec, err)
		}
		if err := tx.Delete(path("old")); err != nil {
			return err
		}
		if _, err := tx.Get(path("old")); !errors.Is(err, ErrRecordNotFound) {
			t.Error(err)
		}
		mine := thing(t, 2)
		c, err := tx.Create(path("old"), mine)
		if err != nil {
			return err
		}
		mine[2]++ // what it was given is the caller's
		if rec, err := tx.Get(path("old")); err != nil || rec.CID != c || !bytes.Equal(rec.Value, thing(t, 2)) {
			t.Errorf("%+v, %v", rec, err)
		}
		if _, err := tx.Create(path("old"), thing(t, 3)); !errors.Is(err, ErrRecordExists) {
			t.Error(err)
		}
		return nil
	})
	if rec, err := r.Record(path("old")); err != nil || !bytes.Equal(rec.Value, thing(t, 2)) {
		t.Errorf("%+v, %v", rec, err)
	}
}
