package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/orchestrator/webhook"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/api"
)

// openProviders makes the configured providers, or the simulated one if there
// are none.
func (n *node) openProviders() error {
	if !n.has(roleOrchestrator) && !n.has(roleIngress) {
		return nil
	}
	list, err := n.cfg.providers()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		list = []providerConfig{{Name: "sim", Kind: "sim"}}
	}
	for _, p := range list {
		base := p.URL
		if p.Kind == "sim" && base == "" {
			if base, err = n.openSimulator(); err != nil {
				return err
			}
		}
		n.providers = append(n.providers, orchestrator.Instance{
			Name: p.Name, Limits: p.limits(),
			Provider: runware.New(runware.Config{
				Name: p.Name, BaseURL: base, Key: p.Key, Transport: n.wires.transport, SpoolDir: n.spool(),
			}),
		})
		if p.Kind == "sim" {
			n.simulated = true
		}
	}
	return nil
}

// openSimulator starts the simulated provider in this process, on a port of its
// own: everything between it and the rest is real HTTP.
func (n *node) openSimulator() (base string, err error) {
	if n.simulator, err = n.wires.open("127.0.0.1:0"); err != nil {
		return "", fmt.Errorf("listen for the simulated provider: %w", err)
	}
	root := "http://" + n.simulator.Addr().String()
	cfg := n.cfg.Sim
	cfg.BaseURL = func() string { return root }
	cfg.Webhooks = n.wires.transport
	cfg.Journal = filepath.Join(n.cfg.Data, journalName)
	n.sim, err = sim.New(cfg)
	if err != nil {
		return "", err
	}
	if n.hooks != nil && n.hooksBase == "" {
		n.hooksBase = "http://" + n.hooks.Addr().String()
	}
	return root + "/v1", nil
}

// openRoles makes the parts of each role.
func (n *node) openRoles(ctx context.Context) (err error) {
	if n.has(roleOrchestrator) {
		cfg := orchestrator.Config{
			Log: n.stream, Bucket: n.bucket, Providers: n.providers, Logger: n.log,
			Fetcher: blob.NewFetcher(blob.FetchConfig{Bucket: n.bucket, AllowHosts: n.ownHosts(), Transport: n.wires.transport}),
			Alone:   n.server != nil, Room: n.room, MaxOpen: n.cfg.MaxOpen, MaxCreates: n.cfg.MaxCreates, PollAfter: n.cfg.PollAfter, Loose: n.loose(),
		}
		if n.hooksBase != "" {
			cfg.Webhook = func(p string, id events.ID) string { return n.keys.URL(n.hooksBase, p, id) }
		}
		n.orchestrator = orchestrator.New(cfg)
		n.metrics.MustRegister(n.orchestrator.Metrics)
	}
	if n.has(roleAPI) {
		timing := newTiming(time.Now())
		n.projector, err = projector.New(ctx, projector.Config{
			Log: n.stream, Dir: filepath.Join(n.cfg.Data, catalogDir), Logger: n.log,
			Parked: func(ctx context.Context, e stream.Entry, cause error) error {
				_, err := n.stream.Park(ctx, "commit", stream.Name, e.Sequence, cause.Error(), e.Body)
				return err
			},
			Entered: timing.entered,
		})
		if err != nil {
			return err
		}
		if n.server != nil { // before anybody acts on a log that was cut, and appends to it
			if err := n.projector.Compare(ctx); err != nil {
				return err
			}
		}
		n.metrics.MustRegister(timing.requested, timing.completed, projection(n.projector))
	}
	n.metrics.MustRegister(logMetrics(n.stream), room(n.cfg.Data),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return nil
}

// ownHosts are the hosts of provider base URLs that the operator set himself: the
// only private addresses that files are fetched from.
func (n *node) ownHosts() []string {
	var hosts []string
	list, _ := n.cfg.providers()
	for _, p := range list {
		if u, err := url.Parse(p.URL); err == nil && u.Host != "" && p.URL != runware.DefaultBaseURL {
			hosts = append(hosts, u.Host)
		}
	}
	if n.simulator != nil {
		hosts = append(hosts, n.simulator.Addr().String())
	}
	return hosts
}

func (n *node) ingress() http.Handler {
	providers := map[string]provider.Provider{}
	for _, p := range n.providers {
		providers[p.Name] = p.Provider
	}
	cfg := webhook.Config{
		Log: n.stream, Bucket: n.bucket, Providers: providers, Keys: n.keys, Logger: n.log, Spool: n.spool(), Loose: n.loose(),
	}
	if n.orchestrator != nil && n.server != nil {
		cfg.Bring = n.orchestrator.Bring
	}
	h := webhook.New(cfg)
	n.metrics.MustRegister(h.Collector())
	return h
}

func (n *node) apiHandler(ctx context.Context) (_ http.Handler, err error) {
	cfg := api.Config{
		Log: n.stream, Bucket: n.bucket, Projector: n.projector, NATS: n.conn,
		Ready: n.ready, Health: n.healthy, Passing: n.passing, Hosts: n.cfg.Hosts, Simulated: n.simulated, Stopping: ctx, Logger: n.log,
		Metrics: promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}), Room: n.room, Spool: n.spool(),
	}
	if n.orchestrator != nil {
		cfg.Open, cfg.Ask = n.orchestrator.Open, n.orchestrator.Answer
	}
	if cfg.Keys, err = n.apiKeys(); err != nil {
		return nil, fmt.Errorf("read API keys: %w", err)
	}
	return api.New(cfg), nil
}

// apiKeys is who may use the API, nil if no file says.
func (n *node) apiKeys() (*api.Keys, error) {
	if n.cfg.APIKeys == "" {
		return nil, nil
	}
	f, err := os.Open(n.cfg.APIKeys)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return api.ParseKeys(f)
}

// spool is where uploads and large inline files wait on their way to the bucket.
func (n *node) spool() string { return filepath.Join(n.cfg.Data, "spool") }
