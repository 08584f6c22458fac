// Package xrpc is the HTTP face of a hold: it turns requests to /xrpc/* and the well-known
// paths into calls on package hold, and answers and errors back into XRPC.
//
// [Server.ServeHTTP] finds the endpoint in the table in server.go. What it leads to is in
// a file for each concern: repo.go, sync.go, firehose.go and service.go for com.atproto.*,
// upload.go, manifest.go and crew.go for io.atcr.hold.*, blob.go for getBlob, which serves
// both kinds of blob. caller.go establishes who calls (token.go checks service tokens,
// issuer.go finds the key of who signed them, guard.go keeps those fetches off private
// networks), and errors.go is the one place where an error becomes a status and a name.
package xrpc
