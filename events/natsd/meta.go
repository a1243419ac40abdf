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
	return eachStream(streamsDir(store), func(name string) error {
		for _, m := range metaFiles {
			from, to := filepath.Join(streamsDir(store), name, m), filepath.Join(asideDir(store), name, m)
			b, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, b) {
				continue
			}
			if err := replaceSynced(store, to, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// mendMeta puts back what a power cut has destroyed. It is called before the
// server starts.
func mendMeta(store string) error {
	return eachStream(asideDir(store), func(name string) error {
		aside, dir := filepath.Join(asideDir(store), name), filepath.Join(streamsDir(store), name)
		if _, err := os.Stat(filepath.Join(dir, "msgs")); err != nil {
			return nil // the stream itself is gone: nothing to mend, and not to be hidden
		}
		var whole, broken []string
		for _, m := range metaFiles {
			if damaged(filepath.Join(aside, m)) {
				return nil // keepMeta had not finished
			}
			if damaged(filepath.Join(dir, m)) {
				broken = append(broken, m)
			} else {
				whole = append(whole, m)
			}
		}
		if len(broken) == 0 {
			return nil
		}
		// One file is the other's checksum, so both are put back; the broken ones last,
		// for a second cut in between to find something to mend again.
		for _, m := range append(whole, broken...) {
			b, err := os.ReadFile(filepath.Join(aside, m))
			if err != nil {
				return err
			}
			if err := replaceSynced(store, filepath.Join(dir, m), b); err != nil {
				return err
			}
		}
		return nil
	})
}

// damaged says whether a file is missing or holds nothing but zeroes, which is
// what a cut leaves. One that cannot be read is for the server to complain about.
func damaged(path string) bool {
	b, err := os.ReadFile(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.Trim(b, "\x00")) == 0
}

func asideDir(store string) string { return filepath.Join(store, "meta") }

// eachStream calls f with the name of each folder in dir.
func eachStream(dir string, f func(name string) error) error {
	streams, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read streams' metadata: %w", err)
	}
	for _, s := range streams {
		if !s.IsDir() {
			continue
		}
		if err := f(s.Name()); err != nil {
			return fmt.Errorf("metadata of stream %s: %w", s.Name(), err)
		}
	}
	return nil
}

// replaceSynced writes a file below store so that a restart finds it whole, or as
// it was.
func replaceSynced(store, path string, b []byte) error {
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
	store = filepath.Clean(store)
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) { // the folders may be new as well
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		if dir == store || dir == filepath.Dir(dir) {
			return nil
		}
	}
}
