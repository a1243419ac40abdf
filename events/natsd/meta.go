package natsd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// metaFiles are the small files that make a folder a stream. The server writes
// them when a stream is created, and a power cut at the wrong moment can leave
// one empty or zeroed: the stream, with all its messages, would be gone.
var metaFiles = [...]string{"meta.inf", "meta.sum"}

// keepMeta copies the streams' metadata aside, on disk. It is called once the
// streams are there and synced; they do not change after that.
func keepMeta(store string) error {
	return eachMeta(streamsDir(store), func(name string) error {
		from, to := filepath.Join(streamsDir(store), name), filepath.Join(asideDir(store), name)
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, b) {
			return nil
		}
		return replaceSynced(to, b)
	})
}

// mendMeta puts back what a power cut has destroyed. It is called before the
// server starts.
func mendMeta(store string) error {
	return eachMeta(asideDir(store), func(name string) error {
		from, to := filepath.Join(asideDir(store), name), filepath.Join(streamsDir(store), name)
		good, err := os.ReadFile(from)
		if err != nil || damaged(good) {
			return err
		}
		have, err := os.ReadFile(to)
		if errors.Is(err, fs.ErrNotExist) || err == nil && damaged(have) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(to), "msgs")); err != nil {
				return nil // the stream itself is gone: nothing to mend, and not to be hidden
			}
			return replaceSynced(to, good)
		}
		return err
	})
}

// damaged says whether a file holds nothing but zeroes, which is what a cut leaves.
func damaged(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func asideDir(store string) string { return filepath.Join(store, "meta") }

// eachMeta calls f with the path, below dir, of each metadata file that there
// is, or should be beside one that there is.
func eachMeta(dir string, f func(name string) error) error {
	streams, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read streams' metadata: %w", err)
	}
	for _, s := range streams {
		for _, m := range metaFiles {
			if !s.IsDir() {
				continue
			}
			if err := f(filepath.Join(s.Name(), m)); err != nil {
				return fmt.Errorf("metadata of stream %s: %w", s.Name(), err)
			}
		}
	}
	return nil
}

// replaceSynced writes a file so that a restart finds it whole, or as it was.
func replaceSynced(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) { // the folders may be new as well
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		if filepath.Base(dir) == "meta" || dir == filepath.Dir(dir) {
			return nil
		}
	}
}
