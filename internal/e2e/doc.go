// Package e2e tests the whole system from outside: Caddy with the hold as a process of its own, an AppView in front of it,
// and the registry clients that people use. Nothing here reaches into the product's packages.
//
// After each test, whatever it was about, the hold's firehose and repository are checked too: see finish.
package e2e
