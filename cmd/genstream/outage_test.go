package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// Two of three NATS servers are away for longer than 30 s, while generations are
// under way at two orchestrators and two ingresses: nothing is accepted that is
// not in the log, and all that was accepted completes, with one create call for
// each claim. It takes a minute of real time.
func TestOutageOfFortySecondsIsOutlived(t *testing.T) {
	if !long {
		t.Skip("SKIPPED: an outage of 40 s takes its time: go test -tags long has it")
	}
	const outage = 40 * time.Second
	s := newSeveral(t, sim.Config{
		Seed: 4, Latency: sim.Range{Min: 20 * time.Millisecond, Max: 2 * time.Second},
		Faults: sim.Faults{Lost: .1, Doubled: .1, Failing: .05, Ambiguous: .05},
	})
	apis := []*client{s.api, {base: "http://" + s.nodes[1].api.Addr().String(), http: &http.Client{Timeout: 15 * time.Second}}}

	// What is under way: some made before the outage, some in it, some after it.
	var mu sync.Mutex
	accepted := map[events.ID]bool{}
	var away atomic.Bool
	var refused, through atomic.Int64
	create := func(ctx context.Context, n int) {
		id := streamtest.NewID()
		take := []string{"", " [[take 5s]]", " [[take 20s]]", " [[take 50s]]", " [[slow 20s]]"}[n%5]
		body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"outage %d%s","width":32,"height":32}}`, 1+n%3, n, take)
		for ctx.Err() == nil { // as clients do: the same ID until it is accepted
			was := away.Load()
			err := apis[n%2].create(ctx, string(id), body)
			if err == nil {
				mu.Lock()
				accepted[id] = true
				mu.Unlock()
				if was && away.Load() {
					through.Add(1)
				}
				return
			}
			if was {
				refused.Add(1)
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for c := range 4 {
		load.Go(func() {
			for n := c; n < 60; n += 4 {
				create(ctx, n)
			}
		})
	}
	load.Wait()

	leader := s.cluster.Leader(stream.Name)
	other := (leader + 1) % natsdtest.Nodes
	s.cluster.Stop(leader)
	s.cluster.Stop(other)
	away.Store(true)
	for c := range 4 { // and more ask, all through it
		load.Go(func() {
			for n := 60 + c; n < 80; n += 4 {
				create(ctx, n)
			}
		})
	}
	open := s.nodes[0].orchestrator.OpenCount()
	<-time.After(outage)
	if err := s.nodes[0].ready(); err == nil {
		t.Error("ready without a log that takes appends")
	}
	away.Store(false)
	s.cluster.Restart(other)
	s.cluster.Restart(leader)
	back := time.Now()
	load.Wait()
	t.Logf("%d were open when the outage began, %d creates were refused in it", open, refused.Load())
	if open < 10 || refused.Load() == 0 {
		t.Error("the load was too small to show anything")
	}
	if n := through.Load(); n > 0 {
		t.Errorf("%d creates were accepted while the log took no append", n)
	}
	if len(accepted) != 80 {
		t.Errorf("%d of 80 were accepted in the end", len(accepted))
	}
	claims := 0
	for id := range accepted {
		s.completed(id, 2*time.Minute)
		claims += s.claims(id)
	}
	t.Logf("all completed %s after the servers were back", time.Since(back).Round(time.Second))
	calls := 0
	for _, e := range s.journal() {
		if e.Kind == sim.KindCreate {
			calls++
		}
	}
	// A claim whose process found no log to rest it on is given up without a call.
	t.Logf("%d claims, %d create calls", claims, calls)
	if calls > claims {
		t.Errorf("%d create calls for %d claims", calls, claims)
	}
	s.verify()
}

// claims is how many create calls the log permits for a generation.
func (s *several) claims(id events.ID) (n int) {
	s.t.Helper()
	history, err := s.nodes[0].stream.History(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range history {
		c, err := e.Decode()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, ev := range c.Events {
			if _, ok := ev.(events.Dispatching); ok {
				n++
			}
		}
	}
	return n
}
