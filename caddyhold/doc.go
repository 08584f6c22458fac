// Package caddyhold makes a hold out of Caddy: the storage service of the ATProto Container
// Registry, which keeps container images for its users and is an ATProto repository itself.
//
// It is glue and nothing else. The handler http.handlers.atcr_hold carries the whole
// configuration of one hold (see [Handler]); the app atcr_hold, which needs no configuration
// of its own, opens what the handlers of a configuration ask for (see [App]); modules in the
// namespace atcr_hold.storage say where blobs are kept (see [Storage]).
//
// Caddy starts a new configuration before it stops the old one, and lets requests of the old
// one finish. So a hold's database, repository, firehose and open uploads live in a pool,
// under the hold's data directory, as long as one configuration names it; what a
// configuration decides (who may do what, where blobs go) lives in an immutable value beside
// it. Provisioning opens nothing, which is why a configuration can be validated while
// another process runs the hold, and why one that fails to start changes nothing.
package caddyhold
