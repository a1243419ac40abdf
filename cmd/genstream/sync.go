package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/events/disk"
)

// The values of --fsync, besides a duration. Either way nothing leaves the process
// before what it rests on is on disk.
const (
	fsyncGate   = "gate"
	fsyncAlways = "always"
)

// The bounds of --fsync as a duration.
const (
	shortestLoss = 10 * time.Millisecond
	longestLoss  = 10 * time.Second
)

// parseFsync is how often the disk is synced if nobody waits for it, 0 if
// everybody does.
func parseFsync(s string) (every time.Duration, err error) {
	switch s {
	case "", fsyncGate, fsyncAlways: // empty: the verbs that have no such flag
		return 0, nil
	}
	every, err = time.ParseDuration(s)
	if err != nil || every < shortestLoss || every > longestLoss {
		return 0, fmt.Errorf("--fsync %q is neither %s nor %s nor a time from %s to %s", s, fsyncGate, fsyncAlways, shortestLoss, longestLoss)
	}
	return every, nil
}

// loose says whether answers do not wait for the disk.
func (n *node) loose() bool {
	every, _ := parseFsync(n.cfg.Fsync) // openLog has refused what is none
	return every > 0 && n.server != nil
}

// shareSync has new files of the bucket wait for the same sync as the log, on the
// embedded node: one for all that has come meanwhile.
func (n *node) shareSync() {
	if n.server == nil || n.bucket.Dir() == "" || n.cfg.Fsync == fsyncAlways {
		return
	}
	n.together = sameFileSystem(n.cfg.Data, n.bucket.Dir())
	n.bucket.ShareSync(func(ctx context.Context) error {
		n.files.Store(true) // before it waits: the sync that it waits for begins after this
		return n.stream.Sync(ctx)
	})
}

// syncDisk is that sync: of the log, or of the whole file system of the bucket if
// there are new files.
func (n *node) syncDisk() error {
	if n.files.Swap(false) {
		if err := disk.SyncTree(n.bucket.Dir()); err != nil || n.together {
			return err
		}
	}
	return n.server.SyncLog()
}

// syncEvery syncs at intervals until ctx ends, for --fsync with a duration.
func (n *node) syncEvery(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := n.stream.Sync(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// sameFileSystem says whether one sync brings both to disk. Where it cannot be
// told, it does not.
func sameFileSystem(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev
}
