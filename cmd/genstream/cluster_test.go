package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// several is two of each role on a cluster of three NATS servers, with the
// provider's webhooks dealt to the ingresses in turn.
type several struct {
	t       *testing.T
	cluster *natsdtest.Cluster
	sim     *sim.Server
	nodes   []*node
	stops   []func()
	api     *client
}

func newSeveral(t *testing.T, cfg sim.Config) *several {
	t.Helper()
	s := &several{t: t, cluster: natsdtest.Start(t)}
	var base string
	s.sim, base = serveProvider(t, cfg)
	var backends []string
	dealer := deal(t, &backends)

	dir := fastDir(t)
	keys := filepath.Join(dir, "webhook.keys")
	if err := os.WriteFile(keys, []byte(strings.Repeat("ab", 16)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		data := filepath.Join(dir, fmt.Sprint("node", i))
		cfg := config{
			Data: data, NATSURL: s.cluster.URL(), Replicas: natsdtest.Nodes, Listen: "127.0.0.1:0", HooksListen: "127.0.0.1:0",
			WebhookURL: dealer, WebhookKeys: keys, Bucket: "file://" + filepath.Join(dir, "bucket"),
			Roles:     []string{roleOrchestrator, roleIngress, roleAPI},
			Providers: []providerConfig{{Name: "sim", Kind: "runware", URL: base + "/v1", Key: "k"}},
			PollAfter: time.Second,
		}
		n, err := openNode(t.Context(), cfg, wires{}, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})))
		if err != nil {
			t.Fatal(err)
		}
		backends = append(backends, n.hooks.Addr().String())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.run(ctx, nil) }()
		s.nodes = append(s.nodes, n)
		s.stops = append(s.stops, sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("node %d: %v", i, err)
			}
			n.close()
		}))
		t.Cleanup(s.stops[i])
	}
	s.api = &client{base: "http://" + s.nodes[0].api.Addr().String(), http: &http.Client{}}
	for _, n := range s.nodes {
		await(t, time.Minute, "the open table", n.orchestrator.Recovered)
	}
	return s
}

// deal is the URL of a dealer, which gives each request to the next of the addresses.
func deal(t *testing.T, addresses *[]string) string {
	t.Helper()
	var turn atomic.Uint64
	dealer := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: (*addresses)[turn.Add(1)%uint64(len(*addresses))]})
	}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)})
	t.Cleanup(dealer.Close)
	return dealer.URL
}

// await looks every 20 ms of real time until ok.
func await(t *testing.T, atMost time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(atMost)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s is not there after %s", what, atMost)
		}
	}
}

func (s *several) create(id events.ID, prompt string, count int) {
	s.t.Helper()
	body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":%q,"width":32,"height":32}}`, count, prompt)
	if err := s.api.create(s.t.Context(), string(id), body); err != nil {
		s.t.Errorf("create generation=%s: %v", id, err)
	}
}

// completed waits for a generation.
func (s *several) completed(id events.ID, atMost time.Duration) events.View {
	s.t.Helper()
	var g events.View
	defer func() {
		if g.CompletedAt.IsZero() { // say how far it came
			history, _ := s.nodes[0].stream.History(context.Background(), id)
			for _, e := range history {
				s.t.Logf("%d %s", e.Sequence, e.Body)
			}
		}
	}()
	await(s.t, atMost, "the completion of generation="+string(id), func() bool {
		g = events.View{}
		if err := s.api.get(s.t.Context(), "/v1/generations/"+string(id), &g); err != nil {
			return false
		}
		return !g.CompletedAt.IsZero()
	})
	return g
}

func (s *several) journal() []sim.Entry { return journalOf(s.t, s.sim) }

// journalOf is what a provider says it did.
func journalOf(t *testing.T, s *sim.Server) []sim.Entry {
	t.Helper()
	var b bytes.Buffer
	if err := s.WriteJournal(&b); err != nil {
		t.Fatal(err)
	}
	entries, err := sim.ReadJournal(&b)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// verify checks everything from one node's view of it.
func (s *several) verify() {
	s.t.Helper()
	n := s.nodes[0]
	end, err := n.stream.Refresh(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := n.projector.Wait(s.t.Context(), end); err != nil {
		s.t.Fatal(err)
	}
	r, err := verify.Run(s.t.Context(), verify.Source{
		Log: n.stream, Bucket: n.bucket, Catalog: n.projector.Current(), Journal: s.journal(), Grace: time.Hour,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if r.Violations() > 0 {
		r.Print(s.t.Output())
		s.t.Fail()
	}
}

// A create call hangs while its webhooks arrive, some of them at the other
// orchestrator: it goes on from them, and nobody calls again.
func TestHangingCallIsMadeOnce(t *testing.T) {
	s := newSeveral(t, sim.Config{Seed: 1, Latency: sim.Range{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond}})
	ids := make([]events.ID, 6)
	for i := range ids {
		ids[i] = streamtest.NewID()
		s.create(ids[i], "hangs [[slow 20s]]", 4)
	}
	for _, id := range ids {
		g := s.completed(id, 15*time.Second) // before the call is answered
		for _, o := range g.Outputs {
			if o.Artifact == nil {
				t.Errorf("generation=%s slot %d: %+v", id, o.Slot, o.Error)
			}
		}
	}
	calls := 0
	for _, e := range s.journal() {
		if e.Kind == sim.KindCreate {
			calls++
		}
	}
	if calls != len(ids) {
		t.Errorf("%d create calls for %d generations", calls, len(ids))
	}
	s.verify()
}

// The leader of the log is stopped, and later one orchestrator, under load in bad
// weather: everything completes with what the provider made.
func TestTwoOfEachRoleOutliveALeaderAndEachOther(t *testing.T) {
	s := newSeveral(t, sim.Config{
		Seed: 2, Latency: sim.Range{Min: 20 * time.Millisecond, Max: time.Second},
		Faults: sim.Faults{Lost: .1, Doubled: .1, Failing: .1, Busy: .05, Ambiguous: .05},
	})
	const n = 120
	ids := make([]events.ID, n)
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := c; i < n; i += 8 {
				ids[i] = streamtest.NewID()
				s.create(ids[i], fmt.Sprint("clustered ", i), 1+i%4)
			}
		})
	}
	await(t, time.Minute, "some load", func() bool { return s.nodes[0].stream.Durable() > 60 })
	leader := s.cluster.Leader(stream.Name)
	s.cluster.Stop(leader)
	s.cluster.AwaitLeader(stream.Name)
	await(t, time.Minute, "more load", func() bool { return s.nodes[0].stream.Durable() > 200 })
	s.cluster.Restart(leader)
	s.stops[1]() // what it had taken, the other one is given
	wg.Wait()
	for _, id := range ids {
		s.completed(id, 90*time.Second)
	}
	s.verify()
}
