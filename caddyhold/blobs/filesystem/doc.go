// Package filesystem is the blobs driver that keeps everything below one
// directory.
//
// Blobs lie where an OCI registry of the distribution project keeps them
// (blobs.Key). An upload in progress has a directory caddyhold/uploads/<id>:
//
//	data            the parts that came in order, one after the other
//	journal         a line "<number> <etag>" for each part in data
//	part-<n>-<etag> a part that came before its turn
//	tmp-…           a part that is being received
//	blob            data, once the upload is assembled
//
// The next part in order is appended to data as it comes, and hashed on the way;
// others wait in files of their own. So a blob that is sent in order is written
// once and never read. The hash state before each part is kept in memory to
// return to; after a restart data is read again to regain it. An ETag is a
// CRC-32C and a size: what is read back later is compared with it.
//
// Parts are not synced, as only completion promises anything: Place syncs the
// file, links it to its final key and syncs the directories. Uploads survive a
// restart of the process; what a power failure has damaged is found by its
// checksum or its digest.
package filesystem
