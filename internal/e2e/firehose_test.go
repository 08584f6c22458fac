package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/coder/websocket"
	cbg "github.com/whyrusleeping/cbor-gen"
)

// firehose follows a hold's subscribeRepos from the first event on, over its restarts, and checks each frame.
type firehose struct {
	mu     sync.Mutex
	seq    int64
	rev    string   // of the last commit
	data   string   // root of the tree after the last commit
	kinds  []string // of all frames
	faults []error
}

// follow follows until the test ends.
func follow(t *testing.T, h *hold) *firehose {
	t.Helper()
	f := new(firehose)
	ctx, cancel := context.WithCancel(context.Background()) // until the cleanup, which still needs it
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			f.read(ctx, h) // ends when the hold does
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

func (f *firehose) read(ctx context.Context, h *hold) {
	transport, err := h.transport()
	if err != nil {
		return
	}
	transport.ForceAttemptHTTP2 = false // WebSockets are HTTP/1.1
	defer transport.CloseIdleConnections()
	f.mu.Lock()
	address := fmt.Sprintf("%s/xrpc/com.atproto.sync.subscribeRepos?cursor=%d", h.url, f.seq)
	f.mu.Unlock()
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(5 << 20)
	for {
		kind, frame, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if kind != websocket.MessageBinary {
			err = errors.New("a text frame")
		} else {
			err = f.take(ctx, frame)
		}
		if err != nil {
			f.mu.Lock()
			f.faults = append(f.faults, fmt.Errorf("frame after seq %d: %w", f.seq, err))
			f.mu.Unlock()
			return
		}
	}
}

// take checks a frame.
func (f *firehose) take(ctx context.Context, frame []byte) error {
	body := bytes.NewReader(frame)
	var raw cbg.Deferred
	if err := raw.UnmarshalCBOR(body); err != nil {
		return fmt.Errorf("reading header: %w", err)
	}
	header, err := atdata.UnmarshalCBOR(raw.Raw)
	if err != nil {
		return fmt.Errorf("decoding header: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, _ := header["t"].(string)
	f.kinds = append(f.kinds, kind)
	switch kind {
	case "#commit":
		var commit comatproto.SyncSubscribeRepos_Commit
		if err := commit.UnmarshalCBOR(body); err != nil {
			return err
		}
		return errors.Join(f.advance(commit.Seq), f.takeCommit(ctx, &commit))
	case "#sync":
		var event comatproto.SyncSubscribeRepos_Sync
		return errors.Join(event.UnmarshalCBOR(body), f.advance(event.Seq))
	case "#identity":
		var event comatproto.SyncSubscribeRepos_Identity
		return errors.Join(event.UnmarshalCBOR(body), f.advance(event.Seq))
	case "#account":
		var event comatproto.SyncSubscribeRepos_Account
		return errors.Join(event.UnmarshalCBOR(body), f.advance(event.Seq))
	}
	return fmt.Errorf("unexpected header %v", header)
}

func (f *firehose) advance(seq int64) error {
	if seq <= f.seq {
		return fmt.Errorf("seq %d after %d", seq, f.seq)
	}
	f.seq = seq
	return nil
}

// takeCommit checks that a commit proves itself and follows the one before.
func (f *firehose) takeCommit(ctx context.Context, commit *comatproto.SyncSubscribeRepos_Commit) error {
	tree, err := repo.VerifyCommitMessage(ctx, commit)
	if err != nil {
		return fmt.Errorf("verifying commit %s: %w", commit.Rev, err)
	}
	if f.rev != "" {
		if commit.Since == nil || *commit.Since != f.rev {
			return fmt.Errorf("commit %s does not follow %s", commit.Rev, f.rev)
		}
		if commit.PrevData == nil || commit.PrevData.String() != f.data {
			return fmt.Errorf("commit %s: prevData is not %s", commit.Rev, f.data)
		}
	}
	root, err := tree.MST.RootCID()
	if err != nil {
		return err
	}
	f.rev, f.data = commit.Rev, root.String()
	return nil
}

// waitFor waits until the commit with this rev has come and returns what was wrong with any frame.
func (f *firehose) waitFor(rev string, limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		seen, faults := f.rev, errors.Join(f.faults...)
		if len(f.kinds) >= 4 && !slices.Equal(f.kinds[:4], []string{"#identity", "#account", "#commit", "#sync"}) {
			faults = errors.Join(faults, fmt.Errorf("a new repository is announced with %s", f.kinds[:4]))
		}
		f.mu.Unlock()
		switch {
		case faults != nil:
			return faults
		case seen >= rev: // TIDs sort by time
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the firehose is at %s, the repository at %s", seen, rev)
		}
	}
}
