package atcr

import (
	"bytes"
	"fmt"
	"io"

	"github.com/bluesky-social/indigo/atproto/atdata"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// Record is one of the types of this package.
type Record interface {
	cbg.CBORMarshaler
	cbg.CBORUnmarshaler
	Validate() error
}

// New returns an empty record of the type that a collection holds, or nil for a
// collection that is not one of this package.
func New(collection string) Record {
	switch collection {
	case CaptainCollection:
		return new(Captain)
	case CrewCollection:
		return new(Crew)
	case LayerCollection:
		return new(Layer)
	case StatsCollection:
		return new(Stats)
	}
	return nil
}

// Encode returns the DAG-CBOR of r after validating it.
func Encode(r Record) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := r.MarshalCBOR(&buf); err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	return buf.Bytes(), nil
}

// Decode reads the DAG-CBOR of a stored record into r. It does not validate: records that
// others wrote may be stricter or looser than this version's lexicons.
func Decode(value []byte, r Record) error {
	in := bytes.NewReader(value)
	if err := r.UnmarshalCBOR(in); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes after the record", ErrInvalid)
	}
	return nil
}

// Update returns the DAG-CBOR of r with the fields of stored that r's type does not
// know. A field that r's type knows and r leaves out is gone.
func Update(stored []byte, r Record) ([]byte, error) {
	value, err := Encode(r)
	if err != nil {
		return nil, err
	}
	fields, err := atdata.UnmarshalCBOR(value)
	if err != nil {
		return nil, fmt.Errorf("reading encoded record: %w", err)
	}
	old, err := atdata.UnmarshalCBOR(stored)
	if err != nil {
		return nil, fmt.Errorf("reading stored record: %w", err)
	}
	known := optionalFields(r)
	for name, v := range old {
		if _, set := fields[name]; !set && !known[name] {
			fields[name] = v
		}
	}
	return atdata.MarshalCBOR(fields)
}

// optionalFields names the fields of r that may be absent from its encoding; all
// others are always in it.
func optionalFields(r Record) map[string]bool {
	switch r.(type) {
	case *Captain:
		return map[string]bool{"region": true, "successor": true}
	case *Crew:
		return map[string]bool{"tier": true}
	case *Stats:
		return map[string]bool{"lastPull": true, "lastPush": true}
	}
	return nil
}
