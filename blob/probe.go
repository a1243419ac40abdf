package blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/gcerrors"
)

// probes is where Probe writes. ParseKey accepts nothing in it, so no list, gc or
// check ever sees a probe, and a kill in the midst of one leaves a file there that
// anybody may delete.
const probes = "probes"

// probeSize is that of a small picture, and longer than a driver's first read.
const probeSize = 256 << 10

// Probe is how long each step took.
type Probe struct {
	Write  time.Duration // until the file was durable, as Keep would have it
	Read   time.Duration // all of it
	Range  time.Duration // a part in the middle
	Delete time.Duration
}

// Probe does with a file of its own everything that is ever done with one: it
// writes, reads, reads a range, and deletes. The error says which step failed, and
// wraps ErrBucket.
func (b *Bucket) Probe(ctx context.Context) (p Probe, err error) {
	key := probes + "/" + random()
	body := make([]byte, probeSize)
	rand.Read(body)
	step := func(name string, took *time.Duration, do func() error) {
		if err != nil {
			return
		}
		started := time.Now()
		if err = do(); err != nil && !errors.Is(err, ErrBucket) {
			err = fmt.Errorf("%w: %w", ErrBucket, err)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		*took = time.Since(started)
	}
	step("write", &p.Write, func() error { return b.put(ctx, key, "application/octet-stream", bytes.NewReader(body)) })
	if err != nil {
		return p, err
	}
	deleted := false
	defer func() { err = errors.Join(err, b.forget(ctx, key, deleted)) }()
	step("read", &p.Read, func() error { return b.compare(ctx, key, 0, body) })
	step("read a range", &p.Range, func() error { return b.compare(ctx, key, probeSize/2, body[probeSize/2:probeSize/2+1000]) })
	step("delete", &p.Delete, func() error { return b.bucket.Delete(ctx, key) })
	if deleted = err == nil; !deleted {
		return p, err
	}
	there, err := b.bucket.Exists(ctx, key)
	if err == nil && there {
		err = errors.New("the file is there afterwards")
	}
	if err != nil {
		return p, fmt.Errorf("delete: %w: %w", ErrBucket, err)
	}
	return p, nil
}

// compare reads from offset as many bytes as want has, and compares.
func (b *Bucket) compare(ctx context.Context, key string, offset int64, want []byte) error {
	r, err := b.bucket.NewRangeReader(ctx, key, offset, int64(len(want)), nil)
	if err != nil {
		return err
	}
	have, err := io.ReadAll(io.LimitReader(r, int64(len(want))+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%d bytes came back, and they are not the %d that were written", len(have), len(want))
	}
	return nil
}

// forget removes what a probe leaves: its file, unless it is deleted, and the
// folder in a directory.
func (b *Bucket) forget(ctx context.Context, key string, deleted bool) error {
	var err error
	if !deleted {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBack)
		defer cancel()
		if err = b.bucket.Delete(ctx, key); gcerrors.Code(err) == gcerrors.NotFound {
			err = nil
		}
	}
	if b.dir != "" {
		_ = os.Remove(filepath.Join(b.dir, probes)) // not empty: another probe is in it
	}
	return err
}
