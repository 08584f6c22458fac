package xrpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"github.com/caddyhold/caddyhold/caddyhold/atcr"
	"github.com/caddyhold/caddyhold/caddyhold/hold"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// maxWrites is how many records com.atproto.repo.applyWrites changes at once.
const maxWrites = 200

// checkRepo compares the parameter repo of com.atproto.repo.* with the repository here.
func (s *Server) checkRepo(repo string) error {
	switch {
	case repo == "":
		return invalidRequest("repo is missing")
	case !s.isRepo(repo):
		return &Error{Status: http.StatusBadRequest, Name: "RepoNotFound", Message: "this hold has only its own repository: " + s.hold.State().DID()}
	}
	return nil
}

// describeRepo answers com.atproto.repo.describeRepo.
func (s *Server) describeRepo(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	if err := s.checkRepo(q.get("repo")); err != nil {
		return err
	}
	doc, err := s.document()
	if err != nil {
		return err
	}
	collections, err := s.hold.Repo().Collections()
	if err != nil {
		return err
	}
	return answer(w, map[string]any{
		"handle":          s.hold.Repo().Handle(),
		"did":             s.hold.State().DID(),
		"didDoc":          json.RawMessage(doc),
		"collections":     append([]string{}, collections...),
		"handleIsCorrect": true,
	})
}

// recordView is a record as com.atproto.repo answers show it.
type recordView struct {
	URI   string         `json:"uri"`
	CID   string         `json:"cid"`
	Value map[string]any `json:"value"`
}

func (s *Server) view(r pds.Record) (recordView, error) {
	value, err := atdata.UnmarshalCBOR(r.Value)
	if err != nil {
		return recordView{}, fmt.Errorf("reading stored record %s: %w", r.Path, err)
	}
	return recordView{URI: s.uri(r.Path), CID: r.CID.String(), Value: value}, nil
}

func (s *Server) uri(path string) string { return "at://" + s.hold.State().DID() + "/" + path }

// getRecord answers com.atproto.repo.getRecord.
func (s *Server) getRecord(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	if err := s.checkRepo(q.get("repo")); err != nil {
		return err
	}
	path, err := recordPath(q.get("collection"), q.get("rkey"))
	if err != nil {
		return err
	}
	record, err := s.hold.Repo().Record(path)
	if errors.Is(err, pds.ErrRecordNotFound) || err == nil && q.get("cid") != "" && q.get("cid") != record.CID.String() {
		return &Error{Status: http.StatusBadRequest, Name: "RecordNotFound", Message: "Could not locate record: " + s.uri(path)}
	}
	if err != nil {
		return err
	}
	view, err := s.view(record)
	if err != nil {
		return err
	}
	return answer(w, view)
}

func recordPath(collection, rkey string) (string, error) {
	if _, err := syntax.ParseNSID(collection); err != nil {
		return "", invalidRequest("collection is not an NSID")
	}
	if _, err := syntax.ParseRecordKey(rkey); err != nil {
		return "", invalidRequest("rkey is not a record key")
	}
	return collection + "/" + rkey, nil
}

// listRecords answers com.atproto.repo.listRecords, newest record key first.
func (s *Server) listRecords(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r)
	if err != nil {
		return err
	}
	if err := s.checkRepo(q.get("repo")); err != nil {
		return err
	}
	collection := q.get("collection")
	if _, err := syntax.ParseNSID(collection); err != nil {
		return invalidRequest("collection is not an NSID")
	}
	limit, err := q.limit(50, 100)
	if err != nil {
		return err
	}
	reverse, err := q.boolean("reverse")
	if err != nil {
		return err
	}
	page, cursor, err := s.hold.Repo().Records(collection, pds.ListOptions{Limit: limit, Cursor: q.get("cursor"), Reverse: reverse})
	if err != nil {
		return err
	}
	views := make([]recordView, 0, len(page))
	for _, record := range page {
		view, err := s.view(record)
		if err != nil {
			return err
		}
		views = append(views, view)
	}
	return answer(w, struct {
		Cursor  string       `json:"cursor,omitempty"`
		Records []recordView `json:"records"`
	}{cursor, views})
}

// write is one change that com.atproto.repo.* asks for.
type write struct {
	Type       string          `json:"$type"` // of applyWrites: com.atproto.repo.applyWrites#create, …
	Collection string          `json:"collection"`
	Rkey       string          `json:"rkey"`
	Record     json.RawMessage `json:"record"`     // of createRecord and putRecord
	Value      json.RawMessage `json:"value"`      // of applyWrites
	SwapRecord json.RawMessage `json:"swapRecord"` // absent, null (there must be none) or a CID

	action  action
	value   []byte // DAG-CBOR; nil for a delete
	checked bool   // by a lexicon that this hold knows
}

type action string

const (
	createAction action = "create"
	updateAction action = "update" // the record must be there
	putAction    action = "put"    // create or update
	deleteAction action = "delete"
)

// prepare checks everything about a write that does not depend on what is stored.
func (s *Server) prepare(wr *write) error {
	rkey := wr.Rkey
	if rkey == "" && wr.action == createAction {
		rkey = "-" // chosen later
	}
	path, err := recordPath(wr.Collection, rkey)
	if err != nil {
		return err
	}
	if wr.action != deleteAction {
		if wr.value, err = encodeRecord(wr.Collection, wr.Record); err != nil {
			return err
		}
		wr.checked = atcr.New(wr.Collection) != nil
	}
	return s.hold.CheckWrite(path, wr.value)
}

// encodeRecord turns a record's JSON into DAG-CBOR. $type may be left out.
func encodeRecord(collection string, raw json.RawMessage) ([]byte, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, invalidRequest("record is missing")
	}
	record, err := atdata.UnmarshalJSON(raw)
	if err != nil {
		return nil, invalidRequest("record is not of ATProto's data model: %s", err)
	}
	if _, ok := record["$type"]; !ok {
		record["$type"] = collection
	}
	value, err := atdata.MarshalCBOR(record)
	if err != nil {
		return nil, invalidRequest("record can not be encoded: %s", err)
	}
	return value, nil
}

// written is what became of a write.
type written struct {
	Type             string `json:"$type,omitempty"`
	URI              string `json:"uri,omitempty"`
	CID              string `json:"cid,omitempty"`
	ValidationStatus string `json:"validationStatus,omitempty"` // valid or unknown
}

// commitView names the commit that a write made.
type commitView struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

// apply makes one commit of the writes. The commitView is nil where nothing changed.
func (s *Server) apply(r *http.Request, writes []write, swapCommit string) ([]written, *commitView, error) {
	for i := range writes {
		if err := s.prepare(&writes[i]); err != nil {
			return nil, nil, err
		}
	}
	var results []written
	var before string
	head, err := s.hold.Repo().Update(r.Context(), func(tx *pds.Tx) error {
		results = results[:0]
		before = tx.Head().Rev
		if swapCommit != "" && swapCommit != tx.Head().Commit.String() {
			return fmt.Errorf("%w: the commit is %s", pds.ErrInvalidSwap, tx.Head().Commit)
		}
		for _, wr := range writes {
			done, err := s.applyOne(tx, wr)
			if err != nil {
				return err
			}
			results = append(results, done)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if head.Rev == before {
		return results, nil, nil
	}
	return results, &commitView{CID: head.Commit.String(), Rev: head.Rev}, nil
}

func (s *Server) applyOne(tx *pds.Tx, wr write) (written, error) {
	path := wr.Collection + "/" + wr.Rkey
	if wr.Rkey == "" {
		path = hold.NewPath(tx, wr.Collection, wr.value)
	}
	if err := checkSwap(tx, path, wr.SwapRecord); err != nil {
		return written{}, err
	}
	var id cid.Cid
	var err error
	switch wr.action {
	case deleteAction:
		return written{}, tx.Delete(path)
	case createAction:
		id, err = tx.Create(path, wr.value)
	case updateAction:
		if _, err = tx.Get(path); err == nil {
			id, err = tx.Put(path, wr.value)
		}
	case putAction:
		id, err = tx.Put(path, wr.value)
	}
	if err != nil {
		return written{}, err
	}
	done := written{URI: s.uri(path), CID: id.String(), ValidationStatus: "unknown"}
	if wr.checked {
		done.ValidationStatus = "valid"
	}
	return done, nil
}

// checkSwap compares what is stored with what the caller believes is.
func checkSwap(tx *pds.Tx, path string, swap json.RawMessage) error {
	if len(swap) == 0 {
		return nil
	}
	var want *string
	if err := json.Unmarshal(swap, &want); err != nil {
		return invalidRequest("swapRecord must be a CID or null")
	}
	record, err := tx.Get(path)
	switch {
	case errors.Is(err, pds.ErrRecordNotFound):
		if want != nil {
			return fmt.Errorf("%w: there is no record", pds.ErrInvalidSwap)
		}
		return nil
	case err != nil:
		return err
	case want == nil || *want != record.CID.String():
		return fmt.Errorf("%w: the record is %s", pds.ErrInvalidSwap, record.CID)
	}
	return nil
}

// writeInput is the input of createRecord, putRecord and deleteRecord.
type writeInput struct {
	Repo       string `json:"repo"`
	SwapCommit string `json:"swapCommit"`
	write
}

// writeRecord serves the three of them.
func (s *Server) writeRecord(w http.ResponseWriter, r *http.Request, a action) error {
	if _, err := s.authorize(r, hold.Administer); err != nil {
		return err
	}
	var in writeInput
	if err := readJSON(w, r, maxRecordInput, &in); err != nil {
		return err
	}
	if err := s.checkRepo(in.Repo); err != nil {
		return err
	}
	in.action = a
	results, commit, err := s.apply(r, []write{in.write}, in.SwapCommit)
	if err != nil {
		return err
	}
	return answer(w, struct {
		written
		Commit *commitView `json:"commit,omitempty"`
	}{results[0], commit})
}

// createRecord answers com.atproto.repo.createRecord.
func (s *Server) createRecord(w http.ResponseWriter, r *http.Request) error {
	return s.writeRecord(w, r, createAction)
}

// putRecord answers com.atproto.repo.putRecord.
func (s *Server) putRecord(w http.ResponseWriter, r *http.Request) error {
	return s.writeRecord(w, r, putAction)
}

// deleteRecord answers com.atproto.repo.deleteRecord; an absent record is no error.
func (s *Server) deleteRecord(w http.ResponseWriter, r *http.Request) error {
	return s.writeRecord(w, r, deleteAction)
}

// applyWrites answers com.atproto.repo.applyWrites: all of the writes or none.
func (s *Server) applyWrites(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.authorize(r, hold.Administer); err != nil {
		return err
	}
	var in struct {
		Repo       string  `json:"repo"`
		Writes     []write `json:"writes"`
		SwapCommit string  `json:"swapCommit"`
	}
	if err := readJSON(w, r, maxRecordInput, &in); err != nil {
		return err
	}
	if err := s.checkRepo(in.Repo); err != nil {
		return err
	}
	if len(in.Writes) > maxWrites {
		return invalidRequest("at most %d writes at once", maxWrites)
	}
	const lexicon = "com.atproto.repo.applyWrites#"
	for i := range in.Writes {
		wr := &in.Writes[i]
		switch wr.Type {
		case lexicon + "create":
			wr.action = createAction
		case lexicon + "update":
			wr.action = updateAction
		case lexicon + "delete":
			wr.action = deleteAction
		default:
			return invalidRequest("writes[%d] must be of type %screate, update or delete", i, lexicon)
		}
		wr.Record, wr.SwapRecord = wr.Value, nil
	}
	results, commit, err := s.apply(r, in.Writes, in.SwapCommit)
	if err != nil {
		return err
	}
	for i, wr := range in.Writes {
		results[i].Type = wr.Type + "Result"
	}
	return answer(w, struct {
		Commit  *commitView `json:"commit,omitempty"`
		Results []written   `json:"results"`
	}{commit, append([]written{}, results...)})
}

// uploadBlob answers com.atproto.repo.uploadBlob: the body is a blob for a record to refer
// to, not an OCI blob.
func (s *Server) uploadBlob(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.authorize(r, hold.Administer); err != nil {
		return err
	}
	body := &clientBody{Reader: r.Body}
	blob, err := s.hold.Repo().PutBlob(r.Context(), r.Header.Get("Content-Type"), body)
	if err != nil {
		return body.fault("InvalidRequest", err)
	}
	return answer(w, map[string]any{"blob": map[string]any{
		"$type":    "blob",
		"ref":      map[string]string{"$link": blob.CID.String()},
		"mimeType": blob.MIMEType,
		"size":     blob.Size,
	}})
}
