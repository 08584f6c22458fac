package s3

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/encoding/httpbinding"
	"golang.org/x/sync/errgroup"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// copiesAtOnce bounds the requests that copy parts of one object.
const copiesAtOnce = 4

// Verify reads and hashes the staging object.
func (d *Driver) Verify(ctx context.Context, u blobs.Upload, o blobs.Object, digest blobs.Digest) error {
	return d.verify(ctx, stagingKey(u.ID), o.Size, digest)
}

func (d *Driver) verify(ctx context.Context, key string, size int64, digest blobs.Digest) error {
	object, err := d.Open(ctx, key)
	if errors.Is(err, blobs.ErrBlobNotFound) {
		return fmt.Errorf("%w: the assembled upload is gone", blobs.ErrMissingParts)
	}
	if err != nil {
		return err
	}
	defer object.Close()
	h := sha256.New()
	n, err := blobs.CopyContext(ctx, h, object)
	if err != nil {
		return err
	}
	if found := blobs.DigestOf(h); found != digest || n != size {
		return fmt.Errorf("%w (%s, %d bytes)", blobs.ErrDigestMismatch, found, n)
	}
	return nil
}

// Place copies the staging object to its final key and has the server hash it on
// the way, or reads and hashes it first.
func (d *Driver) Place(ctx context.Context, u blobs.Upload, o blobs.Object, digest blobs.Digest) (string, error) {
	from, to := stagingKey(u.ID), blobs.Key(digest)
	if o.Size <= d.copyLimit {
		trusted, err := d.copiesWithChecksum(ctx)
		if err != nil {
			return "", err
		}
		if trusted {
			return to, d.copyVerifying(ctx, from, to, o, digest)
		}
	}
	if err := d.verify(ctx, from, o.Size, digest); err != nil {
		return "", err
	}
	if o.Size <= d.copyLimit {
		return to, d.copyWhole(ctx, from, to, o)
	}
	err := d.copyInParts(ctx, from, to, o)
	if notImplemented(err) {
		err = d.copyWhole(ctx, from, to, o)
		if err != nil && !errors.Is(err, blobs.ErrUnavailable) && ctx.Err() == nil {
			return from, nil // too large to move here: it stays
		}
	}
	return to, err
}

// copyVerifying copies and compares the checksum that the server has computed.
func (d *Driver) copyVerifying(ctx context.Context, from, to string, o blobs.Object, digest blobs.Digest) error {
	sum, size, err := d.copyHashed(ctx, from, to, o.Version)
	if err != nil {
		return err
	}
	if size == o.Size && hex.EncodeToString(sum) == digest.Hex() {
		return nil
	}
	// No checksum against the self-test, or a wrong one, perhaps of another kind:
	// ask the bytes before a client's upload is thrown away.
	err = d.verify(ctx, to, o.Size, digest)
	if errors.Is(err, blobs.ErrDigestMismatch) {
		return errors.Join(err, d.remove(ctx, to))
	}
	return err
}

// copyHashed copies an object and returns the SHA-256 of all of it as the server
// tells it, in its answer or in the head of the copy; nil if it does not.
func (d *Driver) copyHashed(ctx context.Context, from, to, version string) (sum []byte, size int64, err error) {
	in := d.copyInput(from, to, version)
	in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	out, err := d.client.CopyObject(ctx, in)
	if err != nil {
		return nil, 0, fmt.Errorf("copying an object: %w", explain(err))
	}
	asking, cancel := context.WithTimeout(ctx, d.quickTimeout)
	defer cancel()
	head, err := d.client.HeadObject(asking, &s3.HeadObjectInput{Bucket: &d.bucket, Key: d.key(to), ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		return nil, 0, fmt.Errorf("asking for the head of a copy: %w", explain(err))
	}
	sum = fullChecksum(head.ChecksumSHA256, head.ChecksumType)
	if sum == nil && out.CopyObjectResult != nil {
		sum = fullChecksum(out.CopyObjectResult.ChecksumSHA256, out.CopyObjectResult.ChecksumType)
	}
	return sum, aws.ToInt64(head.ContentLength), nil
}

// fullChecksum decodes a checksum unless it is one of checksums of parts.
func fullChecksum(encoded *string, kind types.ChecksumType) []byte {
	sum, err := base64.StdEncoding.DecodeString(aws.ToString(encoded))
	if err != nil || len(sum) != sha256.Size || kind == types.ChecksumTypeComposite {
		return nil
	}
	return sum
}

func (d *Driver) copyInput(from, to, version string) *s3.CopyObjectInput {
	in := &s3.CopyObjectInput{Bucket: &d.bucket, Key: d.key(to), CopySource: d.copySource(from)}
	if version != "" {
		in.CopySourceIfMatch = &version
	}
	return in
}

func (d *Driver) copySource(key string) *string {
	return aws.String(httpbinding.EscapePath(d.bucket+"/"+*d.key(key), false))
}

// copyWhole copies a verified object in one request.
func (d *Driver) copyWhole(ctx context.Context, from, to string, o blobs.Object) error {
	if _, err := d.client.CopyObject(ctx, d.copyInput(from, to, o.Version)); err != nil {
		return fmt.Errorf("copying an object: %w", explain(err))
	}
	return d.expectSize(ctx, to, o.Size)
}

// expectSize looks at a copy once more: servers have answered 200 to copies that
// failed.
func (d *Driver) expectSize(ctx context.Context, key string, size int64) error {
	copied, err := d.Stat(ctx, key)
	if errors.Is(err, blobs.ErrBlobNotFound) {
		return errors.New("there is no copy though the server said so")
	}
	if err != nil {
		return fmt.Errorf("looking at a copy: %w", err)
	}
	if copied.Size != size {
		return fmt.Errorf("a copy has %d bytes of %d", copied.Size, size)
	}
	return nil
}

// copyInParts copies a verified object of any size, in parts of equal size but
// the last.
func (d *Driver) copyInParts(ctx context.Context, from, to string, o blobs.Object) error {
	if err := d.abortAll(ctx, to); err != nil { // left by an attempt that was killed
		return err
	}
	id, err := d.createUpload(ctx, to)
	if err != nil {
		return err
	}
	parts, err := d.copyParts(ctx, from, to, id, o)
	if err == nil {
		_, err = d.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &d.bucket, Key: d.key(to), UploadId: &id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if noSuchUpload(err) {
			err = nil // completed by an attempt whose answer was lost; the size will tell
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("copying an object in parts: %w", explain(err)), d.abortUpload(context.WithoutCancel(ctx), to, id))
	}
	return d.expectSize(ctx, to, o.Size)
}

func (d *Driver) copyParts(ctx context.Context, from, to, uploadID string, o blobs.Object) ([]types.CompletedPart, error) {
	parts := make([]types.CompletedPart, (o.Size+d.copyPartSize-1)/d.copyPartSize)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(copiesAtOnce)
	for i := range parts {
		start := int64(i) * d.copyPartSize
		end := min(start+d.copyPartSize, o.Size) - 1
		group.Go(func() error {
			number := int32(i + 1)
			out, err := d.client.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
				Bucket: &d.bucket, Key: d.key(to), UploadId: &uploadID, PartNumber: &number, CopySource: d.copySource(from),
				CopySourceIfMatch: &o.Version, CopySourceRange: aws.String(fmt.Sprintf("bytes=%d-%d", start, end)),
			})
			if err != nil {
				return err
			}
			if out.CopyPartResult == nil || out.CopyPartResult.ETag == nil {
				return errors.New("the server names no etag of a copied part")
			}
			parts[i] = types.CompletedPart{PartNumber: &number, ETag: out.CopyPartResult.ETag}
			return nil
		})
	}
	return parts, group.Wait()
}

func notImplemented(err error) bool { return hasCode(err, "NotImplemented") || status(err) == 501 }

// copiesWithChecksum says whether a copy's checksum can be trusted to be the
// SHA-256 of its content: a small object, assembled like any upload, is copied
// once. Only a server that is away leaves that open.
func (d *Driver) copiesWithChecksum(ctx context.Context) (bool, error) {
	d.selfTest.Lock()
	defer d.selfTest.Unlock()
	if d.tested {
		return d.sha256, nil
	}
	trusted, err := d.testCopy(ctx)
	if errors.Is(err, blobs.ErrUnavailable) || ctx.Err() != nil {
		return false, fmt.Errorf("testing how objects are copied: %w", err)
	}
	d.tested, d.sha256 = true, trusted && err == nil
	return d.sha256, nil
}

func (d *Driver) testCopy(ctx context.Context) (trusted bool, err error) {
	name := strings.ToLower(rand.Text())
	content := slices.Repeat([]byte(name), 100)
	sum := sha256.Sum256(content)
	upload := blobs.Upload{ID: "selftest-" + name}
	if upload.Handle, err = d.Begin(ctx, upload.ID); err != nil {
		return false, err
	}
	copied := stagingKey(upload.ID) + "-copy"
	defer func() {
		clean := context.WithoutCancel(ctx)
		err = errors.Join(err, d.Discard(clean, upload), d.remove(clean, copied))
	}()
	etag, err := d.WritePart(ctx, upload, 1, strings.NewReader(string(content)), int64(len(content)))
	if err != nil {
		return false, err
	}
	object, err := d.Assemble(ctx, upload, []blobs.Part{{Number: 1, ETag: etag}})
	if err != nil {
		return false, err
	}
	found, size, err := d.copyHashed(ctx, stagingKey(upload.ID), copied, object.Version)
	return size == int64(len(content)) && string(found) == string(sum[:]), err
}
