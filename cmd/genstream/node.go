package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/orchestrator/webhook"
	"github.com/genstream/genstream/projector"
)

// The roles of a process.
const (
	roleOrchestrator = "orchestrator"
	roleIngress      = "ingress"
	roleAPI          = "api"
)

// Names in the data directory.
const (
	natsDir     = "nats"
	catalogDir  = "catalog"
	createdName = "log.created" // there is a log here: it is never made a second time
	journalName = "sim-journal.jsonl"
)

// node is one process: its roles wired together. Fields are nil for roles that
// it does not have.
type node struct {
	cfg   config
	wires wires
	log   *slog.Logger

	unlock       func()
	server       *natsd.Server // embedded only
	conn         *nats.Conn
	stream       *stream.Log
	bucket       *blob.Bucket
	files        atomic.Bool // there may be files in the bucket that are not on disk
	together     bool        // the bucket and the log are on one file system
	sim          *sim.Server // simulated provider only
	orchestrator *orchestrator.Orchestrator
	projector    *projector.Projector
	metrics      *prometheus.Registry

	api, hooks, ops, simulator net.Listener
	servers                    []*http.Server
	providers                  []orchestrator.Instance
	keys                       webhook.Keys
	hooksBase                  string // base URL that providers are told; empty: none
	simulated                  bool
	disks                      []part // that must have room for a create
}

func (n *node) has(role string) bool {
	for _, r := range n.cfg.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// openNode starts what the roles need, in the order in which each rests on the
// one before. Nothing is served before run.
func openNode(ctx context.Context, cfg config, w wires, log *slog.Logger) (n *node, err error) {
	n = &node{cfg: cfg, wires: w, log: log, metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			n.close()
			n = nil
		}
	}()
	if n.unlock, err = natsd.Lock(cfg.Data); err != nil {
		return n, err
	}
	if err := os.MkdirAll(n.spool(), 0o700); err != nil {
		return n, fmt.Errorf("make spool: %w", err)
	}
	if err := n.openLog(ctx); err != nil {
		return n, err
	}
	if n.bucket, err = blob.Open(ctx, cfg.Bucket); err != nil {
		return n, err
	}
	n.shareSync()
	if n.keys, err = webhookKeys(cfg); err != nil {
		return n, err
	}
	if err := n.openListeners(); err != nil {
		return n, err
	}
	if err := n.openProviders(); err != nil {
		return n, err
	}
	if err := n.openRoles(ctx); err != nil {
		return n, err
	}
	n.disks = n.parts()
	return n, nil
}

// openLog connects to NATS, its own or somebody else's, and opens the log.
func (n *node) openLog(ctx context.Context) error {
	create := true
	open := stream.Config{Replicas: n.cfg.Replicas}
	if n.cfg.NATSURL == "" {
		dir := filepath.Join(n.cfg.Data, natsDir)
		// Once there was a log in this directory, a missing stream is damage, and
		// making a new one would hide it.
		_, err := os.Stat(filepath.Join(n.cfg.Data, createdName))
		create = errors.Is(err, fs.ErrNotExist)
		admin, requester, err := natsPasswords(n.cfg)
		if err != nil {
			return err
		}
		if _, err := parseFsync(n.cfg.Fsync); err != nil {
			return err
		}
		n.server, err = natsd.Start(natsd.Config{
			Dir: dir, Listen: n.cfg.NATSListen, Admin: admin, Requester: requester, Gate: n.cfg.Fsync != fsyncAlways, Log: n.log,
		})
		if err != nil {
			return err
		}
		n.conn = n.server.Conn()
		// Whatever the mode, a life before this one may have been killed between a write
		// and its sync. What it left is read, and so must be on disk.
		open.Own, open.SyncAll, open.Full, open.Stored = true, n.server.SyncAll, n.server.Full, n.server.Stored
		if n.cfg.Fsync != fsyncAlways {
			open.Sync = n.syncDisk
		}
	} else {
		var err error
		if n.conn, err = connect(n.cfg); err != nil {
			return fmt.Errorf("connect to NATS at %s: %w", redactURL(n.cfg.NATSURL), err)
		}
	}
	open.Create = create
	var err error
	n.stream, err = stream.Open(ctx, n.conn, open)
	if err == nil && n.server != nil {
		err = n.server.KeepMeta()
	}
	if err == nil && n.server != nil && create {
		// A restart without this mark finds the streams, or makes those that are missing.
		err = fault.Around("log.mark", func() error {
			return writeSynced(filepath.Join(n.cfg.Data, createdName), []byte(n.stream.Fingerprint()+"\n"))
		})
	}
	return err
}

// run serves until ctx ends, then stops in the order in which the parts rest on
// each other: what takes requests first, the log last.
func (n *node) run(ctx context.Context, ready func()) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts sync.WaitGroup
	failed := make(chan error, 16)
	part := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
			stop()
		})
	}
	if n.simulator != nil {
		n.serve(n.simulator, n.sim, part)
	}
	if n.has(roleIngress) {
		n.serve(n.hooks, n.ingress(), part)
	}
	if n.orchestrator != nil {
		part("orchestrator", func() error { return n.orchestrator.Run(ctx) })
		part("NATS service", func() error { return n.orchestrator.Serve(ctx, n.conn) })
	}
	if n.projector != nil {
		part("projector", func() error { return n.projector.Run(ctx) })
		handler, err := n.apiHandler(ctx)
		if err != nil {
			stop()
			parts.Wait()
			return err
		}
		n.serve(n.api, handler, part)
	}
	if n.ops != nil {
		n.serve(n.ops, n.opsHandler(), part)
	}
	if n.server != nil {
		part("NATS", func() error { return n.server.Keep(ctx, n.stream.Reopened) })
	}
	part("disk", func() error {
		select {
		case <-n.stream.Broken():
			return n.stream.Err()
		case <-n.bucket.Broken():
			return n.bucket.Err()
		case <-ctx.Done():
			return nil
		}
	})
	if every, _ := parseFsync(n.cfg.Fsync); every > 0 && n.server != nil {
		part("sync", func() error { return n.syncEvery(ctx, every) })
	}
	if ready != nil {
		parts.Go(ready)
	}
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, s := range n.servers {
		if err := s.Shutdown(grace); err != nil {
			s.Close()
		}
	}
	parts.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (n *node) close() {
	if n.projector != nil {
		if err := n.projector.Close(); err != nil {
			n.log.Warn("catalog not closed cleanly", "error", err)
		}
	}
	if n.sim != nil {
		n.sim.Close()
	}
	for _, l := range []net.Listener{n.api, n.hooks, n.ops, n.simulator} {
		if l != nil {
			l.Close()
		}
	}
	if n.bucket != nil {
		n.bucket.Close()
	}
	if n.server != nil {
		n.server.Close()
	} else if n.conn != nil {
		n.conn.Close()
	}
	if n.unlock != nil {
		n.unlock()
	}
}
