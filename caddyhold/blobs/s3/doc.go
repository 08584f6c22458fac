// Package s3 is the blobs driver for Amazon S3 and what speaks its protocol,
// such as MinIO, Ceph RGW, R2, Garage, versitygw, and Google Cloud Storage with
// HMAC keys.
//
// An upload is a multipart upload to the staging key caddyhold/uploads/<id>
// below the prefix. UploadPart is the only request that is presigned for
// writing: once the upload is completed such a URL is dead, while a PutObject
// could replace what was verified.
//
// To verify and move an object at once it is copied with a SHA-256 checksum
// asked for, which the server computes and the driver compares. Not every
// server does that or does it right, so a self-test with a small object decides
// once for a driver. Where it fails, and above the 5 GiB that CopyObject is good
// for, the object is read and hashed before it is copied.
//
// Servers differ, so the driver asks for little: no checksums but that one, no
// listing of prefixes, no lifecycle rules, no conditional writes, no transfer
// encodings. The credentials need s3:ListBucket, without which a missing object
// cannot be told from a forbidden one.
package s3
