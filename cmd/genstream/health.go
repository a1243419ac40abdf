package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

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

// room refuses creates before the disk is full. What is in flight still has the
// reserve to complete in.
func (n *node) room() error {
	measure := n.wires.free
	if measure == nil {
		measure = natsd.Free
	}
	free, total, err := measure(n.cfg.Data)
	if err != nil {
		return err
	}
	if mark := createMark(total); free < mark {
		return fmt.Errorf("the disk is nearly full: %d MiB are left, creates need %d MiB", free>>20, mark>>20)
	}
	return nil
}

// createMark is how many bytes must be left, of a disk of total bytes, for creates
// to be taken: twice what the log's store leaves free.
func createMark(total int64) int64 { return min(total/20, natsd.Reserve) * 2 }

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
		})
	}
	return mux
}
