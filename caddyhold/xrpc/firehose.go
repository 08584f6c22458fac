package xrpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// How long a firehose consumer may stay silent or take nothing.
const (
	pingInterval = 30 * time.Second
	pingTimeout  = 30 * time.Second
	frameTimeout = 30 * time.Second
)

// maxConsumers bounds who follows the firehose at once.
const maxConsumers = 2000

// subscribeRepos answers com.atproto.sync.subscribeRepos, the firehose
// (https://atproto.com/specs/event-stream): a WebSocket of binary frames.
func (s *Server) subscribeRepos(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	cursor, err := firehoseCursor(q)
	if err != nil {
		return err
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return &Error{Status: http.StatusUpgradeRequired, Name: "InvalidRequest", Message: "this method is a WebSocket"}
	}
	if s.hold.Repo().Consumers() >= maxConsumers {
		return &Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "too many consumers", RetryAfter: retryAfter}
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // public data: any origin may read it
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil // Accept has answered
	}
	s.follow(conn, cursor)
	return nil
}

// firehoseCursor is nil for live events only.
func firehoseCursor(q params) (*int64, error) {
	if !q.has("cursor") {
		return nil, nil
	}
	n, err := strconv.ParseInt(q.get("cursor"), 10, 64)
	if err != nil || n < 0 {
		return nil, invalidRequest("cursor must be an integer of 0 or more")
	}
	return &n, nil
}

// follow sends events until somebody ends it. It outlives the configuration that the
// consumer came under, so it uses nothing of it but the repository and Done.
func (s *Server) follow(conn *websocket.Conn, cursor *int64) {
	// The end of a context closes a connection that is reading or writing under it without a
	// word, so the one that ends to say goodbye is Follow's alone.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	following, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		discard(ctx, conn)
	}()
	go func() {
		defer stop()
		ping(ctx, conn)
	}()
	go func() {
		select {
		case <-s.Done:
			stop()
		case <-following.Done():
		}
	}()

	var gone bool // the consumer, without a word
	err := s.hold.Repo().Follow(following, cursor, func(frame []byte) error {
		ctx, cancel := context.WithTimeout(ctx, frameTimeout)
		defer cancel()
		err := conn.Write(ctx, websocket.MessageBinary, frame)
		gone = err != nil
		return err
	})
	status, reason := websocket.StatusGoingAway, ""
	switch {
	case errors.Is(err, pds.ErrFutureCursor):
		status, reason = websocket.StatusPolicyViolation, "FutureCursor"
	case errors.Is(err, pds.ErrConsumerTooSlow):
		status, reason = websocket.StatusPolicyViolation, "ConsumerTooSlow"
	case errors.Is(err, pds.ErrClosed), s.closing():
		status, reason = websocket.StatusServiceRestart, "the hold restarts"
	case !gone && following.Err() == nil:
		s.Logger.Error("firehose failed", zap.Error(err))
		status = websocket.StatusInternalError
	}
	_ = conn.Close(status, reason)
}

func (s *Server) closing() bool {
	select {
	case <-s.Done:
		return true
	default:
		return false
	}
}

// discard reads, which answers pings and notices the end; consumers have nothing to say.
func discard(ctx context.Context, conn *websocket.Conn) {
	for {
		_, message, err := conn.Reader(ctx)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, message); err != nil {
			return
		}
	}
}

// ping notices a consumer that vanished without a word.
func ping(ctx context.Context, conn *websocket.Conn) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pong, cancel := context.WithTimeout(ctx, pingTimeout)
		err := conn.Ping(pong)
		cancel()
		if err != nil {
			return
		}
	}
}
