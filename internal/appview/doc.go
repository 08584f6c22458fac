// Package appview stands in for an ATCR AppView: an OCI registry that keeps manifests itself and everything else in a hold,
// whose XRPC it speaks as the AppViews in use do. Registry clients push and pull through it in tests.
//
// Its habits are those that a hold has to cope with. It fetches one service token and uses it for every call while it
// lives. It opens an upload before it knows the digest, under a placeholder. It streams parts of 10 MiB to the URLs that it
// is given, without Authorization and without the headers that came with them. It asks for a URL of a blob and redirects
// the client there. It announces a manifest after a push, and after each pull.
//
// Where an AppView would log and go on, it is strict: what the hold refuses, the client gets as an error.
package appview
