package pds

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// Major types of CBOR (RFC 8949, section 3.1).
const (
	majorUint byte = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// What DAG-CBOR leaves of the simple values and tags.
const (
	simpleFalse = 20
	simpleTrue  = 21
	simpleNull  = 22
	tagLink     = 42
)

var errTruncated = errors.New("CBOR ends early")

// cborReader reads the strict form of CBOR that DAG-CBOR is
// (https://ipld.io/specs/codecs/dag-cbor/spec/). Byte strings it returns are
// parts of what it reads.
type cborReader struct {
	b []byte
}

// head reads the start of a data item: its major type and its argument, which
// is a value or a length. Arguments must be written in the shortest form.
func (r *cborReader) head() (major byte, arg uint64, err error) {
	if len(r.b) == 0 {
		return 0, 0, errTruncated
	}
	major, info := r.b[0]>>5, r.b[0]&0x1f
	r.b = r.b[1:]
	if info < 24 {
		return major, uint64(info), nil
	}
	if major == majorSimple {
		return 0, 0, errors.New("floating-point number or unknown simple value")
	}
	if info > 27 {
		return 0, 0, errors.New("indefinite length")
	}
	size := 1 << (info - 24)
	if len(r.b) < size {
		return 0, 0, errTruncated
	}
	for _, c := range r.b[:size] {
		arg = arg<<8 | uint64(c)
	}
	r.b = r.b[size:]
	if arg < 24 || size > 1 && arg>>(size*4) == 0 {
		return 0, 0, errors.New("number not in its shortest form")
	}
	return major, arg, nil
}

// expect reads the start of a data item of one major type.
func (r *cborReader) expect(major byte) (arg uint64, err error) {
	got, arg, err := r.head()
	if err == nil && got != major {
		err = fmt.Errorf("CBOR major type %d instead of %d", got, major)
	}
	return arg, err
}

// take returns the next n bytes.
func (r *cborReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.b)) {
		return nil, errTruncated
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b, nil
}

// text reads a text string, without a look at its encoding.
func (r *cborReader) text() ([]byte, error) {
	n, err := r.expect(majorText)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// link reads what follows the tag of a link: the bytes of a CID.
func (r *cborReader) link() ([]byte, error) {
	n, err := r.expect(majorBytes)
	if err != nil {
		return nil, err
	}
	b, err := r.take(n)
	if err != nil {
		return nil, err
	}
	if len(b) != 1+cidLen || b[0] != 0 || !isBlessed(b[1:]) {
		return nil, errors.New("link is not a CIDv1 of raw or DAG-CBOR data with a SHA-256 hash")
	}
	return b[1:], nil
}

// optionalLink reads a link or null, for which it returns nil.
func (r *cborReader) optionalLink() ([]byte, error) {
	major, arg, err := r.head()
	switch {
	case err != nil:
		return nil, err
	case major == majorSimple && arg == simpleNull:
		return nil, nil
	case major == majorTag && arg == tagLink:
		return r.link()
	}
	return nil, errors.New("neither a link nor null")
}

// key reads a text string that must be the one given.
func (r *cborReader) key(want string) error {
	got, err := r.text()
	if err == nil && string(got) != want {
		err = fmt.Errorf("field %.20q instead of %q", got, want)
	}
	return err
}

// keysAscend says whether b may follow a in a map: shorter keys first, then
// bytewise.
func keysAscend(a, b []byte) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return bytes.Compare(a, b) < 0
}

// cidLen is the length of a CIDv1 with a SHA-256 hash: version, codec, hash
// function, hash length, hash. Repositories have no others
// (https://atproto.com/specs/data-model#link-and-cid-formats).
const cidLen = 4 + 32

func isBlessed(b []byte) bool {
	return len(b) == cidLen && b[0] == 1 && (b[1] == cid.DagCBOR || b[1] == cid.Raw) && b[2] == 0x12 && b[3] == 32
}
