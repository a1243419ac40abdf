package natsd

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/genstream/genstream/events/stream"
)

// blockDir is a folder of block files, as old as a running server's.
func blockDir(t *testing.T, names ...string) *blocks {
	t.Helper()
	b := &blocks{dir: t.TempDir()}
	for _, name := range names {
		b.write(t, name, name)
	}
	b.age(t, 1)
	return b
}

func (b *blocks) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age sets the folder's time back by so many hours.
func (b *blocks) age(t *testing.T, hours int) {
	t.Helper()
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(b.dir, at, at); err != nil {
		t.Fatal(err)
	}
}

// synced syncs, and wants the file of that name to be the last one that was.
func (b *blocks) synced(t *testing.T, want string) {
	t.Helper()
	if err := b.sync(); err != nil {
		t.Fatal(err)
	}
	have, err := b.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.Stat(filepath.Join(b.dir, want))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(have, now) {
		t.Errorf("synced %s up to number %d, want %s as it is now", b.file.Name(), b.index, want)
	}
}

func TestSyncReachesTheFileThatIsWritten(t *testing.T) {
	t.Run("first call", func(t *testing.T) {
		blockDir(t, "1.blk", "2.blk", "10.blk", "index.db", "x.blk", "11.key").synced(t, "10.blk") // 10 comes after 2
	})
	t.Run("nothing new", func(t *testing.T) {
		b := blockDir(t, "1.blk")
		b.synced(t, "1.blk")
		b.synced(t, "1.blk")
	})
	t.Run("new files", func(t *testing.T) {
		b := blockDir(t, "1.blk")
		b.synced(t, "1.blk")
		b.write(t, "2.blk", "")
		b.write(t, "3.blk", "")
		b.synced(t, "3.blk")
	})
	t.Run("a new file whose folder looks unchanged", func(t *testing.T) {
		b := blockDir(t, "1.blk")
		b.synced(t, "1.blk")
		changed := b.changed
		b.write(t, "2.blk", "")
		if err := os.Chtimes(b.dir, changed, changed); err != nil {
			t.Fatal(err)
		}
		b.synced(t, "2.blk")
	})
	t.Run("gap in the numbers", func(t *testing.T) {
		b := blockDir(t, "1.blk")
		b.synced(t, "1.blk")
		b.write(t, "3.blk", "")
		b.write(t, "7.blk", "")
		b.synced(t, "7.blk")
	})
	t.Run("gap right after a change of the folder", func(t *testing.T) {
		b := blockDir(t, "1.blk")
		b.age(t, -1) // younger than a step of the clock, however slow this test is
		info, err := os.Stat(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		b.synced(t, "1.blk")
		b.write(t, "3.blk", "")
		if err := os.Chtimes(b.dir, time.Time{}, info.ModTime()); err != nil { // the clock has not moved
			t.Fatal(err)
		}
		b.synced(t, "3.blk")
	})
	t.Run("file written anew", func(t *testing.T) {
		b := blockDir(t, "1.blk", "2.blk")
		b.synced(t, "2.blk")
		b.write(t, "new", "2 again")
		if err := os.Rename(filepath.Join(b.dir, "new"), b.path(2)); err != nil {
			t.Fatal(err)
		}
		b.synced(t, "2.blk")
	})
	t.Run("last file gone", func(t *testing.T) {
		b := blockDir(t, "1.blk", "2.blk")
		b.synced(t, "2.blk")
		if err := os.Remove(b.path(2)); err != nil {
			t.Fatal(err)
		}
		b.synced(t, "1.blk")
	})
}

// A sync that has nothing to sync must not pass for one.
func TestSyncWithoutFilesFails(t *testing.T) {
	if err := blockDir(t, "index.db").sync(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folder: %v, want ErrNotExist", err)
	}
	if err := (&blocks{dir: filepath.Join(t.TempDir(), "none")}).sync(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v, want ErrNotExist", err)
	}
	b := blockDir(t, "1.blk")
	b.synced(t, "1.blk")
	if err := os.Remove(b.path(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.sync(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("all files gone: %v, want ErrNotExist", err)
	}
}

// openStore starts a server on dir and opens the log in it.
func openStore(t *testing.T, dir string, create bool) (*Server, error) {
	t.Helper()
	s, err := Start(Config{Dir: dir, Gate: true})
	if err != nil {
		return nil, err
	}
	if _, err = stream.Open(t.Context(), s.Conn(), stream.Config{Create: create, Own: true, Sync: s.SyncLog, SyncAll: s.SyncAll}); err == nil {
		err = s.KeepMeta()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Whatever a cut leaves of the metadata of a stream, the server starts with the
// stream, and the files are what they were.
func TestDamagedMetadataIsMended(t *testing.T) {
	store := t.TempDir()
	s, err := openStore(t, store, true)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	dir := filepath.Join(streamsDir(store), stream.Name)
	damage := map[string]func(path string) error{
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"missing": os.Remove,
		"zeroed": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, make([]byte, info.Size()), 0o600)
		},
	}
	for how, do := range damage {
		for _, which := range [][]string{{"meta.inf"}, {"meta.sum"}, {"meta.inf", "meta.sum"}} {
			t.Run(how+" "+which[0]+" of "+[]string{"one", "two"}[len(which)-1], func(t *testing.T) {
				want := map[string][]byte{}
				for _, m := range metaFiles {
					b, err := os.ReadFile(filepath.Join(dir, m))
					if err != nil {
						t.Fatal(err)
					}
					want[m] = b
				}
				for _, m := range which {
					if err := do(filepath.Join(dir, m)); err != nil {
						t.Fatal(err)
					}
				}
				s, err := openStore(t, store, false) // false: a stream that is gone is an error
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				for m, b := range want {
					if have, err := os.ReadFile(filepath.Join(dir, m)); err != nil || !bytes.Equal(have, b) {
						t.Errorf("%s is %q, %v; want %q", m, have, err, b)
					}
				}
			})
		}
	}
}

// One file is the other's checksum: a newer one beside a broken one is not kept.
func TestMetadataIsMendedAsAPair(t *testing.T) {
	store := t.TempDir()
	put := func(path, text string) {
		t.Helper()
		if err := replaceSynced(store, path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(streamsDir(store), "S")
	put(filepath.Join(dir, "msgs", "1.blk"), "messages")
	put(filepath.Join(dir, "meta.inf"), "old")
	put(filepath.Join(dir, "meta.sum"), "sum of old")
	if err := keepMeta(store); err != nil {
		t.Fatal(err)
	}
	for whole, broken := range map[string]string{"meta.inf": "meta.sum", "meta.sum": "meta.inf"} {
		put(filepath.Join(dir, whole), "new")
		put(filepath.Join(dir, broken), "\x00\x00\x00")
		if err := mendMeta(store); err != nil {
			t.Fatal(err)
		}
		for m, want := range map[string]string{"meta.inf": "old", "meta.sum": "sum of old"} {
			if b, err := os.ReadFile(filepath.Join(dir, m)); err != nil || string(b) != want {
				t.Errorf("%s broken: %s is %q, %v; want %q", broken, m, b, err, want)
			}
		}
	}
	// What is whole is left alone, and a copy that was never finished is of no use.
	put(filepath.Join(dir, "meta.inf"), "newer")
	if err := mendMeta(store); err != nil {
		t.Fatal(err)
	}
	put(filepath.Join(asideDir(store), "S", "meta.sum"), "")
	put(filepath.Join(dir, "meta.sum"), "")
	if err := mendMeta(store); err != nil {
		t.Fatal(err)
	}
	for m, want := range map[string]string{"meta.inf": "newer", "meta.sum": ""} {
		if b, err := os.ReadFile(filepath.Join(dir, m)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v; want %q", m, b, err, want)
		}
	}
}

// A stream whose folder is gone is damage to be told, not to be papered over.
func TestLostStreamIsNotHidden(t *testing.T) {
	store := t.TempDir()
	s, err := openStore(t, store, true)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	dir := filepath.Join(streamsDir(store), stream.Name)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err = openStore(t, store, false); !errors.Is(err, stream.ErrMissing) {
		t.Errorf("open: %v, want ErrMissing", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the lost stream is there again: %v", err)
	}
}
