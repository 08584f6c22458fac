// Package blobs keeps the content-addressed blobs of container images: it
// receives them in parts, verifies them against their digest, and hands them
// out as bytes or as URLs that are good for a while.
//
// A [Store] is the lasting half: upload sessions, one row for each verified
// blob, who uploaded what, and the key that signs the hold's own URLs, all in
// buckets named "blobs.…" of a bbolt database. A [Service] is one
// configuration's view of it: a [Driver] that keeps the bytes (a directory, an
// S3 bucket), and how URLs are made. Several services may use one store at the
// same time, as they do while a configuration replaces another.
//
// # The life of a blob
//
// Initiate writes a session row that belongs to the caller. Parts are written
// to a staging place that nobody can guess or read. Complete puts the parts
// together (and records that), has the driver verify the content and move it
// to its final key, and only then writes the blob's row, in the same
// transaction that ends the session. Each step can be repeated: after a crash
// the client may complete again, and [Service.Run] completes what was put
// together but not verified.
//
// Whatever has no row does not exist: no size, no bytes and no URL are given
// for it. An object that is found at a final key without a row, as after
// pointing a hold at an existing registry's bucket, is hashed once before it
// is trusted. Rows belong to one storage (Driver.Identity); another storage
// starts without any.
//
// At most one call at a time works on a session's end, and one on a digest's
// final key; the key of a verified blob is never written to.
package blobs
