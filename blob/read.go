package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	gocloud "gocloud.dev/blob"
)

// Reader reads one file, from wherever it is told to: an io.ReadSeekCloser for
// http.ServeContent. It asks the bucket for content only when it is read, so
// that a HEAD, a 304 and a 416 cost one look at the file's attributes. It is for
// one goroutine.
type Reader struct {
	ctx    context.Context // of the call to Read that made it; bounds every access
	bucket *gocloud.Bucket
	key    string
	size   int64
	offset int64
	body   *gocloud.Reader // open at offset, or nil
}

// Read opens the file of key. Errors wrap ErrKey (also for a leftover), ErrNotFound
// or ErrBucket. The context must live as long as the Reader.
func (b *Bucket) Read(ctx context.Context, key string) (*Reader, error) {
	_, _, kind, err := ParseKey(key)
	if err == nil && kind == Leftover {
		err = fmt.Errorf("%w: %q is the leftover of a write", ErrKey, key)
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	attrs, err := b.bucket.Attributes(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, sorted(err))
	}
	return &Reader{ctx: ctx, bucket: b.bucket, key: key, size: attrs.Size}, nil
}

// Size is the length of the file in bytes, as the bucket has it.
func (r *Reader) Size() int64 { return r.size }

// Read implements io.Reader. Errors wrap ErrNotFound if the file was deleted
// meanwhile, else ErrBucket.
func (r *Reader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.body == nil {
		body, err := r.bucket.NewRangeReader(r.ctx, r.key, r.offset, -1, nil)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", r.key, sorted(err))
		}
		r.body = body
	}
	n, err := r.body.Read(p)
	r.offset += int64(n)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && r.offset >= r.size:
		return n, io.EOF
	case err == io.EOF:
		return n, fmt.Errorf("read %s: %w: %w", r.key, ErrBucket, io.ErrUnexpectedEOF)
	}
	return n, fmt.Errorf("read %s: %w", r.key, sorted(err))
}

// Seek implements io.Seeker. A seek to where the reader is keeps its connection.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, errors.New("seek: invalid whence")
	}
	if offset < 0 {
		return 0, errors.New("seek: before the beginning")
	}
	if offset != r.offset && r.body != nil {
		r.body.Close() // what was not read is not missed
		r.body = nil
	}
	r.offset = offset
	return offset, nil
}

// Close implements io.Closer.
func (r *Reader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	if err := body.Close(); err != nil {
		return fmt.Errorf("read %s: %w: %w", r.key, ErrBucket, err)
	}
	return nil
}
