package xrpc

import (
	"context"
	"io"
	"net/http"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// maxBlocks is how many blocks com.atproto.sync.getBlocks gives at once.
const maxBlocks = 200

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
	slices.Sort(names)
	var cids []cid.Cid
	for _, name := range slices.Compact(names) {
		c, err := cid.Decode(name)
		if err != nil {
			return invalidRequest("cids: %.80q is not a CID", name)
		}
		cids = append(cids, c)
	}
	return s.sendCAR(w, r, func(ctx context.Context, out io.Writer) error {
		return s.hold.Repo().Blocks(ctx, out, cids)
	})
}
