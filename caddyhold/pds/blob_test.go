package pds

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
)

func TestBlobIsKeptWithItsType(t *testing.T) {
	r := open(t, newDB(t))
	content := []byte("a picture")
	tests := []struct{ name, given, kept string }{
		{"as it is", "image/png", "image/png"},
		{"known already", "image/gif", "image/png"},
	}
	for _, test := range tests {
		b, err := r.PutBlob(t.Context(), test.given, bytes.NewReader(content))
		if err != nil || b.MIMEType != test.kept || b.Size != int64(len(content)) || b.CID != sum(cid.Raw, content) {
			t.Errorf("%s: %+v, %v", test.name, b, err)
		}
		got, data, err := r.OpenBlob(b.CID)
		if err != nil || got != b || !bytes.Equal(data, content) {
			t.Errorf("%s: %+v, %v", test.name, got, err)
		}
	}
	for _, bad := range []string{"", "no type\r\n", "x/" + strings.Repeat("y", 300)} {
		b, err := r.PutBlob(t.Context(), bad, strings.NewReader(bad+"!"))
		if err != nil || b.MIMEType != "application/octet-stream" {
			t.Errorf("%.10q: %+v, %v", bad, b, err)
		}
	}
	if b, err := r.PutBlob(t.Context(), "a/b", strings.NewReader("")); err != nil || b.Size != 0 {
		t.Errorf("empty: %+v, %v", b, err)
	}
}

func TestBlobIsBounded(t *testing.T) {
	r := open(t, newDB(t))
	if _, err := r.PutBlob(t.Context(), "a/b", io.LimitReader(zeros{}, MaxBlobSize)); err != nil {
		t.Error(err)
	}
	if _, err := r.PutBlob(t.Context(), "a/b", io.LimitReader(zeros{}, MaxBlobSize+1)); !errors.Is(err, ErrBlobTooLarge) {
		t.Error(err)
	}
	if _, err := r.PutBlob(t.Context(), "a/b", iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	for _, c := range []cid.Cid{sum(cid.Raw, []byte("?")), cid.Undef} {
		if _, _, err := r.OpenBlob(c); !errors.Is(err, ErrBlobNotFound) {
			t.Error(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func picture(t *testing.T, blobs ...Blob) []byte {
	list := []any{}
	for _, b := range blobs {
		list = append(list, map[string]any{"blob": atdata.Blob{Ref: atdata.CIDLink(b.CID), MimeType: b.MIMEType, Size: b.Size}})
	}
	return value(t, collection, map[string]any{"pictures": list})
}

func TestBlobsThatRecordsReferToAreListed(t *testing.T) {
	r := open(t, newDB(t))
	var blobs []Blob
	for i := range 7 {
		b, err := r.PutBlob(t.Context(), "image/png", strings.NewReader(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	check := func(name, since string, want ...Blob) {
		t.Helper()
		var wanted []string
		for _, b := range want {
			wanted = append(wanted, b.CID.KeyString())
		}
		slices.Sort(wanted)
		for _, limit := range []int{0, 1, 2, 100} {
			var got []string
			for cursor, more := "", true; more; more = cursor != "" {
				page, next, err := r.Blobs(since, cursor, limit)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range page {
					got = append(got, c.KeyString())
				}
				cursor = next
			}
			if !slices.Equal(got, wanted) {
				t.Errorf("%s, limit %d: %d blobs instead of %d", name, limit, len(got), len(want))
			}
		}
	}
	check("none", "")
	first := put(t, r, path("a"), picture(t, blobs[0], blobs[1], blobs[0]))
	check("two", "", blobs[0], blobs[1])
	second := put(t, r, path("b"), picture(t, blobs[1], blobs[2], blobs[3], blobs[4]))
	check("from both", "", blobs[:5]...)
	check("since the first", first.Rev, blobs[1:5]...)
	check("since the second", second.Rev)
	put(t, r, path("a"), picture(t, blobs[6]))
	check("changed", "", append(blobs[1:5:5], blobs[6])...)
	update(t, r, func(tx *Tx) error { return tx.Delete(path("b")) })
	check("removed", "", blobs[6])
	if _, _, err := r.Blobs("", "no cursor", 5); !errors.Is(err, ErrInvalidCursor) {
		t.Error(err)
	}
}
