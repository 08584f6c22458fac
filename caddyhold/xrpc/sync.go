package xrpc

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"go.uber.org/zap"
)

// Bounds of com.atproto.sync queries.
const (
	maxBlocks      = 1000
	carChunk       = 64 << 10
	carWriteStall  = 30 * time.Second // a client that takes nothing for so long is gone
	carTimeout     = time.Hour
	carContentType = "application/vnd.ipld.car"
)

// checkDID compares the parameter did of com.atproto.sync.* with the repository here.
func (s *Server) checkDID(q params) error {
	did, err := q.required("did")
	if err != nil {
		return err
	}
	if !s.isRepo(did) {
		return &Error{Status: http.StatusBadRequest, Name: "RepoNotFound", Message: "this hold has only its own repository: " + s.hold.State().DID()}
	}
	return nil
}

// syncParameters are those of a query about the repository.
func (s *Server) syncParameters(r *http.Request) (params, error) {
	q, err := parameters(r)
	if err != nil {
		return nil, err
	}
	if since := q.get("since"); since != "" {
		if _, err := syntax.ParseTID(since); err != nil {
			return nil, invalidRequest("since is not a rev")
		}
	}
	return q, s.checkDID(q)
}

// listRepos answers com.atproto.sync.listRepos: there is one.
func (s *Server) listRepos(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	if _, err := q.limit(500, 1000); err != nil {
		return err
	}
	type repo struct {
		DID    string `json:"did"`
		Head   string `json:"head"`
		Rev    string `json:"rev"`
		Active bool   `json:"active"`
	}
	repos := []repo{}
	if q.get("cursor") == "" {
		head := s.hold.Repo().Head()
		repos = append(repos, repo{s.hold.State().DID(), head.Commit.String(), head.Rev, true})
	}
	return answer(w, map[string]any{"repos": repos})
}

// getLatestCommit answers com.atproto.sync.getLatestCommit.
func (s *Server) getLatestCommit(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.syncParameters(r); err != nil {
		return err
	}
	head := s.hold.Repo().Head()
	return answer(w, commitView{CID: head.Commit.String(), Rev: head.Rev})
}

// getRepoStatus answers com.atproto.sync.getRepoStatus.
func (s *Server) getRepoStatus(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.syncParameters(r); err != nil {
		return err
	}
	return answer(w, map[string]any{
		"did": s.hold.State().DID(), "active": true, "rev": s.hold.Repo().Head().Rev,
	})
}

// listBlobs answers com.atproto.sync.listBlobs: the blobs that records refer to.
func (s *Server) listBlobs(w http.ResponseWriter, r *http.Request) error {
	q, err := s.syncParameters(r)
	if err != nil {
		return err
	}
	limit, err := q.limit(500, 1000)
	if err != nil {
		return err
	}
	page, cursor, err := s.hold.Repo().Blobs(q.get("since"), q.get("cursor"), limit)
	if err != nil {
		return err
	}
	cids := make([]string, 0, len(page))
	for _, c := range page {
		cids = append(cids, c.String())
	}
	return answer(w, struct {
		Cursor string   `json:"cursor,omitempty"`
		CIDs   []string `json:"cids"`
	}{cursor, cids})
}

// getRepo answers com.atproto.sync.getRepo with a CAR.
func (s *Server) getRepo(w http.ResponseWriter, r *http.Request) error {
	q, err := s.syncParameters(r)
	if err != nil {
		return err
	}
	return s.sendCAR(w, r, func(ctx context.Context, out io.Writer) error {
		return s.hold.Repo().Export(ctx, out, q.get("since"))
	})
}

// getRecordProof answers com.atproto.sync.getRecord: a record with the proof that it is in
// the repository, or the proof that it is not.
func (s *Server) getRecordProof(w http.ResponseWriter, r *http.Request) error {
	q, err := s.syncParameters(r)
	if err != nil {
		return err
	}
	path, err := recordPath(q.get("collection"), q.get("rkey"))
	if err != nil {
		return err
	}
	return s.sendCAR(w, r, func(ctx context.Context, out io.Writer) error {
		return s.hold.Repo().Proof(ctx, out, path)
	})
}

// getBlocks answers com.atproto.sync.getBlocks with a CAR.
func (s *Server) getBlocks(w http.ResponseWriter, r *http.Request) error {
	q, err := s.syncParameters(r)
	if err != nil {
		return err
	}
	names := q["cids"]
	if len(names) == 0 || len(names) > maxBlocks {
		return invalidRequest("cids must name 1 to %d blocks", maxBlocks)
	}
	cids := make([]cid.Cid, len(names))
	for i, name := range names {
		if cids[i], err = cid.Decode(name); err != nil {
			return invalidRequest("cids: %.80q is not a CID", name)
		}
	}
	return s.sendCAR(w, r, func(ctx context.Context, out io.Writer) error {
		return s.hold.Repo().Blocks(ctx, out, cids)
	})
}

// sendCAR streams what write writes. An error before the first chunk is answered; after it
// the connection is cut, so that a broken CAR never looks like a whole one. While it runs
// the database cannot be closed, so it ends when the hold goes away, and how many run at
// once is bounded.
func (s *Server) sendCAR(w http.ResponseWriter, r *http.Request, write func(context.Context, io.Writer) error) error {
	select {
	case s.Memory.exports <- struct{}{}:
		defer func() { <-s.Memory.exports }()
	default:
		return &Error{Status: http.StatusServiceUnavailable, Name: "ServiceUnavailable", Message: "too many exports are under way", RetryAfter: retryAfter}
	}
	ctx, cancel := context.WithTimeout(r.Context(), carTimeout)
	defer cancel()
	out := &stream{w: w, control: http.NewResponseController(w), discard: r.Method == http.MethodHead}
	ended := make(chan struct{})
	defer func() { close(ended); out.unlimited() }()
	go func() {
		select {
		case <-s.Done:
			cancel()
			out.cut()
		case <-ended:
		}
	}()

	w.Header().Set("Content-Type", carContentType)
	err := write(ctx, out)
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		return nil
	}
	if !out.started {
		return err
	}
	if r.Context().Err() == nil && out.err == nil {
		s.Logger.Error("export failed", zap.String("path", r.URL.Path), zap.Error(err))
	}
	panic(http.ErrAbortHandler)
}

// stream gathers small writes into chunks, each with its own deadline, so that a client
// may be slow but not stop.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	discard bool // the request was HEAD
	buf     []byte
	started bool
	err     error // of sending

	mu  sync.Mutex // orders deadlines
	end bool       // no more deadlines but the one that has passed
}

// Write buffers p and sends full chunks.
func (s *stream) Write(p []byte) (int, error) {
	if s.buf == nil {
		s.buf = make([]byte, 0, carChunk)
	}
	if len(s.buf)+len(p) > carChunk {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) >= carChunk {
		return len(p), s.send(p)
	}
	s.buf = append(s.buf, p...)
	return len(p), nil
}

func (s *stream) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	err := s.send(s.buf)
	s.buf = s.buf[:0]
	return err
}

func (s *stream) send(p []byte) error {
	if s.discard {
		return nil
	}
	s.started = true
	s.deadline(time.Now().Add(carWriteStall))
	_, s.err = s.w.Write(p)
	return s.err
}

// deadline bounds the next write. Where a server has no deadlines to set, its own apply.
func (s *stream) deadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end {
		_ = s.control.SetWriteDeadline(t)
	}
}

// cut ends a write that is under way, and all that follow.
func (s *stream) cut() {
	s.deadline(time.Now().Add(-time.Second))
	s.mu.Lock()
	s.end = true
	s.mu.Unlock()
}

// unlimited takes the deadline from the connection, which serves other requests next.
func (s *stream) unlimited() { s.deadline(time.Time{}) }
