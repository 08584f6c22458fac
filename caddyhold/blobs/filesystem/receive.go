package filesystem

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
)

// roomInterval is how many bytes are received between two looks at the free
// space.
const roomInterval = 16 << 20

// WritePart appends the part to the upload's data if its turn has come, and
// else stores it in a file of its own. It looks for room before it reads.
func (d *Driver) WritePart(ctx context.Context, u blobs.Upload, part int, body io.Reader, size int64) (string, error) {
	if err := d.room(size); err != nil {
		return "", err
	}
	up, err := d.upload(u.ID)
	if err != nil {
		return "", err
	}
	h, err := up.begin(ctx, part)
	if errors.Is(err, blobs.ErrInvalidUploadID) {
		d.forget(u.ID, up)
	}
	if err != nil {
		return "", err
	}
	if h != nil {
		return d.receiveHead(ctx, up, h, body, size)
	}
	return d.receiveFile(ctx, up, part, body, size)
}

// begin makes the part the head of data if it is next and nobody else is, and
// else returns nil.
func (u *upload) begin(ctx context.Context, part int) (*head, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.load(ctx); err != nil {
		return nil, err
	}
	if u.sealed {
		return nil, errEnded
	}
	if _, waits := u.waiting[part]; waits || u.head != nil || part != u.next() {
		return nil, nil
	}
	return u.newHead(part)
}

// receiveHead receives a part into data.
func (d *Driver) receiveHead(ctx context.Context, u *upload, h *head, body io.Reader, size int64) (string, error) {
	tag, err := d.appendBody(ctx, u, h, body, size)
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		err = u.commit(h, tag)
	}
	if err != nil && u.head == h {
		err = errors.Join(err, u.rollback())
	}
	if u.head == nil && !u.ended && u.loaded {
		u.drain(ctx)
	}
	if err != nil {
		return "", err
	}
	return tag, nil
}

func (d *Driver) appendBody(ctx context.Context, u *upload, h *head, body io.Reader, size int64) (string, error) {
	data, err := u.openData()
	if err != nil {
		return "", err
	}
	disk := writeback{file: data, from: h.start}
	tag, err := d.receive(ctx, body, size, func(piece []byte) error {
		u.mu.Lock()
		err := u.extend(h, data, piece)
		u.mu.Unlock()
		disk.wrote(h.start + h.written)
		return err
	})
	return tag, errors.Join(err, data.Close())
}

// receiveFile receives a part into a file of its own.
func (d *Driver) receiveFile(ctx context.Context, u *upload, part int, body io.Reader, size int64) (string, error) {
	temp := u.file(tempPrefix + rand.Text())
	file, err := u.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if missing(err) {
		return "", errEnded
	}
	if err != nil {
		return "", full(err)
	}
	tag, err := d.receive(ctx, body, size, func(piece []byte) error {
		_, err := file.Write(piece)
		return full(err)
	})
	err = errors.Join(err, full(file.Close()))
	if err == nil {
		err = u.installReceived(ctx, part, temp, tag)
	}
	if err != nil {
		if removeErr := u.root.Remove(temp); !missing(removeErr) {
			err = errors.Join(err, removeErr)
		}
		return "", err
	}
	return tag, nil
}

func (u *upload) installReceived(ctx context.Context, part int, temp, tag string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.load(ctx); err != nil {
		return err
	}
	if u.sealed {
		return errEnded
	}
	return u.install(ctx, part, temp, tag)
}

// receive reads a body of that size, or of any if it is -1, in large pieces and
// returns the ETag of what came.
func (d *Driver) receive(ctx context.Context, body io.Reader, size int64, write func(piece []byte) error) (tag string, err error) {
	sum, total, looked := crc32.New(castagnoli), int64(0), int64(0)
	err = blobs.WithBuffer(func(buf []byte) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, ended, err := fill(body, buf)
			total += int64(n)
			if err != nil {
				return fmt.Errorf("reading the body: %w", err)
			}
			if size >= 0 && total > size {
				return fmt.Errorf("the body is longer than the %d bytes announced", size)
			}
			if total-looked >= roomInterval {
				looked = total
				if err := d.room(0); err != nil {
					return err
				}
			}
			sum.Write(buf[:n])
			if err := write(buf[:n]); err != nil {
				return err
			}
			if ended {
				break
			}
		}
		if size >= 0 && total < size {
			return fmt.Errorf("the body has %d bytes of %d: %w", total, size, io.ErrUnexpectedEOF)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return etag(sum.Sum32(), total), nil
}

// fill reads until buf is full, r has ended, or there is an error.
func fill(r io.Reader, buf []byte) (n int, ended bool, err error) {
	for n < len(buf) {
		read, err := r.Read(buf[n:])
		n += read
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}
