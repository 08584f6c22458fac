// Package peer gives tests the real programs that a hold must get along with: S3 servers, registry clients, ATProto
// checkers.
//
// The programs come from tools/go.mod, which pins their versions. [Tool] builds each once per machine and version, into the
// user's cache directory, so a test needs nothing but Go and a module proxy. A program that cannot be built fails the test
// that asked for it: a suite that silently skips its peers proves nothing.
//
// Servers ([Versitygw]) listen on loopback, keep their data in the test's temporary directory and end with the test.
package peer
