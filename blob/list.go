package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	gocloud "gocloud.dev/blob"

	"github.com/genstream/genstream/events"
)

// Object is a file as a listing shows it.
type Object struct {
	Key     string
	Size    int64 // bytes
	ModTime time.Time
}

// listPage bounds how many names of a folder are in memory at once.
const listPage = 1024

// List yields the files whose keys begin with prefix, in no promised order:
// everything that Keep, KeepRaw and KeepInput have written, or were writing when the
// process was killed, and nothing else. Leftovers and files that are not ours are not shown. A file that comes or goes while the list
// is being read may be shown or not. An error, which wraps ErrBucket, is the last
// that is yielded: a list that ends without one is complete.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return b.only(ctx, prefix, func(k Kind) bool { return k != Leftover })
}

// Leftovers yields what interrupted writes have left under prefix, as List does:
// the temporary files of a directory. Those of writes that are going on just now
// are among them, so whoever deletes them looks at ModTime first. Other buckets
// have none.
func (b *Bucket) Leftovers(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return b.only(ctx, prefix, func(k Kind) bool { return k == Leftover })
}

func (b *Bucket) only(ctx context.Context, prefix string, want func(Kind) bool) iter.Seq2[Object, error] {
	all := b.listRemote
	if b.dir != "" {
		all = b.listDirectory
	}
	return func(yield func(Object, error) bool) {
		for o, err := range all(ctx, prefix) {
			if err != nil {
				yield(Object{}, fmt.Errorf("list %q: %w: %w", prefix, ErrBucket, err))
				return
			}
			if _, _, kind, err := ParseKey(o.Key); err != nil || !want(kind) || !strings.HasPrefix(o.Key, prefix) {
				continue
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (b *Bucket) listRemote(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for it := b.bucket.List(&gocloud.ListOptions{Prefix: prefix}); ; {
			o, err := it.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !yield(Object{Key: o.Key, Size: o.Size, ModTime: o.ModTime}, nil) {
				return
			}
		}
	}
}

// listDirectory reads the folders itself, because fileblob walks the whole tree
// again for every page, and passes over what it cannot read: a gc or a check that
// rests on a list must hear of it.
func (b *Bucket) listDirectory(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if owner := ownerIn(prefix); owner != "" {
			b.listFolder(ctx, folder+"/"+owner, yield)
			return
		}
		if strings.HasPrefix(inputs+"/", prefix) || strings.HasPrefix(prefix, inputs+"/") {
			if !b.listFolder(ctx, inputs, yield) || strings.HasPrefix(prefix, inputs) {
				return
			}
		}
		for e, err := range entries(ctx, filepath.Join(b.dir, folder)) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			base := folder + "/" + e.Name() + "/"
			if _, err := events.ParseID(e.Name()); err != nil || !e.IsDir() ||
				!strings.HasPrefix(base, prefix) {
				continue
			}
			if !b.listFolder(ctx, folder+"/"+e.Name(), yield) {
				return
			}
		}
	}
}

// listFolder yields the files of one generation, or those for inputs, and says
// whether to go on.
func (b *Bucket) listFolder(ctx context.Context, name string, yield func(Object, error) bool) bool {
	for e, err := range entries(ctx, filepath.Join(b.dir, filepath.FromSlash(name))) {
		if errors.Is(err, fs.ErrNotExist) && name != inputs { // deleted meanwhile; inputs is always there
			return true
		}
		var info fs.FileInfo
		if err == nil {
			info, err = e.Info()
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		case err != nil:
			yield(Object{}, err)
			return false
		case info.Mode().IsRegular():
			if !yield(Object{Key: name + "/" + e.Name(), Size: info.Size(), ModTime: info.ModTime()}, nil) {
				return false
			}
		}
	}
	return true
}

// ownerIn is the one generation that a prefix names, or empty.
func ownerIn(prefix string) string {
	top, rest, _ := strings.Cut(prefix, "/")
	owner, _, found := strings.Cut(rest, "/")
	if _, err := events.ParseID(owner); top != folder || !found || err != nil {
		return ""
	}
	return owner
}

// entries yields what is in a folder.
func entries(ctx context.Context, dir string) iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		f, err := os.Open(dir)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		for {
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			page, err := f.ReadDir(listPage)
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}
