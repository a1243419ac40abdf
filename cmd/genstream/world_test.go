package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// asGenstream has the test binary be the program, for tests that kill it.
const asGenstream = "GENSTREAM_TEST_PROGRAM"

func TestMain(m *testing.M) {
	natsdtest.BeNode()
	if os.Getenv(asGenstream) == unguarded {
		os.Exit(runUnguarded(os.Args[2:]))
	}
	if os.Getenv(asGenstream) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	// The server's ticker must be made outside every bubble: it waits on a channel
	// from the package's init, which never counts as blocked inside one.
	ats.Register()
	os.Exit(m.Run())
}

// bubble runs f in a synctest bubble, on fake time. nats.go keeps timers in a
// global pool: one that was made in a bubble must not be used outside it, so the
// pool is emptied on both sides.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, f)
}

// pipes is a network of in-memory connections: real sockets would stop fake time.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	port      int
}

func newPipes() *pipes { return &pipes{listeners: map[string]*pipeListener{}, port: 20000} }

func (p *pipes) listen(address string) (net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if port == "0" {
		p.port++
		port = fmt.Sprint(p.port)
	}
	l := &pipeListener{net: p, conns: make(chan net.Conn), closed: make(chan struct{}), address: net.JoinHostPort(host, port)}
	if p.listeners[l.address] != nil {
		return nil, fmt.Errorf("listen %s: in use", l.address)
	}
	p.listeners[l.address] = l
	return l, nil
}

func (p *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	if l == nil {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) transport() *http.Transport {
	return &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: 64, DisableCompression: true}
}

type pipeListener struct {
	net     *pipes
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
	address string
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.address] == l {
			delete(l.net.listeners, l.address)
		}
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", l.address)
	if err != nil {
		panic(err)
	}
	return a
}

// world is a whole genstream on one data directory, with its simulated provider
// beside it: the provider outlives restarts.
type world struct {
	t     *testing.T
	cfg   config
	pipes *pipes
	tr    *http.Transport
	free  func(dir string) (free, total int64, err error) // of the disk; nil = as it is
	sim   *sim.Server
	simAt *http.Server

	node *node
	stop context.CancelFunc
	done chan error
	api  *client
}

// newWorld starts the provider. open starts the rest.
func newWorld(t *testing.T, cfg sim.Config) *world {
	t.Helper()
	w := &world{t: t, pipes: newPipes()}
	w.tr = w.pipes.transport()
	const address = "127.0.0.1:9000"
	cfg.BaseURL = func() string { return "http://" + address }
	cfg.Webhooks = w.tr
	var err error
	if w.sim, err = sim.New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := w.pipes.listen(address)
	if err != nil {
		t.Fatal(err)
	}
	w.simAt = &http.Server{Handler: w.sim}
	go w.simAt.Serve(l)
	data := fastDir(t)
	w.cfg = config{
		Data: data, Listen: "127.0.0.1:8080", HooksListen: "127.0.0.1:8081", WebhookURL: "http://127.0.0.1:8081",
		Bucket: "file://" + filepath.Join(data, "bucket"), Roles: []string{roleOrchestrator, roleIngress, roleAPI},
		Providers: []providerConfig{{Name: "sim", Kind: "runware", URL: "http://" + address + "/v1", Key: "test-key"}},
	}
	w.api = &client{base: "http://127.0.0.1:8080", http: &http.Client{Transport: w.tr}}
	return w
}

// fastDir is a temporary directory in memory where the system has one: what these
// tests show does not depend on how long a sync takes.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "genstream-test-*")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open starts genstream, or starts it again.
func (w *world) open() {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	level := slog.LevelError
	if testing.Verbose() && os.Getenv("GENSTREAM_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: level}))
	n, err := openNode(ctx, w.cfg, wires{listen: w.pipes.listen, transport: w.tr, free: w.free}, log)
	if err != nil {
		stop()
		w.t.Fatal(err)
	}
	w.node, w.stop, w.done = n, stop, make(chan error, 1)
	go func() { w.done <- n.run(ctx, nil) }()
	for !n.orchestrator.Recovered() {
		time.Sleep(time.Millisecond) // fake time
	}
}

// close stops genstream as SIGTERM does.
func (w *world) close() {
	w.t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Errorf("run: %v", err)
	}
	w.tr.CloseIdleConnections()
	w.node.close()
	w.node = nil
}

// end stops the provider too.
func (w *world) end() {
	w.t.Helper()
	if w.node != nil {
		w.close()
	}
	if err := w.sim.Close(); err != nil {
		w.t.Error(err)
	}
	w.simAt.Close()
	w.tr.CloseIdleConnections()
}

// create puts a request under a fresh ID.
func (w *world) create(id events.ID, request map[string]any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return w.api.create(context.Background(), string(id), body)
}

// get is the generation as the API shows it.
func (w *world) get(id events.ID) events.View {
	w.t.Helper()
	var g events.View
	if err := w.api.get(context.Background(), "/v1/generations/"+string(id), &g); err != nil {
		w.t.Fatal(err)
	}
	return g
}

// settle waits until nothing is open and the catalog has read everything.
func (w *world) settle(atMost time.Duration) {
	w.t.Helper()
	until := time.Now().Add(atMost)
	for w.node.orchestrator.OpenCount() > 0 {
		if time.Now().After(until) {
			for _, g := range w.node.orchestrator.Open()[:1] {
				b, _ := json.Marshal(g)
				w.t.Errorf("still open: %s", b)
			}
			w.t.Fatalf("%d generations are open after %s", w.node.orchestrator.OpenCount(), atMost)
		}
		time.Sleep(100 * time.Millisecond) // fake time
	}
	end, err := w.node.stream.Refresh(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.node.projector.Wait(ctx, end); err != nil {
		w.t.Fatal(err)
	}
}

// journal is what the provider says it did.
func (w *world) journal() []sim.Entry { return journalOf(w.t, w.sim) }

// verify checks everything that is stored, and fails the test for what is broken.
func (w *world) verify() *verify.Report {
	w.t.Helper()
	r, err := verify.Run(context.Background(), verify.Source{
		Log: w.node.stream, Bucket: w.node.bucket, Catalog: w.node.projector.Current(), Journal: w.journal(), Grace: time.Hour,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if r.Violations() > 0 {
		var b bytes.Buffer
		r.Print(&b)
		w.t.Errorf("verify:\n%s", b.String())
	}
	return r
}

// dump is the catalog's content.
func (w *world) dump() string {
	w.t.Helper()
	var b bytes.Buffer
	if err := w.node.projector.Current().Dump(context.Background(), &b); err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

// drain reads and closes a body, so that its connection can be used again.
func drain(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	r.Close()
}
