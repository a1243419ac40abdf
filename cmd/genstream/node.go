package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/orchestrator/webhook"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/api"
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

// wires are the process's ways to the outside. The zero value is the network;
// a test that runs on fake time gives pipes.
type wires struct {
	listen    func(address string) (net.Listener, error)
	transport http.RoundTripper // of provider calls, downloads and the simulator's webhooks; nil = the network
}

func (w wires) open(address string) (net.Listener, error) {
	if w.listen != nil {
		return w.listen(address)
	}
	return net.Listen("tcp", address)
}

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
	sim          *sim.Server // simulated provider only
	orchestrator *orchestrator.Orchestrator
	projector    *projector.Projector
	metrics      *prometheus.Registry

	api, hooks, simulator net.Listener
	servers               []*http.Server
	providers             []orchestrator.Instance
	keys                  webhook.Keys
	hooksBase             string // base URL that providers are told; empty: none
	simulated             bool
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
	if err := n.openLog(ctx); err != nil {
		return n, err
	}
	if n.bucket, err = blob.Open(ctx, cfg.Bucket); err != nil {
		return n, err
	}
	if n.keys, err = webhookKeys(cfg); err != nil {
		return n, err
	}
	if err := n.openListeners(); err != nil {
		return n, err
	}
	if err := n.openProviders(); err != nil {
		return n, err
	}
	return n, n.openRoles(ctx)
}

// openLog connects to NATS, its own or somebody else's, and opens the log.
func (n *node) openLog(ctx context.Context) error {
	create := true
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
		n.server, err = natsd.Start(natsd.Config{Dir: dir, Listen: n.cfg.NATSListen, Admin: admin, Requester: requester, Log: n.log})
		if err != nil {
			return err
		}
		n.conn = n.server.Conn()
	} else {
		opts := []nats.Option{nats.Name("genstream"), nats.MaxReconnects(-1), nats.CustomInboxPrefix(stream.OwnInbox), nats.RetryOnFailedConnect(false)}
		if n.cfg.NATSCreds != "" {
			opts = append(opts, nats.UserCredentials(n.cfg.NATSCreds))
		}
		var err error
		if n.conn, err = nats.Connect(n.cfg.NATSURL, opts...); err != nil {
			return fmt.Errorf("connect to NATS at %s: %w", redactURL(n.cfg.NATSURL), err)
		}
	}
	var err error
	n.stream, err = stream.Open(ctx, n.conn, stream.Config{Replicas: n.cfg.Replicas, Create: create})
	if err == nil && n.server != nil && create {
		// A restart without this mark finds the streams, or makes those that are missing.
		err = writeSynced(filepath.Join(n.cfg.Data, createdName), []byte(n.stream.Fingerprint()+"\n"))
	}
	return err
}

// openListeners takes the ports first, so that what is told to others is true.
func (n *node) openListeners() error {
	var err error
	if n.has(roleAPI) {
		if n.api, err = n.listen(n.cfg.Listen); err != nil {
			return fmt.Errorf("listen for the API: %w", err)
		}
		if !loopback(n.api.Addr()) && n.cfg.APIKeys == "" {
			return fmt.Errorf("listen on %s: an address that others can reach needs --api-keys", n.api.Addr())
		}
	}
	n.hooksBase = n.cfg.WebhookURL
	if n.has(roleIngress) {
		if n.hooks, err = n.listen(n.cfg.HooksListen); err != nil {
			return fmt.Errorf("listen for webhooks: %w", err)
		}
	}
	return nil
}

// listen takes the address, or the next free port if its port is taken and the
// address is a loopback one: two demos beside each other are no error.
func (n *node) listen(address string) (net.Listener, error) {
	l, err := n.wires.open(address)
	if err == nil {
		return l, nil
	}
	host, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil || port == "0" || !isLoopbackHost(host) {
		return nil, err
	}
	if l, again := n.wires.open(net.JoinHostPort(host, "0")); again == nil {
		return l, nil
	}
	return nil, err
}

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
			Alone:   n.server != nil, Room: n.room, PollAfter: n.cfg.PollAfter,
		}
		if n.hooksBase != "" {
			cfg.Webhook = func(p string, id events.ID) string { return n.keys.URL(n.hooksBase, p, id) }
		}
		n.orchestrator = orchestrator.New(cfg)
		n.metrics.MustRegister(n.orchestrator.Metrics)
	}
	if n.has(roleAPI) {
		n.projector, err = projector.New(ctx, projector.Config{
			Log: n.stream, Dir: filepath.Join(n.cfg.Data, catalogDir), Logger: n.log,
			Parked: func(ctx context.Context, e stream.Entry, cause error) error {
				return n.stream.Park(ctx, "commit", stream.Name, e.Sequence, cause.Error(), e.Body)
			},
		})
		if err != nil {
			return err
		}
		n.metrics.MustRegister(lag(n.projector))
	}
	n.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return nil
}

// lag is how far the catalog is behind the log, as a metric.
func lag(p *projector.Projector) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "genstream_projection_lag", Help: "Commits of the log that the catalog has not read yet.",
	}, func() float64 { return float64(p.Lag()) })
}

// ownHosts are the hosts of provider base URLs that the operator set himself: the
// only private addresses that files are fetched from.
func (n *node) ownHosts() []string {
	var hosts []string
	list, _ := n.cfg.providers()
	for _, p := range list {
		if u, err := url.Parse(p.URL); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	if n.simulator != nil {
		hosts = append(hosts, n.simulator.Addr().String())
	}
	return hosts
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

// serve runs an HTTP server on a listener until the node stops.
func (n *node) serve(l net.Listener, h http.Handler, part func(string, func() error)) {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	n.servers = append(n.servers, s)
	part("HTTP on "+l.Addr().String(), func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

func (n *node) ingress() http.Handler {
	providers := map[string]provider.Provider{}
	for _, p := range n.providers {
		providers[p.Name] = p.Provider
	}
	h := webhook.New(webhook.Config{
		Log: n.stream, Bucket: n.bucket, Providers: providers, Keys: n.keys, Logger: n.log, Spool: n.spool(),
	})
	n.metrics.MustRegister(h.Collector())
	return h
}

func (n *node) apiHandler(ctx context.Context) (http.Handler, error) {
	cfg := api.Config{
		Log: n.stream, Bucket: n.bucket, Projector: n.projector, NATS: n.conn,
		Ready: n.ready, Health: n.healthy, Hosts: n.cfg.Hosts, Simulated: n.simulated, Stopping: ctx, Logger: n.log,
		Metrics: promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}),
	}
	if n.orchestrator != nil {
		cfg.Open = n.orchestrator.Open
	}
	if n.cfg.APIKeys != "" {
		f, err := os.Open(n.cfg.APIKeys)
		if err != nil {
			return nil, fmt.Errorf("read API keys: %w", err)
		}
		defer f.Close()
		if cfg.Keys, err = api.ParseKeys(f); err != nil {
			return nil, fmt.Errorf("read API keys: %w", err)
		}
	}
	return api.New(cfg), nil
}

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
	return n.room()
}

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
	free, total, err := natsd.Free(n.cfg.Data)
	if err != nil {
		return err
	}
	if mark := min(total/20, natsd.Reserve) * 2; free < mark {
		return fmt.Errorf("the disk is nearly full: %d MiB are left, creates need %d MiB", free>>20, mark>>20)
	}
	return nil
}

// spool is where large inline files wait on their way to the bucket.
func (n *node) spool() string { return filepath.Join(n.cfg.Data, "spool") }

func (n *node) close() {
	if n.projector != nil {
		if err := n.projector.Close(); err != nil {
			n.log.Warn("catalog not closed cleanly", "error", err)
		}
	}
	if n.sim != nil {
		n.sim.Close()
	}
	for _, l := range []net.Listener{n.api, n.hooks, n.simulator} {
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

// webhookKeys are the secrets of webhook tokens: a line each in hex, the first
// signs. They are made on first use; a line put in front rotates them.
func webhookKeys(cfg config) (webhook.Keys, error) {
	read := func() (string, error) { return secretFile(filepath.Join(cfg.Data, "webhook.keys")) }
	if cfg.WebhookKeys != "" {
		read = func() (string, error) { return readSecret(cfg.WebhookKeys) }
	}
	text, err := read()
	if err != nil {
		return nil, err
	}
	var keys webhook.Keys
	for line := range strings.FieldsSeq(text) {
		key, err := hex.DecodeString(line)
		if err != nil || len(key) < 16 {
			return nil, errors.New("webhook keys: each line must be 32 or more hex digits")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("webhook keys: the file is empty")
	}
	return keys, nil
}

func natsPasswords(cfg config) (admin, requester string, err error) {
	if cfg.NATSListen == "" {
		return "", "", nil
	}
	if admin, err = secretFile(filepath.Join(cfg.Data, "nats-admin.password")); err != nil {
		return "", "", err
	}
	requester, err = secretFile(filepath.Join(cfg.Data, "nats-requester.password"))
	return admin, requester, err
}

// secretFile reads a secret, and makes it first if there is none.
func secretFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			return "", err
		}
		b = []byte(hex.EncodeToString(secret) + "\n")
		err = writeSynced(path, b)
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", filepath.Base(path), err)
	}
	return strings.TrimSpace(string(b)), nil
}

// writeSynced writes a file that must be there after a power cut: webhooks on
// their way carry tokens that were made with it.
func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func loopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	return err != nil || isLoopbackHost(host)
}

func isLoopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// redactURL is a NATS URL without its password.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the given URL"
	}
	return u.Redacted()
}
