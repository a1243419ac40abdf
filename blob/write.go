package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/genstream/genstream/events"
)

const (
	copyBuffer = 64 << 10
	// parallelParts of one large upload are in memory at once, 5 MiB each with S3.
	// Downloads that run side by side multiply it.
	parallelParts = 2
	takeBack      = 10 * time.Second // for removing what a failed write may have left
	folderMode    = 0o750
)

// put writes one new file and returns once it is durable. Errors wrap ErrBucket.
//
// fileblob syncs nothing: after a power cut its files are there and empty. So for
// a directory the steps are these, and a crash between them leaves
//
//	make generations/<id>           an empty folder, or none
//	write to <key>.<hex>.tmp        a leftover with any part of the content
//	sync the file                   a leftover, whole
//	rename it to <key>              either name, the content whole; or neither, if the folder is lost
//	sync generations/<id>           the same: the file has its name, but its folder may have none
//	sync generations                the file, durable
//
// and only then may an event name it. Before that, whatever is found is an orphan.
// The folders generations and inputs and those above them were synced by
// openDirectory; an input's file stands in its folder directly.
func (b *Bucket) put(ctx context.Context, key, contentType string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var file *os.File // the temporary file, if the bucket is a directory
	opts := gocloud.WriterOptions{ContentType: contentType, MaxConcurrency: parallelParts}
	if b.dir != "" {
		opts.BeforeWrite = func(as func(any) bool) error {
			if !as(&file) {
				return errors.New("fileblob gives no *os.File to sync")
			}
			return nil
		}
	}
	w, err := b.bucket.NewWriter(ctx, key, &opts)
	if err != nil {
		return fmt.Errorf("write %s: %w: %w", key, ErrBucket, err)
	}
	// Only Write, not ReadFrom: that copies in small pieces.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, copyBuffer))
	if err == nil && file != nil {
		err = file.Sync()
	}
	if err != nil {
		cancel()  // before Close: it tells every driver to write nothing
		w.Close() // says only that it was cancelled
		err = errors.Join(err, removeTemp(file))
		return fmt.Errorf("write %s: %w: %w", key, ErrBucket, err)
	}
	if err = w.Close(); err == nil {
		err = b.syncFolders(key)
	}
	if err != nil {
		// The file may be there all the same: renamed but not synced, or the
		// server's answer was lost. Nobody has heard of its key, unless it says what
		// is in the file: then others may have written, and named, the same.
		err = errors.Join(err, removeTemp(file))
		if _, ours := events.ParseInputKey(key); !ours {
			err = errors.Join(err, b.unput(ctx, key))
		}
		return fmt.Errorf("write %s: %w: %w", key, ErrBucket, err)
	}
	return nil
}

// unput removes what a failed write may have left, even if ctx has ended. What
// cannot be removed is an orphan.
func (b *Bucket) unput(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBack)
	defer cancel()
	if err := b.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("take it back: %w", err)
	}
	return nil
}

// removeTemp removes the temporary file that fileblob forgets when closing it fails.
func removeTemp(file *os.File) error {
	if file == nil {
		return nil
	}
	if err := os.Remove(file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncFolders makes the name of a new file durable: its own entry, then the entry
// of its generation's folder. The second is never skipped because the folder was
// there already: another writer may have made it a moment ago and not have synced
// it yet. If there is nothing to write, a sync costs next to nothing.
func (b *Bucket) syncFolders(key string) error {
	if b.dir == "" {
		return nil
	}
	own := filepath.Dir(filepath.Join(b.dir, filepath.FromSlash(key)))
	if err := syncFolder(own); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(own))
}

// openDirectory opens the directory dir as a bucket, with what leads to it on
// disk. Temporary files stand beside the final ones (elsewhere they could not be
// renamed across file systems), and there are no sidecar files: the log has the
// content type.
func openDirectory(dir string) (*Bucket, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	tops := []string{filepath.Join(dir, folder), filepath.Join(dir, inputs)}
	for _, top := range tops {
		if err := makeFolder(top); err != nil {
			return nil, fmt.Errorf("open bucket: %w", err)
		}
	}
	// Synced also if they were there: the process that made them may have been
	// killed before it could. A parent that others own may be closed to us.
	for _, d := range append(tops, dir, filepath.Dir(dir)) {
		if err := syncFolder(d); err != nil && (d != filepath.Dir(dir) || !errors.Is(err, fs.ErrPermission)) {
			return nil, fmt.Errorf("open bucket: %w", err)
		}
	}
	b, err := fileblob.OpenBucket(dir, &fileblob.Options{
		NoTempDir: true, Metadata: fileblob.MetadataDontWrite, DirFileMode: folderMode,
	})
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &Bucket{bucket: b, dir: dir}, nil
}

// makeFolder is os.MkdirAll that syncs, from the top down, the folder in which
// each new one stands. A crash leaves the upper part of the path.
func makeFolder(dir string) error {
	err := os.Mkdir(dir, folderMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeFolder(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, folderMode)
	}
	if err == nil {
		return syncFolder(filepath.Dir(dir))
	}
	if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
		return nil
	}
	return err
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
