package bench_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// request is an HTTP/1.1 request as it goes over the wire, and the status of its answer.
type request struct {
	text   []byte
	status int
}

// get is a GET request for a target.
func get(address, target string, status int) request {
	return request{fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, address), status}
}

// post is a call of a procedure.
func post(address, target, authorization string, body []byte) request {
	text := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		target, address, authorization, len(body), body)
	return request{text, 200}
}

// load makes the same request again and again for -duration over some connections, each waiting for its answers, and returns
// how many were answered in a second. It takes as little time as it can, since server and client share the machine.
func load(b *testing.B, address string, r request, connections int) float64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), *duration)
	defer cancel()
	answered := make([]int, connections)
	var group errgroup.Group
	start := time.Now()
	for i := range connections {
		group.Go(func() (err error) {
			answered[i], err = repeat(ctx, address, r)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatalf("requesting: %v", err)
	}
	took := time.Since(start)
	total := 0
	for _, n := range answered {
		total += n
	}
	return float64(total) / took.Seconds()
}

// repeat makes a request over one connection until ctx ends, and counts the answers.
func repeat(ctx context.Context, address string, r request) (answered int, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	answers := bufio.NewReader(conn)
	for ctx.Err() == nil {
		if _, err := conn.Write(r.text); err != nil {
			return answered, err
		}
		if err := readAnswer(answers, r.status); err != nil {
			return answered, err
		}
		answered++
	}
	return answered, nil
}

// readAnswer reads an answer whose length its header tells.
func readAnswer(r *bufio.Reader, status int) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 "+strconv.Itoa(status)+" ")) {
		return fmt.Errorf("status %d expected: %q", status, line)
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= len("\r\n") {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); string(name) == "Content-Length" {
			if length, err = strconv.Atoi(strings.TrimSpace(string(value))); err != nil {
				return err
			}
		}
	}
	if length < 0 {
		return errors.New("an answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
