package caddyhold

import (
	"context"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/xrpc"
)

// holds keeps the open holds of this process, by canonical data directory. Each
// configuration that names one holds one reference.
var holds = caddy.NewUsagePool()

// How long the last configuration of a hold waits for what is under way: for requests before
// the database is closed under them, then for the database itself.
const (
	requestsTimeout = 10 * time.Second
	closeTimeout    = 5 * time.Second
)

// lasting is what a hold keeps from one configuration to the next.
type lasting struct {
	dataDir  string
	state    *hold.State
	log      *logSwitch
	metrics  *metrics
	memory   *xrpc.Memory
	requests requests      // of all configurations
	gone     chan struct{} // closed when no configuration names the hold any more
}

// openLasting returns the hold in a data directory, and opens it unless a configuration
// already has. The caller owes the pool one Delete if err is nil.
func openLasting(dataDir, publicURL, signingKey string, logger *zap.Logger) (*lasting, error) {
	value, _, err := holds.LoadOrNew(dataDir, func() (caddy.Destructor, error) {
		log := newLogSwitch(logger)
		state, err := hold.Open(hold.Options{
			DataDir:        dataDir,
			PublicURL:      publicURL,
			SigningKeyPath: signingKey,
			Logger:         log.logger(),
		})
		if err != nil {
			return nil, err
		}
		return &lasting{
			dataDir: dataDir,
			state:   state,
			log:     log,
			metrics: newMetrics(state.Repo()),
			memory:  xrpc.NewMemory(),
			gone:    make(chan struct{}),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*lasting), nil
}

// sameIdentity refuses a configuration that wants to be somebody else in the same data
// directory while the hold is open.
func (l *lasting) sameIdentity(publicURL, signingKey string) error {
	if open := l.state.PublicURL(); open != publicURL {
		return fmt.Errorf("public_url: it is %s and cannot change at a reload", open)
	}
	if open := l.state.SigningKeyPath(); open != signingKey {
		return fmt.Errorf("signing_key: it is %s and cannot change at a reload", open)
	}
	return nil
}

// Destruct closes the hold when the last configuration that names it has ended. WebSockets
// are told to go; other requests get some time to finish.
func (l *lasting) Destruct() error {
	close(l.gone)
	idle := make(chan struct{})
	l.requests.whenIdle(func() { close(idle) })
	select {
	case <-idle:
	case <-time.After(requestsTimeout):
		l.log.logger().Warn("closing the hold with requests under way", zap.String("did", l.state.DID()))
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := l.state.Close(ctx); err != nil {
		return fmt.Errorf("closing hold %s: %w", l.state.DID(), err)
	}
	l.log.logger().Info("hold closed: no configuration names it any more",
		zap.String("did", l.state.DID()), zap.String("data_dir", l.dataDir))
	return nil
}

// Interface guard
var _ caddy.Destructor = (*lasting)(nil)
