package caddyhold

import (
	"context"
	"net"

	"github.com/caddyserver/caddy/v2"
)

// addressNetwork is a network for the bind directive of a Caddyfile whose host is a whole
// address: bind atcr_hold/[{$HOLD_SERVER_ADDR}] listens on what HOLD_SERVER_ADDR says, such
// as :8080 or 127.0.0.1:8080. In the address of a site, Caddy would take a host for the one
// name that the site answers to, and bind alone would ignore the port. If the host is empty,
// the port of the site counts.
const addressNetwork = "atcr_hold"

func init() {
	caddy.RegisterNetwork(addressNetwork, listenOnAddress)
}

func listenOnAddress(ctx context.Context, _, address, sitePort string, offset uint, config net.ListenConfig) (any, error) {
	if address == "" {
		address = net.JoinHostPort("", sitePort)
	}
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil {
		return nil, err
	}
	return parsed.Listen(ctx, offset, config)
}
