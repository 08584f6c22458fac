package pds

import (
	"bytes"
	"fmt"
	"io"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
)

// eventTime is how events tell the time.
const eventTime = "2006-01-02T15:04:05.000Z"

// body is what an event says, in DAG-CBOR.
type body interface {
	MarshalCBOR(w io.Writer) error
}

// frame is a message of the event stream: a header with op 1 and the event's
// type, and the body (https://atproto.com/specs/event-stream#framing).
func frame(eventType string, b body) ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte(majorMap<<5 | 2)
	writeText(&buf, "t")
	writeText(&buf, eventType)
	writeText(&buf, "op")
	buf.WriteByte(majorUint<<5 | 1)
	if err := b.MarshalCBOR(&buf); err != nil {
		return nil, fmt.Errorf("encoding a %s event: %w", eventType, err)
	}
	return buf.Bytes(), nil
}

// errorFrame is the last message of a stream that fails: op -1.
func errorFrame(name, message string) []byte {
	var buf bytes.Buffer
	buf.WriteByte(majorMap<<5 | 1)
	writeText(&buf, "op")
	buf.WriteByte(majorNegative << 5) // -1
	buf.WriteByte(majorMap<<5 | 2)
	writeText(&buf, "error")
	writeText(&buf, name)
	writeText(&buf, "message")
	writeText(&buf, message)
	return buf.Bytes()
}

// infoFrame is a #info message, which has no seq.
func infoFrame(name, message string) ([]byte, error) {
	return frame("#info", &comatproto.SyncSubscribeRepos_Info{Name: name, Message: &message})
}

// writeText writes a text string of less than 256 bytes.
func writeText(buf *bytes.Buffer, s string) {
	if len(s) < 24 {
		buf.WriteByte(majorText<<5 | byte(len(s)))
	} else {
		buf.Write([]byte{majorText<<5 | 24, byte(len(s))})
	}
	buf.WriteString(s)
}

// announce appends an event, with the next seq, to the log.
func (t *transaction) announce(eventType string, make func(seq int64, at string) body) error {
	now := t.repo.cfg.Now()
	seq := t.head.Seq + 1
	encoded, err := frame(eventType, make(seq, now.UTC().Format(eventTime)))
	if err != nil {
		return err
	}
	t.head.Seq = seq
	return t.store.appendEvent(seq, now, encoded)
}

func (t *transaction) announceIdentity() error {
	return t.announce("#identity", func(seq int64, at string) body {
		return &comatproto.SyncSubscribeRepos_Identity{
			Did: t.repo.cfg.DID.String(), Handle: &t.repo.cfg.Handle, Seq: seq, Time: at,
		}
	})
}

func (t *transaction) announceAccount() error {
	return t.announce("#account", func(seq int64, at string) body {
		return &comatproto.SyncSubscribeRepos_Account{
			Did: t.repo.cfg.DID.String(), Active: true, Seq: seq, Time: at,
		}
	})
}

// announceSync states the head, for consumers that cannot have followed.
func (t *transaction) announceSync() error {
	blocks := carFile(block{t.head.Commit, t.store.meta(commitName)}, nil, nil)
	return t.announce("#sync", func(seq int64, at string) body {
		return &comatproto.SyncSubscribeRepos_Sync{
			Did: t.repo.cfg.DID.String(), Blocks: blocks, Rev: t.head.Rev, Seq: seq, Time: at,
		}
	})
}

// announceCommit says what a commit changed, in a way that can be verified
// with the state before alone: its blocks are the commit, the changed part of
// the tree with what proves it, and the records that are new.
func (t *transaction) announceCommit(before Head, commit block, nodes []block, writes []*write) error {
	event := &comatproto.SyncSubscribeRepos_Commit{
		Repo:   t.repo.cfg.DID.String(),
		Commit: lexutil.LexLink(commit.cid),
		Rev:    t.head.Rev,
		Blocks: carFile(commit, nodes, writes),
		Ops:    make([]*comatproto.SyncSubscribeRepos_RepoOp, len(writes)),
		Blobs:  []lexutil.LexLink{},
	}
	if before.Commit.Defined() {
		event.Since = &before.Rev
		event.PrevData = (*lexutil.LexLink)(&before.Data)
	}
	for i, w := range writes {
		event.Ops[i] = &comatproto.SyncSubscribeRepos_RepoOp{
			Action: w.action(), Path: w.change.Path, Cid: optional(w.change.CID), Prev: optional(w.oldCID),
		}
	}
	return t.announce("#commit", func(seq int64, at string) body {
		event.Seq, event.Time = seq, at
		return event
	})
}

// optional is nil for no CID.
func optional(c cid.Cid) *lexutil.LexLink {
	if !c.Defined() {
		return nil
	}
	return (*lexutil.LexLink)(&c)
}
