package caddyhold

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

func init() {
	caddy.RegisterModule(App{})
}

const appID = "atcr_hold"

// App opens the holds that the handlers of a configuration name when that configuration
// starts, and lets go of them when it ends. It has no configuration of its own and need not
// be named in one: the handlers bring it.
type App struct {
	services map[string]*service // by canonical data directory
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appID,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision asks to be told when the configuration has started.
func (a *App) Provision(ctx caddy.Context) error {
	a.services = make(map[string]*service)
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	return events.(*caddyevents.App).On("started", a)
}

// register notes that handler h wants a hold. Handlers with the same data directory share
// one, if their configurations, in JSON, are identical.
func (a *App) register(ctx caddy.Context, h *Handler, storage Storage, config string) (*service, error) {
	s, found := a.services[h.DataDir]
	switch {
	case !found:
		s = newService(ctx, h, storage, config)
		a.services[h.DataDir] = s
	case s.config != config:
		return nil, fmt.Errorf("data_dir %s: named by two handlers with different configurations", h.DataDir)
	}
	return s, nil
}

// Start opens the holds. Nothing that others can see changes yet: that waits for the event.
func (a *App) Start() error {
	for dir, s := range a.services {
		if err := s.open(); err != nil {
			return fmt.Errorf("opening hold %s in %s: %w", s.handler.PublicURL, dir, err)
		}
	}
	return nil
}

// Handle receives Caddy's event that all apps have started: from here on the configuration
// counts.
func (a *App) Handle(ctx context.Context, _ caddy.Event) error {
	for _, s := range a.services {
		s.started(ctx)
	}
	return nil
}

// Stop does nothing: requests go on until their servers have shut down.
func (a *App) Stop() error { return nil }

// Cleanup lets go of exactly what Start opened.
func (a *App) Cleanup() error {
	var errs []error
	for _, s := range a.services {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = (*App)(nil)
)
