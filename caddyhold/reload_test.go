package caddyhold_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"
	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
)

// consumer follows a hold's firehose and keeps the numbers of what it gets.
type consumer struct {
	conn *websocket.Conn
	last atomic.Int64  // seq
	gap  atomic.Int64  // the first seq that did not follow
	done chan struct{} // closed when the connection ended
	err  error         // why it ended
}

func (s *holdSite) follow() *consumer {
	s.t.Helper()
	url := "ws://127.0.0.1:" + s.port + "/xrpc/com.atproto.sync.subscribeRepos?cursor=0"
	ctx := within(s.t, 10*time.Second)
	conn, response, err := websocket.Dial(ctx, url, nil)
	for tries := 0; err != nil && tries < 20; tries++ { // as do does
		time.Sleep(5 * time.Millisecond)
		conn, response, err = websocket.Dial(ctx, url, nil)
	}
	if err != nil {
		s.t.Fatalf("following the firehose: %v", err)
	}
	if response.Body != nil {
		_ = response.Body.Close()
	}
	conn.SetReadLimit(10 << 20)
	c := &consumer{conn: conn, done: make(chan struct{})}
	go c.read()
	s.t.Cleanup(func() { _ = conn.CloseNow(); <-c.done })
	return c
}

func (c *consumer) read() {
	defer close(c.done)
	for {
		_, frame, err := c.conn.Read(context.Background())
		if err != nil {
			c.err = err
			return
		}
		var header, body map[string]any
		decoder := cbor.NewDecoder(bytes.NewReader(frame))
		if err := errors.Join(decoder.Decode(&header), decoder.Decode(&body)); err != nil {
			c.err = err
			return
		}
		seq, numbered := body["seq"].(uint64)
		if !numbered {
			continue
		}
		if before := c.last.Swap(int64(seq)); before != 0 && int64(seq) != before+1 {
			c.gap.CompareAndSwap(0, int64(seq))
		}
	}
}

func (c *consumer) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// One consumer sees every event while writers write and configurations come and go.
func TestFirehoseCarriesOnThroughReloads(t *testing.T) {
	reloads := 200
	if testing.Short() {
		reloads = 20
	}
	site := newHoldSite(t)
	stopAtEnd(t)
	configs := [][]byte{
		config(t, site.server(site.handler(object{"access": object{"public": true}}))),
		config(t, site.server(site.handler(nil))),
	}
	load(t, configs[0])
	firehose := site.follow()
	site.call("com.atproto.repo.createRecord", site.note("first"), nil)
	load(t, configs[1]) // what Caddy keeps after a first reload is there
	before := settledResources(t)

	var (
		stop    = make(chan struct{})
		writers sync.WaitGroup
		writes  atomic.Int64
	)
	for writer := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				a, err := site.post("com.atproto.repo.createRecord", site.note(fmt.Sprint(writer, i)))
				if err != nil || a.status != http.StatusOK {
					t.Errorf("a write during reloads: %s, %v", a, err)
					return
				}
				writes.Add(1)
			}
		})
	}
	start := time.Now()
	for i := range reloads {
		written := writes.Load()
		load(t, configs[i%2])
		eventually(t, "a write after the reload", func() bool { return t.Failed() || writes.Load() > written })
	}
	took := time.Since(start)
	close(stop)
	writers.Wait()
	if t.Failed() {
		return
	}
	load(t, configs[1])
	t.Logf("%d reloads in %s with %d writes", reloads, took, writes.Load())

	site.call("com.atproto.repo.createRecord", site.note("last"), nil)
	latest := site.follow()
	eventually(t, "a new consumer to have read everything", func() bool { return latest.last.Load() >= writes.Load() })
	eventually(t, "both consumers to be where the log ends", func() bool {
		return firehose.last.Load() == latest.last.Load()
	})
	if firehose.ended() {
		t.Fatalf("the consumer was dropped: %v", firehose.err)
	}
	if seq := firehose.gap.Load(); seq != 0 {
		t.Errorf("a gap in seq before %d", seq)
	}
	_ = latest.conn.CloseNow()
	<-latest.done
	noLeak(t, before)
}

// What a configuration decides counts as soon as the reload is done.
func TestReloadChangesPolicy(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	missing := "/xrpc/com.atproto.sync.getBlob?did=" + site.did() + "&cid=sha256:" + fmt.Sprintf("%x", sha256.Sum256(nil))

	load(t, config(t, site.server(site.handler(nil))))
	if a, err := site.do("GET", missing, false, nil); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("a private hold, to nobody: %s, %v", a, err)
	}
	if got, want := site.captain(), (captainRecord{Owner: site.did()}); got != want {
		t.Errorf("captain %+v, want %+v", got, want)
	}

	public := config(t, site.server(site.handler(object{
		"access": object{"public": true, "allow_all_crew": true}, "region": "eu", "owner": "did:web:captain.example.com",
	})))
	load(t, public)
	if a, err := site.do("GET", missing, false, nil); err != nil || a.status != http.StatusNotFound {
		t.Errorf("a public hold, to nobody: %s, %v", a, err)
	}
	want := captainRecord{Owner: "did:web:captain.example.com", Public: true, AllowAllCrew: true, Region: "eu"}
	if got := site.captain(); got != want {
		t.Errorf("captain %+v, want %+v", got, want)
	}

	before := site.head()
	load(t, public)
	if after := site.head(); after != before {
		t.Errorf("a reload that changed nothing made commit %+v after %+v", after, before)
	}
}

// An upload goes on through reloads, between its calls and in the middle of one.
func TestUploadCarriesOnThroughReloads(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	reload := func() { load(t, config(t, site.server(site.handler(nil)))) }
	reload()

	var (
		parts   = [][]byte{bytes.Repeat([]byte("one"), 1<<18), bytes.Repeat([]byte("two"), 1<<18), []byte("three")}
		blob    = bytes.Join(parts, nil)
		digest  = fmt.Sprintf("sha256:%x", sha256.Sum256(blob))
		started struct {
			UploadID string `json:"uploadId"`
		}
		named []object
	)
	site.call("io.atcr.hold.initiateUpload", object{"digest": "uploads/temp-1"}, &started)
	for i, part := range parts {
		number := i + 1
		body, writer := io.Pipe()
		go func() {
			_, _ = writer.Write(part[:len(part)/2])
			if err := caddy.Load(config(t, site.server(site.handler(nil))), true); err != nil {
				t.Errorf("reloading in the middle of part %d: %v", number, err)
			}
			_, _ = writer.Write(part[len(part)/2:])
			_ = writer.Close()
		}()
		var sent struct {
			ETag string `json:"etag"`
		}
		site.decode("uploadPart", &sent)(site.uploadPart(started.UploadID, number, body))
		named = append(named, object{"partNumber": number, "etag": sent.ETag})
		reload()
	}
	site.call("io.atcr.hold.completeUpload", object{"uploadId": started.UploadID, "digest": digest, "parts": named}, nil)
	reload()

	a, err := site.do("GET", "/xrpc/com.atproto.sync.getBlob?did="+site.did()+"&cid="+digest, true, nil)
	if err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, blob) {
		t.Errorf("reading the blob: %d, %d bytes, %v", a.status, len(a.body), err)
	}

	// The URL that the hold signs is one of its own getBlob, complete for any client.
	var signed struct {
		URL string `json:"url"`
	}
	site.decode("getBlob", &signed)(site.do("GET", "/xrpc/com.atproto.sync.getBlob?did="+site.did()+"&cid="+digest+"&method=GET", true, nil))
	u, err := url.Parse(signed.URL)
	if err != nil || u.Query().Get("did") != site.did() || u.Query().Get("cid") != digest {
		t.Fatalf("the signed URL is %s: %v", signed.URL, err)
	}
	if a, err := site.do("GET", u.RequestURI(), false, nil); err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, blob) {
		t.Errorf("reading by the signed URL: %d, %d bytes, %v", a.status, len(a.body), err)
	}
}

// Requests under way keep the storage that their configuration had; new ones get the new one.
func TestReloadMovesStorage(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	at := func(root string) []byte {
		return config(t, site.server(site.handler(object{"storage": object{"driver": "filesystem", "root": root}})))
	}
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	load(t, at(two))
	load(t, at(one))
	before := settledResources(t)

	var started struct {
		UploadID string `json:"uploadId"`
	}
	site.call("io.atcr.hold.initiateUpload", object{"digest": "uploads/temp-1"}, &started)
	body, writer := io.Pipe()
	go func() {
		_, _ = writer.Write([]byte("half of it, "))
		if err := caddy.Load(at(two), true); err != nil {
			t.Errorf("reloading: %v", err)
		}
		_, _ = writer.Write([]byte("and the rest"))
		_ = writer.Close()
	}()
	var sent struct {
		ETag string `json:"etag"`
	}
	site.decode("uploadPart", &sent)(site.uploadPart(started.UploadID, 1, body))

	complete := object{
		"uploadId": started.UploadID, "parts": []object{{"partNumber": 1, "etag": sent.ETag}},
		"digest": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("half of it, and the rest"))),
	}
	if a, err := site.post("io.atcr.hold.completeUpload", complete); err != nil || a.status != http.StatusBadRequest {
		t.Errorf("completing in another storage: %s, %v", a, err)
	}
	load(t, at(one))
	site.call("io.atcr.hold.completeUpload", complete, nil)
	noLeak(t, before)
}

// uploadPart sends a part through the hold. Nothing of body is read before the hold does, so
// until then it can try again, as do does.
func (s *holdSite) uploadPart(uploadID string, number int, body io.Reader) (a answer, err error) {
	watched := &watchedReader{Reader: body}
	for range 20 {
		a, err = s.try("PUT", "/xrpc/io.atcr.hold.uploadPart", true, watched,
			"X-Upload-Id", uploadID, "X-Part-Number", fmt.Sprint(number), "Expect", "100-continue")
		if err == nil || watched.begun.Load() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return a, err
}

// watchedReader knows whether anybody has begun to read it.
type watchedReader struct {
	io.Reader
	begun atomic.Bool
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.begun.Store(true)
	return r.Reader.Read(p)
}

// A configuration that fails, at whatever step, leaves everything as it was.
func TestFailedReloadChangesNothing(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()

	load(t, config(t, site.server(site.handler(nil))))
	firehose := site.follow()
	before := site.head()
	other := object{"access": object{"public": true}, "region": "elsewhere"}
	with := func(changes object) object {
		for name, value := range other {
			if _, set := changes[name]; !set {
				changes[name] = value
			}
		}
		return changes
	}
	for name, tc := range map[string]struct {
		config []byte
		want   string
	}{
		"an owner that is no DID": {
			config(t, site.server(site.handler(with(object{"owner": "somebody"})))), "owner",
		},
		"a storage that cannot be made": {
			config(t, site.server(site.handler(with(object{"storage": object{"driver": "filesystem", "root": "/dev/null/blobs"}})))), "storage",
		},
		"another public URL": {
			config(t, site.server(site.handler(with(object{"public_url": "https://other.example.com"})))), "public_url",
		},
		"another signing key": {
			config(t, site.server(site.handler(with(object{"signing_key": filepath.Join(t.TempDir(), "other.key")})))), "signing_key",
		},
		"a port that is taken": {
			config(t, site.server(site.handler(with(object{}))), object{"listen": []string{taken.Addr().String()}}), "address already in use",
		},
		"two handlers that disagree": {
			config(t, site.server(site.handler(with(object{})), site.handler(nil))), "different configurations",
		},
	} {
		if err := caddy.Load(tc.config, true); !contains(err, tc.want) {
			t.Errorf("%s: want an error about %s, got %v", name, tc.want, err)
		}
		if a, err := site.do("GET", "/xrpc/com.atproto.sync.getBlob?did=x&cid=sha256:"+fmt.Sprintf("%x", sha256.Sum256(nil)), false, nil); err != nil || a.status != http.StatusUnauthorized {
			t.Errorf("after %s, the policy: %s, %v", name, a, err)
		}
		if after := site.head(); after != before {
			t.Errorf("after %s, the head: %+v", name, after)
		}
	}
	eventually(t, "the consumer to catch up", func() bool { return firehose.last.Load() > 0 })
	seq := firehose.last.Load()
	site.call("com.atproto.repo.createRecord", site.note("still here"), nil)
	eventually(t, "the consumer to go on", func() bool { return firehose.last.Load() > seq })
	if firehose.ended() {
		t.Errorf("the consumer was dropped: %v", firehose.err)
	}
}

// caddy validate, also with another configuration, does not disturb a running hold.
func TestValidateBesideLiveHold(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	load(t, config(t, site.server(site.handler(nil))))
	before := site.head()
	for _, changes := range []object{nil, {"access": object{"public": true}}, {"public_url": "https://other.example.com"}} {
		var parsed *caddy.Config
		if err := caddy.StrictUnmarshalJSON(config(t, site.server(site.handler(changes))), &parsed); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(parsed); err != nil {
			t.Errorf("validating with %v: %v", changes, err)
		}
	}
	if after := site.head(); after != before {
		t.Errorf("validating made commit %+v", after)
	}
	site.call("com.atproto.repo.createRecord", site.note("unharmed"), nil)
}

// A hold that no configuration names any more finishes what it is doing, says goodbye to its
// consumers and lets go of its files; named again, it is the same hold.
func TestRemovedHoldLetsGo(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	empty := config(t, site.server(object{"handler": "static_response", "body": "no hold here"}))
	load(t, empty)
	resourcesBefore := settledResources(t)

	load(t, config(t, site.server(site.handler(nil))))
	firehose := site.follow()
	site.call("com.atproto.repo.createRecord", site.note("before"), nil)
	var started struct {
		UploadID string `json:"uploadId"`
	}
	site.call("io.atcr.hold.initiateUpload", object{"digest": "uploads/temp-1"}, &started)
	before := site.head()

	body, writer := io.Pipe()
	uploaded := make(chan error, 1)
	go func() {
		a, err := site.uploadPart(started.UploadID, 1, body)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s", a)
		}
		uploaded <- err
	}()
	if _, err := writer.Write([]byte("half of it, ")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() {
		_, _ = writer.Write([]byte("and the rest"))
		_ = writer.Close()
	})
	load(t, empty)

	if err := <-uploaded; err != nil {
		t.Errorf("the upload under way: %v", err)
	}
	eventually(t, "the consumer to be told", firehose.ended)
	if got := websocket.CloseStatus(firehose.err); got != websocket.StatusServiceRestart {
		t.Errorf("the consumer was told %d: %v", got, firehose.err)
	}
	_ = firehose.conn.CloseNow()
	db, err := bbolt.Open(filepath.Join(site.dataDir, "hold.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatalf("the database is still locked: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	noLeak(t, resourcesBefore)

	load(t, config(t, site.server(site.handler(nil))))
	eventually(t, "the server without a hold to answer its last", func() bool {
		a, err := site.do("GET", "/.well-known/atproto-did", false, nil)
		return err == nil && string(a.body) == site.did()
	})
	if after := site.head(); after != before {
		t.Errorf("the hold came back as %+v, was %+v", after, before)
	}
}

// Nobody who reads an export slowly keeps a hold from going, and from coming back.
func TestSlowReaderDoesNotKeepHold(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	with := config(t, site.server(site.handler(nil)))
	log := filepath.Join(t.TempDir(), "hold.log")
	without := config(t, site.server(object{"handler": "static_response"}))
	load(t, logTo(t, with, log))
	for range 16 { // more than the sockets take
		site.call("com.atproto.repo.createRecord", site.note(strings.Repeat("long ", 180_000)), nil)
	}
	before := site.head()

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site.url()+"/xrpc/com.atproto.sync.getRepo?did="+site.did(), nil)
	if err != nil {
		t.Fatal(err)
	}
	export, err := site.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = export.Body.Close() }()
	if _, err := io.CopyN(io.Discard, export.Body, 1000); err != nil {
		t.Fatal(err)
	}

	start := time.Now()
	load(t, logTo(t, without, log))
	if took := time.Since(start); took > 15*time.Second { // what requests under way are given, and some
		t.Errorf("the hold took %s to go", took)
	}
	load(t, logTo(t, with, log))
	if after := site.head(); after != before {
		t.Errorf("the hold came back as %+v, was %+v", after, before)
	}

	lines, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var closed struct {
		DID     string `json:"did"`
		DataDir string `json:"data_dir"`
	}
	for line := range bytes.Lines(lines) {
		if bytes.Contains(line, []byte("hold closed")) {
			if err := json.Unmarshal(line, &closed); err != nil {
				t.Fatal(err)
			}
		}
	}
	if closed.DID != site.did() || closed.DataDir != site.dataDir {
		t.Errorf("the log says %+v of what was closed: %s", closed, lines)
	}
}

// logTo is a configuration that logs to a file.
func logTo(t *testing.T, config []byte, path string) []byte {
	t.Helper()
	var changed object
	if err := json.Unmarshal(config, &changed); err != nil {
		t.Fatal(err)
	}
	changed["logging"] = object{"logs": object{"default": object{"writer": object{"output": "file", "filename": path, "roll": false}}}}
	encoded, err := json.Marshal(changed)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// Holds in one Caddy have nothing to do with each other.
func TestTwoHoldsInOneCaddy(t *testing.T) {
	one, two := newHoldSite(t), newHoldSite(t)
	stopAtEnd(t)
	both := config(t, one.server(one.handler(nil)), two.server(two.handler(object{"access": object{"public": true}})))
	load(t, both)
	before := two.head()
	firehose := two.follow()
	one.call("com.atproto.repo.createRecord", one.note("here"), nil)
	if after := two.head(); after != before {
		t.Errorf("a write to one hold made commit %+v in the other", after)
	}
	if one.captain().Public || !two.captain().Public {
		t.Error("the policies of the two are mixed up")
	}

	load(t, config(t, two.server(two.handler(nil)))) // the other one goes
	if firehose.ended() {
		t.Errorf("the consumer of the hold that stays was dropped: %v", firehose.err)
	}
	two.call("com.atproto.repo.createRecord", two.note("there"), nil)
	load(t, both)
	one.call("com.atproto.repo.createRecord", one.note("back"), nil)
}

// One hold may be served at several addresses.
func TestOneHoldOnTwoServers(t *testing.T) {
	site, alias := newHoldSite(t), newHoldSite(t)
	stopAtEnd(t)
	load(t, config(t, site.server(site.handler(nil)), alias.server(site.handler(nil))))
	site.call("com.atproto.repo.createRecord", site.note("seen from both"), nil)
	var there head
	alias.get("/xrpc/com.atproto.sync.getLatestCommit?did="+site.did(), &there)
	if here := site.head(); here != there {
		t.Errorf("at one address %+v, at the other %+v", here, there)
	}
}

// Paths that are not the hold's go to the next handler.
func TestOtherPathsPassThrough(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	load(t, config(t, site.server(site.handler(nil), object{"handler": "static_response", "body": "a web site"})))
	for _, path := range []string{"/", "/xrpc", "/.well-known/security.txt", "/.well-known/did.json/x"} {
		if a, err := site.do("GET", path, false, nil); err != nil || string(a.body) != "a web site" {
			t.Errorf("%s: %s, %v", path, a, err)
		}
	}
	var document struct {
		ID string `json:"id"`
	}
	if site.get("/.well-known/did.json", &document); document.ID != site.did() {
		t.Errorf("did.json is of %q", document.ID)
	}
}

// A hold whose storage is away starts, and serves what it has in its database.
func TestStorageAwayAtStart(t *testing.T) {
	site := newHoldSite(t)
	stopAtEnd(t)
	load(t, config(t, site.server(site.handler(object{"storage": object{
		"driver": "s3", "bucket": "blobs", "endpoint": "http://127.0.0.1:" + freePort(t), "access_key": "id", "secret_key": "secret",
	}}))))
	if got := site.captain(); got.Owner != site.did() {
		t.Errorf("captain %+v", got)
	}
	for _, path := range []string{"/xrpc/_health", "/xrpc/com.atproto.sync.getBlob?cid=sha256:" + strings.Repeat("0", 64)} {
		a, err := site.do("GET", path, true, nil)
		if err != nil || a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" && !strings.HasSuffix(path, "_health") {
			t.Errorf("%s: %v, %v, want 503", path, a, err)
		}
	}
}

// The network atcr_hold listens on an address as a whole, for a site of any name.
func TestListenOnAddress(t *testing.T) {
	for name, listen := range map[string]func(port string) string{
		"host and port":      func(port string) string { return "atcr_hold/[127.0.0.1:" + port + "]:1" },
		"port alone":         func(port string) string { return "atcr_hold/[:" + port + "]:1" },
		"the port of a site": func(port string) string { return "atcr_hold/:" + port },
	} {
		t.Run(name, func(t *testing.T) {
			site := newHoldSite(t)
			stopAtEnd(t)
			server := site.server(site.handler(nil))
			server["listen"] = []string{listen(site.port)}
			for range 2 { // a reload listens where the old configuration still does
				load(t, config(t, server))
				if a, err := site.do("GET", "/.well-known/atproto-did", false, nil); err != nil || string(a.body) != site.did() {
					t.Errorf("%s, %v", a, err)
				}
			}
		})
	}
}
