// Package hold is the domain of an ATCR hold: who may do what with its blobs, and what
// pushes and pulls leave in its repository.
//
// It joins the ATProto repository of package pds with the blob store of package blobs,
// which know nothing of each other. Two values carry it:
//
//   - [State] is what outlives a configuration: the database, the repository, the blob
//     store's rows and the index below. There is one per data directory.
//   - [Hold] is a State seen through one configuration: its policy and its storage. It
//     is immutable; a new configuration makes a new one over the same State.
//
// The index (index.go) answers by one lookup what would else be a scan of records: the
// crew records of a member, the layer records of a manifest. It is written in the
// transaction of the commit that changes the records, whoever changes them, so it can
// not lag behind or outlive a crash.
package hold
