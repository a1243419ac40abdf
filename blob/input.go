package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/genstream/genstream/events"
)

// ErrUnsigned is wrapped by SignInput's error for a bucket that has no addresses
// of its own: a directory, or memory.
var ErrUnsigned = errors.New("the bucket signs no addresses")

// KeepInput writes the content of r as a file for inputs, under a key that is made
// of its SHA-256, and returns what there is to say of it. The file is durable then. The
// same content again is the same file: if it is there already, nothing is written
// and fresh is false. Two that write it at once write the same bytes.
//
// The hash is known at the end only, so the content waits in a temporary file in
// spool, a directory (empty: os.TempDir); a killed process leaves nothing there.
// limit is in bytes and positive. Errors wrap ErrType, ErrSize, ErrBucket, or what
// r returned. What a failed write leaves in the bucket is the whole file or none,
// and an orphan until somebody writes it again.
func (b *Bucket) KeepInput(ctx context.Context, r io.Reader, limit int64, spool string) (file events.File, fresh bool, err error) {
	if limit <= 0 {
		panic("blob: KeepInput without a limit")
	}
	src := &source{ctx: ctx, r: r, limit: limit, sum: sha256.New()}
	head := make([]byte, sniffLen)
	n, _ := io.ReadFull(src, head) // src remembers every error but the end
	if src.err != nil {
		return file, false, fmt.Errorf("keep input: %w", src.err)
	}
	kind, ok := formatOf(head[:n])
	if !ok {
		return file, false, fmt.Errorf("keep input: %w", ErrType)
	}
	waiting, err := os.CreateTemp(spool, "input-*")
	if err != nil {
		return file, false, fmt.Errorf("keep input: %w: %w", ErrBucket, err)
	}
	defer waiting.Close()
	_ = os.Remove(waiting.Name()) // where an open file keeps its name, the system's cleaning takes it
	_, err = io.CopyBuffer(struct{ io.Writer }{waiting}, io.MultiReader(bytes.NewReader(head[:n]), src), make([]byte, copyBuffer))
	switch {
	case src.err != nil:
		return file, false, fmt.Errorf("keep input: %w", src.err)
	case err != nil:
		return file, false, fmt.Errorf("keep input: %w: %w", ErrBucket, err)
	}
	file = events.File{ContentType: kind.contentType, Size: src.n, SHA256: hex.EncodeToString(src.sum.Sum(nil))}
	file.BlobKey = events.InputKey(file.SHA256)
	// One at a time: of those who bring the same file at once, one writes it. Two
	// writers of one key can be given one temporary file by the driver, too.
	b.inputs.Lock()
	defer b.inputs.Unlock()
	if known, err := b.hasInput(ctx, file); known || err != nil {
		return file, false, err
	}
	if _, err := waiting.Seek(0, io.SeekStart); err != nil {
		return file, false, fmt.Errorf("keep input: %w: %w", ErrBucket, err)
	}
	return file, true, b.put(ctx, file.BlobKey, file.ContentType, waiting)
}

// hasInput says whether the file is in the bucket, durable. One of another size is
// damage, and is written anew.
func (b *Bucket) hasInput(ctx context.Context, file events.File) (bool, error) {
	attrs, err := b.bucket.Attributes(ctx, file.BlobKey)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound, err == nil && attrs.Size != file.Size:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("keep input: %w", sorted(err))
	}
	// Whoever wrote it may have been killed, or be, between renaming it and this.
	if b.dir != "" {
		if err := b.sync(ctx); err != nil {
			return false, fmt.Errorf("keep input: %w: %w", ErrBucket, err)
		}
	}
	return true, nil
}

// OpenInput opens the file for inputs with this SHA-256 in lower-case hex, and says
// what it is. Whoever must rely on the content hashes it. Errors wrap ErrKey,
// ErrNotFound, ErrBucket, or ErrType for a file that was damaged.
func (b *Bucket) OpenInput(ctx context.Context, sha256 string) (*Reader, events.File, error) {
	file := events.File{BlobKey: events.InputKey(sha256), SHA256: sha256}
	r, err := b.Read(ctx, file.BlobKey)
	if err != nil {
		return nil, file, err
	}
	head := make([]byte, sniffLen)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, file, errors.Join(err, r.Close())
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, file, errors.Join(err, r.Close())
	}
	kind, ok := formatOf(head[:n])
	if !ok {
		return nil, file, errors.Join(fmt.Errorf("read %s: %w", file.BlobKey, ErrType), r.Close())
	}
	file.ContentType, file.Size = kind.contentType, r.Size()
	return r, file, nil
}

// SignInput is an address at which everybody who has it can read the file for
// inputs with this SHA-256 for as long as expiry. Whether that address can be reached
// from elsewhere, and whether the file is there, it does not say. Errors wrap
// ErrKey, ErrUnsigned or ErrBucket.
func (b *Bucket) SignInput(ctx context.Context, sha256 string, expiry time.Duration) (string, error) {
	key := events.InputKey(sha256)
	if _, _, kind, err := ParseKey(key); err != nil || kind != InputFile {
		return "", fmt.Errorf("sign: %w: %q", ErrKey, events.Cut(key, 128))
	}
	u, err := b.bucket.SignedURL(ctx, key, &gocloud.SignedURLOptions{Expiry: expiry})
	switch {
	case gcerrors.Code(err) == gcerrors.Unimplemented:
		return "", fmt.Errorf("sign %s: %w", key, ErrUnsigned)
	case err != nil:
		return "", fmt.Errorf("sign %s: %w: %w", key, ErrBucket, err)
	}
	return u, nil
}
