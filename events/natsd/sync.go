package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/events/disk"
	"github.com/genstream/genstream/events/stream"
)

// blocks are the files that the log's messages are in: 1.blk, 2.blk, … of which
// the server appends to the last and leaves the others alone. Syncing what has
// changed costs a neighbour on the same file system nothing, and is not slowed
// down by him.
type blocks struct {
	dir string

	mu      sync.Mutex
	file    *os.File // the last one that was synced; nil at first
	index   int      // its number
	changed time.Time
}

// SyncLog brings everything that the server has written to the log so far to disk.
func (s *Server) SyncLog() error { return s.blocks.sync() }

// SyncAll brings everything on the store's file system to disk. It is for what
// SyncLog does not cover: new streams and their metadata, and other streams.
func (s *Server) SyncAll() error { return disk.SyncTree(s.dir) }

func (b *blocks) sync() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.syncChanged(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

// syncChanged syncs the last file, and each that came after it, in order. A file
// that appears while it runs holds nothing that the caller waits for.
func (b *blocks) syncChanged() error {
	if b.file == nil {
		if err := b.open(0); err != nil {
			return err
		}
	}
	for {
		if err := unix.Fdatasync(int(b.file.Fd())); err != nil {
			return err
		}
		next, err := b.next()
		if err != nil || next == 0 {
			return err
		}
		if err := b.open(next); err != nil {
			return err
		}
	}
}

// open makes a file the last one, 0 for whichever is, and syncs its name.
func (b *blocks) open(index int) error {
	if index == 0 {
		all, err := b.list()
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return fs.ErrNotExist
		}
		index = all[len(all)-1]
	}
	f, err := os.Open(b.path(index))
	if err != nil {
		return err
	}
	if b.file != nil {
		b.file.Close()
	}
	b.file, b.index = f, index
	dir, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// next is the file after the last one, 0 if there is none. It is the next number;
// should the server ever leave one out, or write a file anew, the folder's time
// tells that there is something to look for.
func (b *blocks) next() (int, error) {
	if _, err := os.Stat(b.path(b.index + 1)); err == nil {
		return b.index + 1, nil
	}
	info, err := os.Stat(b.dir)
	if err != nil || info.ModTime().Equal(b.changed) {
		return 0, err
	}
	all, err := b.list()
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, fs.ErrNotExist
	}
	if time.Since(info.ModTime()) > clockStep { // or the next change may bear the same time
		b.changed = info.ModTime()
	}
	have, err1 := b.file.Stat()
	now, err2 := os.Stat(b.path(b.index))
	if err1 != nil || err2 != nil || !os.SameFile(have, now) {
		return all[len(all)-1], nil
	}
	if i, found := slices.BinarySearch(all, b.index); found && i+1 < len(all) {
		return all[i+1], nil
	}
	return 0, nil
}

// clockStep is more than a step of the clock that file systems take their times
// from: 10 ms where the kernel ticks slowest (linux, CONFIG_HZ).
const clockStep = 50 * time.Millisecond

func (b *blocks) list() ([]int, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".blk")); err == nil && strings.HasSuffix(e.Name(), ".blk") {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

func (b *blocks) path(index int) string { return filepath.Join(b.dir, strconv.Itoa(index)+".blk") }

// streamsDir is where the server keeps the streams of its global account
// (nats-server, server/jetstream.go).
func streamsDir(store string) string {
	return filepath.Join(store, "jetstream", "$G", "streams")
}

func logBlocks(store string) *blocks {
	return &blocks{dir: filepath.Join(streamsDir(store), stream.Name, "msgs")}
}
