package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

const contentType = "application/octet-stream"

func stagingKey(id string) string { return blobs.StagingPrefix + id }

// Begin creates a multipart upload, whose own ID is the handle.
func (d *Driver) Begin(ctx context.Context, id string) (handle string, err error) {
	return d.createUpload(ctx, stagingKey(id))
}

func (d *Driver) createUpload(ctx context.Context, key string) (uploadID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	out, err := d.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &d.bucket, Key: d.key(key), ContentType: aws.String(contentType),
	})
	if err != nil {
		return "", fmt.Errorf("creating a multipart upload: %w", explain(err))
	}
	return aws.ToString(out.UploadId), nil
}

// Discard aborts the multipart upload and deletes what it was completed to.
func (d *Driver) Discard(ctx context.Context, u blobs.Upload) error {
	var err error
	if u.Handle == "" {
		err = d.abortAll(ctx, stagingKey(u.ID))
	} else {
		err = d.abortUpload(ctx, stagingKey(u.ID), u.Handle)
	}
	return errors.Join(err, d.remove(ctx, stagingKey(u.ID)))
}

func (d *Driver) abortUpload(ctx context.Context, key, uploadID string) error {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	_, err := d.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &d.bucket, Key: d.key(key), UploadId: &uploadID})
	if err != nil && !noSuchUpload(err) && !notFound(err) {
		return fmt.Errorf("aborting a multipart upload: %w", explain(err))
	}
	return nil
}

// abortAll aborts the multipart uploads to exactly that key, which every server
// lists when it is the prefix, unlike those below a directory.
func (d *Driver) abortAll(ctx context.Context, key string) error {
	listing, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	pages := s3.NewListMultipartUploadsPaginator(d.client, &s3.ListMultipartUploadsInput{Bucket: &d.bucket, Prefix: d.key(key)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(listing)
		if err != nil {
			return fmt.Errorf("listing multipart uploads: %w", explain(err))
		}
		for _, upload := range page.Uploads {
			if aws.ToString(upload.Key) != *d.key(key) {
				continue
			}
			if err := d.abortUpload(ctx, key, aws.ToString(upload.UploadId)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Driver) remove(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	_, err := d.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &d.bucket, Key: d.key(key)})
	if err != nil && !notFound(err) {
		return fmt.Errorf("deleting an object: %w", explain(err))
	}
	return nil
}

// WritePart streams a part to the server. One of unknown size goes to a
// temporary file first, since S3 wants to know.
func (d *Driver) WritePart(ctx context.Context, u blobs.Upload, part int, body io.Reader, size int64) (string, error) {
	if size < 0 {
		return d.spoolPart(ctx, u, part, body)
	}
	exact := &exactReader{body: body, left: size}
	var payload io.Reader = exact
	if size == 0 {
		if err := exact.end(); err != nil {
			return "", err
		}
		payload = bytes.NewReader(nil) // an unknown reader of length 0 would be sent chunked
	}
	etag, err := d.uploadPart(ctx, u, part, payload, size)
	if exact.err != nil {
		return "", exact.err // the client's fault, not the server's
	}
	return etag, err
}

func (d *Driver) uploadPart(ctx context.Context, u blobs.Upload, part int, payload io.Reader, size int64) (string, error) {
	out, err := d.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &d.bucket, Key: d.key(stagingKey(u.ID)), UploadId: &u.Handle,
		PartNumber: aws.Int32(int32(part)), Body: payload, ContentLength: &size,
	}, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware), func(o *s3.Options) {
		if _, ok := payload.(io.Seeker); !ok {
			o.RetryMaxAttempts = 1 // what was read of the body is gone
		}
	})
	if noSuchUpload(err) {
		return "", fmt.Errorf("%w: the multipart upload has ended", blobs.ErrInvalidUploadID)
	}
	if err != nil {
		return "", fmt.Errorf("uploading part %d: %w", part, explain(err))
	}
	return strings.Trim(aws.ToString(out.ETag), `"`), nil
}

func (d *Driver) spoolPart(ctx context.Context, u blobs.Upload, part int, body io.Reader) (string, error) {
	select {
	case d.spooling <- struct{}{}:
		defer func() { <-d.spooling }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	file, err := os.CreateTemp("", "caddyhold-part-")
	if err != nil {
		return "", fmt.Errorf("making a temporary file: %w", err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	size, err := blobs.CopyContext(ctx, file, body)
	if errors.Is(err, syscall.ENOSPC) {
		return "", fmt.Errorf("%w: spooling part %d: %w", blobs.ErrInsufficientStorage, part, err)
	}
	if err != nil {
		return "", fmt.Errorf("spooling part %d: %w", part, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("spooling part %d: %w", part, err)
	}
	return d.uploadPart(ctx, u, part, file, size)
}

// exactReader reads a body of exactly that length. What is wrong with it stays
// in err, and the last bytes are held back then, so that no server takes them
// for the whole.
type exactReader struct {
	body io.Reader
	left int64
	err  error
}

func (r *exactReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	switch {
	case err != nil && err != io.EOF:
		r.err = fmt.Errorf("reading the body: %w", err)
	case err == io.EOF && r.left > 0:
		r.err = fmt.Errorf("the body ends %d bytes early: %w", r.left, io.ErrUnexpectedEOF)
	case err == nil && r.left == 0:
		r.err = r.end()
	}
	if r.err != nil {
		return 0, r.err
	}
	return n, nil
}

// end says whether the body ends here.
func (r *exactReader) end() error {
	for {
		var extra [1]byte
		n, err := r.body.Read(extra[:])
		switch {
		case n > 0:
			return errors.New("the body is longer than announced")
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("reading the body: %w", err)
		}
	}
}

// Assemble completes the multipart upload with the parts that the server lists.
func (d *Driver) Assemble(ctx context.Context, u blobs.Upload, parts []blobs.Part) (blobs.Object, error) {
	key := stagingKey(u.ID)
	listed, size, err := d.listParts(ctx, u)
	if noSuchUpload(err) {
		return d.completedBefore(ctx, key)
	}
	if err != nil {
		return blobs.Object{}, fmt.Errorf("listing parts: %w", explain(err))
	}
	if err := compare(listed, parts); err != nil {
		return blobs.Object{}, err
	}
	if len(listed) == 0 {
		return d.putEmpty(ctx, key)
	}
	out, err := d.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &d.bucket, Key: d.key(key), UploadId: &u.Handle,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: listed},
	})
	switch {
	case noSuchUpload(err): // a retry of the SDK after an answer that was lost
		return d.completedBefore(ctx, key)
	case hasCode(err, "InvalidPart", "InvalidPartOrder"):
		return blobs.Object{}, fmt.Errorf("%w: the storage refuses a part", blobs.ErrMissingParts)
	case err != nil:
		return blobs.Object{}, fmt.Errorf("completing the multipart upload: %w", explain(err))
	}
	return blobs.Object{Size: size, Version: aws.ToString(out.ETag)}, nil
}

// completedBefore describes what a multipart upload was completed to by an
// earlier call whose answer was lost.
func (d *Driver) completedBefore(ctx context.Context, key string) (blobs.Object, error) {
	object, err := d.Stat(ctx, key)
	if errors.Is(err, blobs.ErrBlobNotFound) {
		return blobs.Object{}, fmt.Errorf("%w: the multipart upload is gone", blobs.ErrInvalidUploadID)
	}
	return object, err
}

func (d *Driver) listParts(ctx context.Context, u blobs.Upload) (listed []types.CompletedPart, size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	pages := s3.NewListPartsPaginator(d.client, &s3.ListPartsInput{Bucket: &d.bucket, Key: d.key(stagingKey(u.ID)), UploadId: &u.Handle})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, 0, err
		}
		for _, part := range page.Parts {
			listed = append(listed, types.CompletedPart{PartNumber: part.PartNumber, ETag: part.ETag})
			size += aws.ToInt64(part.Size)
		}
	}
	return listed, size, nil
}

// compare says whether parts are exactly what the server has.
func compare(listed []types.CompletedPart, parts []blobs.Part) error {
	stored := make(map[int]string, len(listed))
	for _, part := range listed {
		stored[int(aws.ToInt32(part.PartNumber))] = strings.Trim(aws.ToString(part.ETag), `"`)
	}
	for _, part := range parts {
		etag, ok := stored[part.Number]
		if !ok {
			return fmt.Errorf("%w: part %d was not received", blobs.ErrMissingParts, part.Number)
		}
		if etag != part.ETag {
			return fmt.Errorf("%w: part %d has another etag", blobs.ErrMissingParts, part.Number)
		}
	}
	if len(parts) != len(listed) {
		return fmt.Errorf("%w: %d parts were received and %d are named", blobs.ErrMissingParts, len(listed), len(parts))
	}
	return nil
}

// putEmpty makes the object of an upload without parts, which cannot be
// completed.
func (d *Driver) putEmpty(ctx context.Context, key string) (blobs.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	out, err := d.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &d.bucket, Key: d.key(key), ContentType: aws.String(contentType), Body: http.NoBody, ContentLength: aws.Int64(0),
	})
	if err != nil {
		return blobs.Object{}, fmt.Errorf("writing an empty object: %w", explain(err))
	}
	return blobs.Object{Version: aws.ToString(out.ETag)}, nil
}
