// Package bench measures a hold that runs as a process, as clients meet it, each time beside a control: Caddy's respond
// directive in the same process, the distribution project's registry, or a loop that does only what no server can leave out.
//
// Every benchmark alternates between hold and controls for some rounds, and reports medians. The ratios (units that begin
// with x-) are what counts: they hold from machine to machine, and under other load, as rates do not. See README.md.
package bench
