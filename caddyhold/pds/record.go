package pds

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// Limits of records (https://atproto.com/specs/data-model,
// https://atproto.com/specs/repository).
const (
	MaxRecordSize = 1_000_000 // bytes of DAG-CBOR
	maxNesting    = 32
	maxInteger    = 1<<53 - 1 // what every language can represent
)

// Record is a record and where it is.
type Record struct {
	Path  string // collection/rkey
	Rev   string // of the commit that wrote it; empty while that is being made
	CID   cid.Cid
	Value []byte // DAG-CBOR, the caller's own copy
}

// ListOptions says which part of a collection [Repo.Records] lists.
type ListOptions struct {
	Limit   int    // most records of a page; 0: 50
	Cursor  string // what the page before returned; empty: the first page
	Reverse bool   // lowest record key first
}

const defaultPage = 50

// Record returns the record at path, "collection/rkey", or
// [ErrRecordNotFound].
func (r *Repo) Record(path string) (rec Record, err error) {
	err = r.view(func(s snapshot) error {
		rec, err = s.recordCopy(path)
		return err
	})
	return rec, err
}

// Records lists a collection, the highest record key first (with TIDs: the
// newest), and returns the cursor of the next page, which is empty on the
// last one.
func (r *Repo) Records(collection string, o ListOptions) (recs []Record, cursor string, err error) {
	if o.Limit <= 0 {
		o.Limit = defaultPage
	}
	err = r.view(func(s snapshot) error {
		recs, cursor, err = s.list(collection, o)
		return err
	})
	return recs, cursor, err
}

// Collections lists, in order, the collections that have records.
func (r *Repo) Collections() (collections []string, err error) {
	err = r.view(func(s snapshot) error {
		collections = s.collections()
		return nil
	})
	slices.Sort(collections) // stored are paths, and "." comes before "/"
	return collections, err
}

// checkPath says whether path can be one of a record.
func checkPath(path string) error {
	if _, _, err := syntax.ParseRepoPath(path); err != nil {
		return fmt.Errorf("%w %.80q: %w", ErrInvalidPath, path, err)
	}
	return nil
}

// checkRecord says whether value can be stored at path, and which blobs it
// refers to.
func checkRecord(path string, value []byte) (blobs []cid.Cid, err error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	recordType, blobs, err := inspect(value)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w", ErrInvalidRecord, path, err)
	}
	if collection, _, _ := strings.Cut(path, "/"); recordType != collection {
		return nil, fmt.Errorf("%w at %s: its $type is %.80q", ErrInvalidRecord, path, recordType)
	}
	return blobs, nil
}

// inspect checks that value is one map in DAG-CBOR, within the limits of
// ATProto's data model. It returns the map's $type and the blobs that are
// referred to anywhere in it.
func inspect(value []byte) (recordType string, blobs []cid.Cid, err error) {
	if len(value) > MaxRecordSize {
		return "", nil, fmt.Errorf("%d bytes, more than %d", len(value), MaxRecordSize)
	}
	in := inspector{cborReader: cborReader{value}}
	major, n, err := in.head()
	if err != nil {
		return "", nil, err
	}
	if major != majorMap {
		return "", nil, errors.New("not a map")
	}
	recordType, err = in.fields(n, 1)
	if err == nil && len(in.b) > 0 {
		err = errors.New("data after its end")
	}
	return recordType, in.blobs, err
}

// inspector walks through a record.
type inspector struct {
	cborReader
	blobs []cid.Cid
}

// item is what a map has to know of a value in it.
type item struct {
	text []byte // of a text string
	link []byte // CID of a link
}

func (in *inspector) item(depth int) (item, error) {
	major, arg, err := in.head()
	if err != nil {
		return item{}, err
	}
	switch major {
	case majorUint, majorNegative:
		if arg > maxInteger || major == majorNegative && arg >= maxInteger {
			return item{}, errors.New("integer of more than 53 bits")
		}
		return item{}, nil
	case majorBytes:
		_, err := in.take(arg)
		return item{}, err
	case majorText:
		text, err := in.take(arg)
		if err == nil && !utf8.Valid(text) {
			err = errors.New("text that is not UTF-8")
		}
		return item{text: text}, err
	case majorArray:
		return item{}, in.elements(arg, depth+1)
	case majorMap:
		_, err := in.fields(arg, depth+1)
		return item{}, err
	case majorTag:
		if arg != tagLink {
			return item{}, fmt.Errorf("tag %d", arg)
		}
		link, err := in.link()
		return item{link: link}, err
	}
	if arg != simpleFalse && arg != simpleTrue && arg != simpleNull {
		return item{}, fmt.Errorf("simple value %d", arg)
	}
	return item{}, nil
}

func (in *inspector) elements(n uint64, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("nested deeper than %d", maxNesting)
	}
	for range n {
		if _, err := in.item(depth); err != nil {
			return err
		}
	}
	return nil
}

// fields walks through a map, of which it returns the $type.
func (in *inspector) fields(n uint64, depth int) (mapType string, err error) {
	if depth > maxNesting {
		return "", fmt.Errorf("nested deeper than %d", maxNesting)
	}
	var before, ref []byte
	for i := range n {
		name, err := in.text()
		if err != nil {
			return "", err
		}
		if !utf8.Valid(name) {
			return "", errors.New("field name that is not UTF-8")
		}
		if i > 0 && !keysAscend(before, name) {
			return "", fmt.Errorf("field %.80q out of order", name)
		}
		before = name
		it, err := in.item(depth)
		if err != nil {
			return "", err
		}
		switch string(name) {
		case "$type":
			mapType = string(it.text)
		case "ref":
			ref = it.link
		}
	}
	if mapType == "blob" && ref != nil {
		c, err := cid.Cast(ref)
		if err != nil {
			return "", err
		}
		in.blobs = append(in.blobs, c)
	}
	return mapType, nil
}
