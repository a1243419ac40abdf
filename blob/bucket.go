package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/disk"
)

// ErrBucket is wrapped by every error that is the bucket's, or comes of the
// context: what was to be written, read or deleted is as good as before, and the
// same call may succeed later.
var ErrBucket = errors.New("the bucket failed")

// ErrType is wrapped by Keep's error for content that is of no kind that is
// kept, empty content included.
var ErrType = errors.New("a type of file that is not kept")

// ErrSize is wrapped by Keep's error for content of more than its limit.
var ErrSize = errors.New("file too large")

// ErrNotFound is wrapped by errors about a well-formed key that has no file.
var ErrNotFound = errors.New("no such file")

// Bucket is where the files are. Its methods may be called from any goroutine
// until Close.
type Bucket struct {
	bucket *gocloud.Bucket
	inputs sync.Mutex // held while a file of an input is written

	// Of a bucket that is a directory:
	dir    string // its root; else empty
	closed atomic.Bool
	own    *disk.Barrier
	sync   func(context.Context) error // own.Wait, or that of ShareSync
}

// ShareSync has new files of a directory wait for a sync that others share, in
// place of the bucket's own: wait must return nil only once a sync of the whole
// file system that the directory is on has ended that began after the call. It
// is called before the first write. Buckets that are no directory take no notice.
func (b *Bucket) ShareSync(wait func(context.Context) error) { b.sync = wait }

// Dir is the directory that the bucket is; empty if it is none.
func (b *Bucket) Dir() string { return b.dir }

// Broken is closed when a sync of a directory, the bucket's own, has failed:
// nothing can be written any more, and the process should end. Err says why. For
// other buckets it is nil.
func (b *Bucket) Broken() <-chan struct{} {
	if b.own == nil {
		return nil
	}
	return b.own.Broken()
}

// Err is why Broken is closed, nil while it is not.
func (b *Bucket) Err() error {
	if b.own == nil {
		return nil
	}
	return b.own.Err()
}

// Open opens the bucket at rawURL:
//
//	file:///var/lib/genstream/bucket   a directory, which is created if there is none
//	/var/lib/genstream/bucket          the same: whatever has no scheme is a path
//	mem://                             memory of this process, for tests
//	s3://name?region=…                 S3 and its like, also with endpoint=https://…&use_path_style=true
//
// and the other URLs of gocloud.dev, if their driver is linked in. Only a
// directory is touched, and it must be on a file system that can sync a folder.
func Open(ctx context.Context, rawURL string) (*Bucket, error) {
	dir, ok, err := directory(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if ok {
		return openDirectory(dir)
	}
	b, err := gocloud.OpenBucket(ctx, rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Bucket{bucket: b}, nil
}

// directory is the path of a bucket that is a directory.
func directory(rawURL string) (dir string, ok bool, err error) {
	if !strings.Contains(rawURL, "://") {
		if rawURL == "" {
			return "", false, errors.New("no URL")
		}
		return rawURL, true, nil
	}
	if !strings.HasPrefix(rawURL, "file:") {
		return "", false, nil
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return "", false, err
	case u.Host != "" && u.Host != "localhost":
		return "", false, fmt.Errorf("file://%s names a host; a path takes three slashes, file:///%s", u.Host, u.Host)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", false, errors.New("a file URL is a path and nothing else; write ? and # as %3F and %23")
	case u.Path == "" || u.Path == "/":
		return "", false, errors.New("a file URL needs a path below /")
	}
	return u.Path, true, nil
}

// Close ends the use of the bucket.
func (b *Bucket) Close() error {
	b.closed.Store(true)
	if err := b.bucket.Close(); err != nil {
		return fmt.Errorf("close bucket: %w", err)
	}
	return nil
}

// Keep writes the content of r as the file of one output, under a key that never
// was before, and returns what an event says of it. The file is durable then.
//
// limit is in bytes and positive. Errors wrap ErrType, ErrSize, ErrBucket, or what r
// returned; nothing is left in the bucket. A cancelled ctx is ErrBucket and the
// context's cause. Keep does not interrupt a Read of r that hangs.
func (b *Bucket) Keep(ctx context.Context, id events.ID, slot int, r io.Reader, limit int64) (events.File, error) {
	if limit <= 0 {
		panic("blob: Keep without a limit")
	}
	src := &source{ctx: ctx, r: r, limit: limit, sum: sha256.New()}
	head := make([]byte, sniffLen)
	n, _ := io.ReadFull(src, head) // src remembers every error but the end
	if src.err != nil {
		return events.File{}, fmt.Errorf("keep generation=%s slot=%d: %w", id, slot, src.err)
	}
	f, ok := formatOf(head[:n])
	if !ok {
		return events.File{}, fmt.Errorf("keep generation=%s slot=%d: %w", id, slot, ErrType)
	}
	key := Key(id, slot, random(), f.ext)
	err := b.put(ctx, key, f.contentType, io.MultiReader(bytes.NewReader(head[:n]), src))
	switch {
	case src.err != nil: // the bucket only passed it on
		return events.File{}, fmt.Errorf("keep generation=%s slot=%d: %w", id, slot, src.err)
	case err != nil:
		return events.File{}, err
	}
	return events.File{
		BlobKey: key, ContentType: f.contentType,
		Size: src.n, SHA256: hex.EncodeToString(src.sum.Sum(nil)),
	}, nil
}

// KeepRaw writes a delivery as it came and returns its key, as durable as Keep.
// Errors wrap ErrBucket.
func (b *Bucket) KeepRaw(ctx context.Context, id events.ID, body []byte) (key string, err error) {
	key = RawKey(id, random())
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("write %s: %w: %w", key, ErrBucket, context.Cause(ctx))
	}
	if err := b.put(ctx, key, "application/json", bytes.NewReader(body)); err != nil {
		return "", err
	}
	return key, nil
}

// Delete removes the file, or the leftover, of key. Errors wrap ErrKey,
// ErrNotFound or ErrBucket. A power cut may bring the file of a directory back;
// whoever deletes by comparing with the log deletes it again.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if _, _, _, err := ParseKey(key); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if err := b.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, sorted(err))
	}
	return nil
}

// sorted is a driver's error as one of ours.
func sorted(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("%w: %w", ErrBucket, err)
}

// source is the way of the content through Keep: counted, hashed and bounded. It
// remembers its first error, so that Keep can tell a bad reader from a bad bucket.
type source struct {
	ctx   context.Context // of the call to Keep
	r     io.Reader
	limit int64
	sum   hash.Hash
	n     int64 // bytes so far
	err   error // other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.ctx.Err() != nil {
		s.err = fmt.Errorf("%w: %w", ErrBucket, context.Cause(s.ctx))
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.sum.Write(p[:n])
	switch {
	case s.n > s.limit:
		s.err = fmt.Errorf("%w: over %d bytes", ErrSize, s.limit)
		return 0, s.err
	case err != nil && err != io.EOF:
		s.err = err
	}
	return n, err
}
