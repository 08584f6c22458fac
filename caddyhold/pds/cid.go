package pds

import (
	"crypto/sha256"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// block is a piece of content-addressed data.
type block struct {
	cid  cid.Cid
	data []byte
}

// sum is the CID of data of a codec, cid.DagCBOR or cid.Raw.
func sum(codec uint64, data []byte) cid.Cid {
	hash := sha256.Sum256(data)
	return cid.NewCidV1(codec, append(multihash.Multihash{multihash.SHA2_256, sha256.Size}, hash[:]...))
}
