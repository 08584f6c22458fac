package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// Stat asks for the head of an object.
func (d *Driver) Stat(ctx context.Context, key string) (blobs.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	out, err := d.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &d.bucket, Key: d.key(key)})
	if notFound(err) {
		return blobs.Object{}, d.absent(ctx, key)
	}
	if err != nil {
		return blobs.Object{}, fmt.Errorf("asking for the head of an object: %w", explain(err))
	}
	return blobs.Object{Size: aws.ToInt64(out.ContentLength), Version: aws.ToString(out.ETag)}, nil
}

// absent asks again for an object that a HEAD did not find: that answer has no body, so
// it may mean that the bucket is gone, or come from something before the server. Rows
// of blobs are given up on this answer.
func (d *Driver) absent(ctx context.Context, key string) error {
	out, err := d.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &d.bucket, Key: d.key(key), Range: aws.String("bytes=0-0")})
	if err == nil {
		_ = out.Body.Close()
		return fmt.Errorf("%w: an object appeared just now", blobs.ErrUnavailable)
	}
	if hasCode(err, "NoSuchKey") {
		return blobs.ErrBlobNotFound
	}
	if status(err) == http.StatusNotFound {
		return fmt.Errorf("%w: looking for an object: %w", blobs.ErrUnavailable, err)
	}
	return fmt.Errorf("looking for an object: %w", explain(err))
}

// Healthy reads an object that does not exist: the answer says whether bucket
// and credentials are right.
func (d *Driver) Healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	out, err := d.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &d.bucket, Key: d.key("caddyhold/health")})
	if err == nil {
		return out.Body.Close()
	}
	if hasCode(err, "NoSuchKey") {
		return nil
	}
	return fmt.Errorf("reading from the bucket: %w", explain(err))
}

// Open asks for the head of an object; its content is requested when it is read.
func (d *Driver) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	found, err := d.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &object{ctx: ctx, driver: d, key: key, etag: found.Version, size: found.Size}, nil
}

// readAttempts is how often reading may fail at one offset.
const readAttempts = 3

// object reads an object from any offset, and goes on where a connection broke.
type object struct {
	ctx      context.Context // of who opened it: a Reader's methods take none
	driver   *Driver
	key      string
	etag     string // the content must not change while it is read
	size     int64
	offset   int64
	body     io.ReadCloser // at offset; nil: to be requested
	failures int
}

// Read reads on, with another request if need be.
func (o *object) Read(p []byte) (int, error) {
	if o.offset >= o.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := o.read(p)
		if n > 0 {
			o.failures = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		o.failures++
		if o.failures >= readAttempts || o.ctx.Err() != nil || notFound(err) || status(err) == http.StatusPreconditionFailed {
			return 0, fmt.Errorf("reading an object at %d: %w", o.offset, explain(err))
		}
	}
}

func (o *object) read(p []byte) (int, error) {
	if o.body == nil {
		out, err := o.driver.client.GetObject(o.ctx, &s3.GetObjectInput{
			Bucket: &o.driver.bucket, Key: o.driver.key(o.key), IfMatch: &o.etag,
			Range: aws.String(fmt.Sprintf("bytes=%d-", o.offset)),
		})
		if err != nil {
			return 0, err
		}
		o.body = out.Body
		if aws.ToInt64(out.ContentLength) != o.size-o.offset {
			return 0, errors.Join(errors.New("the server sent another range than was asked for"), o.drop())
		}
	}
	n, err := o.body.Read(p)
	o.offset += int64(n)
	if err == nil {
		return n, nil
	}
	_ = o.drop()
	if err == io.EOF && o.offset < o.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek moves to another offset; reading there makes another request.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.offset
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, errors.New("seeking before the start of an object")
	}
	if offset != o.offset {
		_ = o.drop()
	}
	o.offset = offset
	return offset, nil
}

// Close ends the request in progress.
func (o *object) Close() error { return o.drop() }

// drop ends the request, so that the next read makes another.
func (o *object) drop() error {
	if o.body == nil {
		return nil
	}
	err := o.body.Close()
	o.body = nil
	return err
}
