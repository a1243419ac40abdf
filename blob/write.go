package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	gocloud "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/disk"
	"github.com/genstream/genstream/events/fault"
)

const (
	copyBuffer = 64 << 10
	// parallelParts of one large upload are in memory at once, 5 MiB each with S3.
	// Downloads that run side by side multiply it.
	parallelParts = 2
	takeBack      = 10 * time.Second // for removing what a failed write may have left
	folderMode    = 0o750
	fileMode      = 0o640
)

// put writes one new file and returns once it is durable. Errors wrap ErrBucket.
func (b *Bucket) put(ctx context.Context, key, contentType string, r io.Reader) error {
	put := b.putFile
	if b.dir == "" {
		put = b.putRemote
	}
	err := put(ctx, key, contentType, r)
	if err == nil {
		return nil
	}
	// The file may be there all the same: not synced, or the server's answer was
	// lost. Nobody has heard of its key, unless it says what is in the file: then
	// others may have written, and named, the same.
	if _, ours := events.ParseInputKey(key); !ours {
		err = errors.Join(err, b.unput(ctx, key))
	}
	return fmt.Errorf("write %s: %w: %w", key, ErrBucket, err)
}

func (b *Bucket) putRemote(ctx context.Context, key, contentType string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.bucket.NewWriter(ctx, key, &gocloud.WriterOptions{ContentType: contentType, MaxConcurrency: parallelParts})
	if err != nil {
		return err
	}
	if err := copyAll(w, r); err != nil {
		cancel()  // before Close: it tells every driver to write nothing
		w.Close() // says only that it was cancelled
		return err
	}
	return w.Close()
}

// putFile is put for a directory. gocloud's fileblob syncs nothing: after a power
// cut its files are there and empty. So the steps are these, and a crash between
// them leaves
//
//	make generations/<id>   an empty folder, or none
//	write <key>             a file with any part of the content, or none
//	the shared sync         the file, durable, with the folders that lead to it
//
// and only then may an event name it. Before that, whatever is found is an orphan.
//
// A file for inputs is known by its name alone, so it gets that name when it is
// whole: it is written to <key>.<hex>.tmp, synced, and renamed. That costs two
// syncs, and uploads are few.
func (b *Bucket) putFile(ctx context.Context, key, _ string, r io.Reader) error {
	if b.closed.Load() {
		return errors.New("it has been closed")
	}
	path := b.path(key)
	if _, named := events.ParseInputKey(key); named {
		temp := path + "." + random()[:16] + tempExt
		if err := fault.Around("file.write", func() error { return writeFile(temp, r, (*os.File).Sync) }); err != nil {
			return err
		}
		if err := fault.Around("input.rename", func() error { return os.Rename(temp, path) }); err != nil {
			return errors.Join(err, os.Remove(temp))
		}
	} else if err := fault.Around("file.write", func() error { return writeFile(path, r, nil) }); err != nil {
		return err
	}
	return fault.Around("file.sync", func() error { return b.sync(ctx) })
}

// writeFile makes a file that was not there before, and removes it if it fails.
func writeFile(path string, r io.Reader, sync func(*os.File) error) error {
	create := func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) }
	f, err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(path), folderMode); err == nil || errors.Is(err, fs.ErrExist) {
			f, err = create()
		}
	}
	if err != nil {
		return err
	}
	if err = copyAll(f, r); err == nil && sync != nil {
		err = sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// buffers are for copying: most files are smaller than one.
var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

func copyAll(w io.Writer, r io.Reader) error {
	buffer := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buffer)
	_, err := io.CopyBuffer(writerOnly{w}, readerOnly{r}, buffer[:])
	return err
}

// These hide the shortcuts of io.Copy, which bring buffers of their own.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

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

// path is where a directory keeps the file of a key, which is one of ours.
func (b *Bucket) path(key string) string { return filepath.Join(b.dir, filepath.FromSlash(key)) }

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
	own := disk.NewBarrier(func() error { return disk.SyncTree(dir) })
	return &Bucket{bucket: b, dir: dir, own: own, sync: own.Wait}, nil
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
