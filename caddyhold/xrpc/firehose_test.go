package xrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/coder/websocket"
	cbor "github.com/ipfs/go-ipld-cbor"

	"github.com/caddyhold/caddyhold/caddyhold/hold"
)

// consumer is a WebSocket on subscribeRepos.
type consumer struct {
	t    *testing.T
	ctx  context.Context
	conn *websocket.Conn
}

func (h *harbour) follow(t *testing.T, query string, o *websocket.DialOptions) *consumer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, strings.Replace(h.url, "http", "ws", 1)+"/xrpc/com.atproto.sync.subscribeRepos"+query, o)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(8 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &consumer{t, ctx, conn}
}

// next reads a frame; the type is that of its header.
func (c *consumer) next() (kind string, body []byte) {
	c.t.Helper()
	messageType, frame, err := c.conn.Read(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if messageType != websocket.MessageBinary {
		c.t.Fatalf("a frame of type %v", messageType)
	}
	for _, known := range []string{"#commit", "#sync", "#identity", "#account", "#info"} {
		header, err := cbor.DumpObject(map[string]any{"t": known, "op": 1})
		if err != nil {
			c.t.Fatal(err)
		}
		if rest, ok := bytes.CutPrefix(frame, header); ok {
			return known, rest
		}
	}
	return "error", frame
}

func (c *consumer) nextCommit() *comatproto.SyncSubscribeRepos_Commit {
	c.t.Helper()
	kind, body := c.next()
	if kind != "#commit" {
		c.t.Fatalf("%s %x, want #commit", kind, body)
	}
	commit := new(comatproto.SyncSubscribeRepos_Commit)
	if err := commit.UnmarshalCBOR(bytes.NewReader(body)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := repo.VerifyCommitMessage(c.ctx, commit); err != nil {
		c.t.Errorf("commit %s: %v", commit.Rev, err)
	}
	return commit
}

func (h *harbour) note(rkey string) {
	h.t.Helper()
	h.works(h.post(h.admin, "com.atproto.repo.putRecord", map[string]any{
		"repo": h.did, "collection": "com.example.note", "rkey": rkey, "record": map[string]any{"at": time.Now().UnixNano() % 1e9},
	}))
}

func TestFirehoseReplaysAndGoesOnLive(t *testing.T) {
	h := open(t, hold.Policy{})
	c := h.follow(t, "?cursor=0", nil)
	for _, want := range []string{"#identity", "#account", "#commit", "#sync"} {
		if kind, _ := c.next(); kind != want {
			t.Fatalf("%s, want %s", kind, want)
		}
	}
	for range 4 { // captain and first crew record; three more crew records
		c.nextCommit()
	}
	h.note("one")
	last := c.nextCommit()
	if len(last.Ops) != 1 || last.Ops[0].Path != "com.example.note/one" || last.Ops[0].Action != "create" {
		t.Errorf("ops %+v", last.Ops)
	}

	resumed := h.follow(t, fmt.Sprintf("?cursor=%d", last.Seq), nil)
	live := h.follow(t, "", nil)
	for h.state.Repo().Consumers() < 3 { // the upgrade is answered before it follows
		time.Sleep(time.Millisecond)
	}
	h.note("two")
	for _, c := range []*consumer{c, resumed, live} {
		if got := c.nextCommit(); got.Seq != last.Seq+1 || got.Since == nil || *got.Since != last.Rev || got.PrevData == nil {
			t.Errorf("seq %d since %v, want what follows %d %s", got.Seq, got.Since, last.Seq, last.Rev)
		}
	}
}

func TestFirehoseCursors(t *testing.T) {
	h := open(t, hold.Policy{})
	future := h.follow(t, "?cursor=9000000000000000", nil)
	if kind, frame := future.next(); kind != "error" || !bytes.Contains(frame, []byte("FutureCursor")) {
		t.Errorf("%s %q, want an error frame", kind, frame)
	}
	if _, _, err := future.conn.Read(future.ctx); websocket.CloseStatus(err) == -1 {
		t.Errorf("after the error frame: %v, want a close", err)
	}
	outdated := h.follow(t, "?cursor=1", nil)
	if kind, frame := outdated.next(); kind != "#info" || !bytes.Contains(frame, []byte("OutdatedCursor")) {
		t.Errorf("%s %q, want #info", kind, frame)
	}
	if kind, _ := outdated.next(); kind != "#identity" {
		t.Errorf("%s after #info, want the oldest event", kind)
	}
}

func TestFirehoseIgnoresWhatConsumersSayAndWhereTheyComeFrom(t *testing.T) {
	h := open(t, hold.Policy{})
	c := h.follow(t, "", &websocket.DialOptions{HTTPHeader: map[string][]string{"Origin": {"https://else.where"}}})
	for range 3 {
		if err := c.conn.Write(c.ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	for h.state.Repo().Consumers() < 1 {
		time.Sleep(time.Millisecond)
	}
	h.note("one")
	c.nextCommit()
}

func TestFirehoseConsumersAreToldOfARestart(t *testing.T) {
	h := open(t, hold.Policy{})
	c := h.follow(t, "", nil)
	for h.state.Repo().Consumers() < 1 {
		time.Sleep(time.Millisecond)
	}
	h.configure(hold.Policy{Public: true}, false) // a reload is not one: it makes a commit
	c.nextCommit()
	close(h.done)
	if _, _, err := c.conn.Read(c.ctx); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("%v, want status 1012", err)
	}
}
