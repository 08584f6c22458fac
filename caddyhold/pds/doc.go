// Package pds keeps the ATProto repository of one account and serves what a
// personal data server has to say about it: records, signed commits, the
// firehose, CAR exports, proofs, the account's blobs, and its identity. It
// knows nothing of HTTP and nothing of what the records mean.
//
// # Writing
//
// [Repo.Update] runs a function with a [Tx]; all that it writes becomes one
// signed commit. One writer applies the functions of all callers, those that
// wait at the same time in one database transaction, so that they share the
// price of a durable write. That transaction holds the records, the nodes of
// the Merkle search tree, the commit, the firehose frame and whatever
// [Config.Index] makes of it: after a crash there is all of a commit or
// nothing of it. Nobody hears of a commit before it is durable.
//
// The tree (https://atproto.com/specs/repository) is never in memory as a
// whole. For a change only the nodes around the path of its key are loaded;
// what the commit replaced is removed with it, so that the database holds the
// nodes of the current tree and no others.
//
// # Reading
//
// Reads see the last durable commit, each in a snapshot of its own. Exports
// stream from the snapshot, in the order that lets a reader verify the
// repository without keeping it (a preorder walk).
//
// # The firehose
//
// Each event is encoded once and stored as the bytes of its WebSocket message
// (https://atproto.com/specs/event-stream, com.atproto.sync.subscribeRepos),
// under its sequence number. A consumer is a position in that log and nothing
// else: [Repo.Follow] reads on from there, whether the events are of last
// night or of this moment, so there is no cutover at which one could be lost
// or sent twice, and a slow consumer costs neither memory nor the writer's
// time. Events older than the retention are removed.
package pds
