package caddyhold

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/xrpc"
)

// service is a hold as one configuration wants it. Requests find it through their handler,
// also after the configuration has ended.
type service struct {
	ctx     caddy.Context
	logger  *zap.Logger
	config  string // the handler's JSON
	handler *Handler
	storage Storage

	lasting        *lasting // nil until opened
	releaseStorage func() error
	hold           *hold.Hold
	server         *xrpc.Server
	requests       requests      // of this configuration
	ready          chan struct{} // closed when the configuration has started
}

func newService(ctx caddy.Context, h *Handler, storage Storage, config string) *service {
	return &service{
		ctx:     ctx,
		logger:  ctx.Logger(),
		config:  config,
		handler: h,
		storage: storage,
		ready:   make(chan struct{}),
	}
}

// open opens the hold and its storage, or joins those of an older configuration. What it
// got before an error, close gives back.
func (s *service) open() error {
	h := s.handler
	l, err := openLasting(h.DataDir, h.PublicURL, h.SigningKey, s.logger)
	if err != nil {
		return err
	}
	s.lasting = l
	if err := l.sameIdentity(h.PublicURL, h.SigningKey); err != nil {
		return err
	}
	driver, release, err := s.storage.OpenStorage(s.ctx, h.DataDir)
	if err != nil {
		return fmt.Errorf("opening storage: %w", err)
	}
	s.releaseStorage = release
	if err := l.metrics.register(s.ctx.GetMetricsRegistry()); err != nil {
		return err
	}

	blobService := blobs.New(blobs.Config{
		Store:       l.state.Blobs(),
		Driver:      driver,
		Presign:     *h.PresignedURLs,
		URLLifetime: time.Duration(h.URLLifetime),
		BaseURL:     h.PublicURL,
		UploadURL:   h.UploadURL,
		DID:         l.state.DID(),
		Logger:      s.logger,
	})
	s.hold = hold.New(l.state, hold.Config{
		Owner:  h.Owner,
		Policy: hold.Policy{Public: h.Access.Public, AllowAllCrew: h.Access.AllowAllCrew},
		Region: h.Region,
	}, blobService)
	s.server = xrpc.New(xrpc.Options{
		Hold:         s.hold,
		PLCDirectory: h.PLCDirectory,
		TestMode:     h.TestMode,
		StrictTokens: h.Access.TokenMethods == tokensStrict,
		Memory:       l.memory,
		Version:      version(),
		Logger:       s.logger,
		LogField:     logField,
		Done:         l.gone,
	})
	return nil
}

// started makes this configuration the one that counts.
func (s *service) started(ctx context.Context) {
	s.lasting.log.set(s.logger)
	s.lasting.metrics.storage.Store(s.hold.Blobs())
	if s.handler.TestMode {
		s.logger.Warn("test mode: identities on loopback are trusted; never use it on the internet",
			zap.String("public_url", s.handler.PublicURL))
	}
	if err := s.hold.SyncRecords(ctx); err != nil {
		s.logger.Error("writing the configuration to the hold's records",
			zap.String("did", s.lasting.state.DID()), zap.Error(err))
	}
	s.enter()
	go func() {
		defer s.leave()
		s.hold.Blobs().Run(s.ctx)
	}()
	close(s.ready)
	s.logger.Info("hold ready", zap.String("did", s.lasting.state.DID()), zap.String("public_url", s.handler.PublicURL))
}

// enter and leave enclose everything that uses the hold or its storage.
func (s *service) enter() {
	s.lasting.requests.enter()
	s.requests.enter()
}

func (s *service) leave() {
	s.requests.leave()
	s.lasting.requests.leave()
}

// await blocks until the configuration has started.
func (s *service) await(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return errors.New("the configuration was not started")
	}
}

// close gives back what open got. The storage stays open for requests under way.
func (s *service) close() error {
	if s.lasting == nil {
		return nil
	}
	if release := s.releaseStorage; release != nil {
		s.requests.whenIdle(func() {
			if err := release(); err != nil {
				s.logger.Error("closing storage", zap.Error(err))
			}
		})
	}
	_, err := holds.Delete(s.handler.DataDir)
	return err
}
