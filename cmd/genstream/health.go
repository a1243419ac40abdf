package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/genstream/genstream/events/natsd"
)

// ready says why requests would make no progress, or nil.
func (n *node) ready() error {
	if err := n.healthy(); err != nil {
		return err
	}
	if n.orchestrator != nil {
		if err := n.orchestrator.Ready(); err != nil {
			return err
		}
	}
	if n.server == nil { // a cluster can be there without a majority
		ctx, cancel := context.WithTimeout(context.Background(), logPatience)
		defer cancel()
		if _, err := n.stream.Refresh(ctx); err != nil {
			return errors.New("the log does not answer")
		}
	}
	return n.passing()
}

// passing says what is wrong and mends itself once there is room. It is no reason
// to start the process again: that would not help, and not come up on a full disk.
func (n *node) passing() error {
	if n.projector != nil {
		return errors.Join(n.room(), n.projector.Held())
	}
	return n.room()
}

// logPatience is how long a probe waits for the log.
const logPatience = 2 * time.Second

// healthy says why the process should be started again, or nil.
func (n *node) healthy() error {
	if n.server != nil {
		return n.server.Healthy(context.Background())
	}
	if !n.conn.IsConnected() {
		return errors.New("no connection to NATS")
	}
	return nil
}

// room refuses creates before any of the disks is full. What is in flight still
// has the reserve to complete in.
func (n *node) room() error {
	if n.server != nil {
		if err := n.server.Full(); err != nil {
			return err
		}
	}
	measure := n.wires.free
	if measure == nil {
		measure = natsd.Free
	}
	for _, part := range n.disks {
		free, total, err := measure(part.dir)
		if err != nil {
			return err
		}
		if mark := createMark(total); free < mark {
			return fmt.Errorf("the disk%s is nearly full: %d MiB are left, creates need %d MiB", part.of, free>>20, mark>>20)
		}
	}
	return nil
}

// part is a directory that may be on a disk of its own.
type part struct {
	dir string
	of  string // " of the log", in words; empty for the data directory
}

// parts are the directories that this node writes to, one of each disk. A disk
// that cannot be told from another is measured once more: that is harmless.
func (n *node) parts() []part {
	all := []part{{n.cfg.Data, ""}}
	if n.server != nil {
		all = append(all, part{filepath.Join(n.cfg.Data, natsDir), " of the log"})
	}
	if n.projector != nil {
		all = append(all, part{filepath.Join(n.cfg.Data, catalogDir), " of the catalog"})
	}
	if dir := n.bucket.Dir(); dir != "" {
		all = append(all, part{dir, " of the bucket"})
	}
	seen := map[unix.Fsid]bool{}
	var apart []part
	for _, p := range all {
		var fs unix.Statfs_t
		if err := unix.Statfs(p.dir, &fs); err == nil && fs.Fsid != (unix.Fsid{}) {
			if seen[fs.Fsid] {
				continue
			}
			seen[fs.Fsid] = true
		}
		apart = append(apart, p)
	}
	return apart
}

// createMark is how many bytes must be left, of a disk of total bytes, for creates
// to be taken: twice what the log's store leaves free.
func createMark(total int64) int64 { return 2 * natsd.Reserve(total) }

// opsHandler serves what an operator's machines ask, and nothing of the API. It
// needs no key: nothing in it is secret, and no ID is.
func (n *node) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}))
	for path, ask := range map[string]func() error{"/healthz": n.healthy, "/readyz": n.ready} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if err := ask(); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, err)
				return
			}
			fmt.Fprintln(w, "ok")
			if err := n.passing(); err != nil {
				fmt.Fprintln(w, err)
			}
		})
	}
	return mux
}
