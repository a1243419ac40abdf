package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// killed is the real binary on a real directory, with the provider in the test's
// own process, where it outlives every kill.
type killed struct {
	t     *testing.T
	data  string
	args  []string
	sim   *sim.Server
	api   *client
	cmd   *exec.Cmd
	mode  string    // of the program, 1 or unguarded; empty: 1
	errs  io.Writer // what the program says; nil: the test's output
	mend  func()    // does something about a program that does not answer; nil: nothing
	calls int       // of the provider's create, as check found them

	mu    sync.Mutex
	acked map[events.ID]bool
}

func newKilled(t *testing.T) *killed { return newKilledIn(t, t.TempDir()) }

func newKilledIn(t *testing.T, data string) *killed {
	t.Helper()
	return newKilledWith(t, data, sim.Config{
		Seed: 3, Latency: sim.Range{Min: 20 * time.Millisecond, Max: 600 * time.Millisecond},
		Faults: sim.Faults{Doubled: .1, Failing: .05},
	})
}

func newKilledWith(t *testing.T, data string, cfg sim.Config) *killed {
	t.Helper()
	k := &killed{t: t, data: data, acked: map[events.ID]bool{}}
	var base string
	k.sim, base = serveProvider(t, cfg)
	api, hooks := freePort(t), freePort(t)
	file := providerFile(t, base)
	k.args = []string{"up", "--data", k.data, "--listen", api, "--hooks-listen", hooks, "--webhook-url", "http://" + hooks, "--config", file}
	k.api = &client{base: "http://" + api, http: &http.Client{Timeout: 10 * time.Second}}
	return k
}

// serveProvider is a simulated provider at an address, until the test ends.
func serveProvider(t *testing.T, cfg sim.Config) (s *sim.Server, base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base = "http://" + l.Addr().String()
	cfg.BaseURL = func() string { return base }
	if s, err = sim.New(cfg); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close(); s.Close() })
	return s, base
}

// providerFile is a configuration file that names the provider at an address.
func providerFile(t *testing.T, base string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	settings, err := json.Marshal(map[string]any{
		"providers": []map[string]any{{"name": "sim", "kind": "runware", "url": base + "/v1", "key": "k"}},
	})
	if err == nil {
		err = os.WriteFile(file, settings, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// freePort is an address that nobody listens on, and that no connection is given
// meanwhile: Linux takes theirs from 32768 on.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(22_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start runs the binary, and returns once it answers.
func (k *killed) start() {
	k.t.Helper()
	k.cmd = exec.Command(os.Args[0], k.args...)
	k.cmd.Env = append(os.Environ(), asGenstream+"="+cmp.Or(k.mode, "1"))
	if k.cmd.Stderr = k.errs; k.errs == nil {
		k.cmd.Stderr = k.t.Output()
	}
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	for range time.Tick(20 * time.Millisecond) {
		res, err := http.Get(k.api.base + "/healthz")
		if err == nil {
			drain(res.Body)
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if k.cmd.ProcessState != nil {
			k.t.Fatal("the program ended by itself")
		}
	}
}

func (k *killed) end(sig syscall.Signal) {
	k.t.Helper()
	if err := k.cmd.Process.Signal(sig); err != nil {
		k.t.Fatal(err)
	}
	err := k.cmd.Wait()
	if sig == syscall.SIGTERM && err != nil {
		k.t.Errorf("after SIGTERM: %v", err)
	}
}

// create asks until it is acknowledged or ctx ends: through kills, under one ID.
func (k *killed) create(ctx context.Context, id events.ID, count int) {
	body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"killed","width":64,"height":64}}`, count)
	for ctx.Err() == nil {
		res, err := k.api.do(ctx, http.MethodPut, "/v1/generations/"+string(id), body)
		if err == nil {
			drain(res.Body)
			k.mu.Lock()
			k.acked[id] = true
			k.mu.Unlock()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Killed with SIGKILL under load, 20 times at random moments: whatever was
// acknowledged completes with exactly what the provider made, and the provider
// was called once for each claim and made no task twice.
func TestKilledTwentyTimes(t *testing.T) {
	const kills = 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	k := newKilled(t)
	k.start()
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 6 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				k.create(ctx, streamtest.NewID(), 1+i%4)
			}
		})
	}
	for range kills {
		<-time.After(100*time.Millisecond + rand.N(time.Duration(1+rng.IntN(700))*time.Millisecond))
		k.end(syscall.SIGKILL)
		k.start()
	}
	stop()
	load.Wait()
	k.drained()
	k.end(syscall.SIGTERM)
	k.check()
}

// drained waits until everything acknowledged is in the catalog.
func (k *killed) drained() {
	k.t.Helper()
	left := map[events.ID]bool{}
	for id := range k.acked {
		left[id] = true
	}
	after, until := uint64(0), time.Now().Add(2*time.Minute)
	for len(left) > 0 {
		var page struct {
			Generations []struct{ ID events.ID } `json:"generations"`
			Next        uint64                   `json:"next"`
		}
		if err := k.api.get(k.t.Context(), fmt.Sprintf("/v1/changes?after=%d&wait=2s&limit=200", after), &page); err != nil {
			if time.Now().After(until) {
				k.t.Fatal(err)
			}
			if k.mend != nil {
				k.mend()
			}
			continue
		}
		for _, g := range page.Generations {
			delete(left, g.ID)
		}
		after = page.Next
		if time.Now().After(until) {
			for id := range left {
				k.t.Fatalf("%d acknowledged generations are not completed, generation=%s is one", len(left), id)
			}
		}
	}
}

// check verifies what was left behind against the provider's journal.
func (k *killed) check() {
	k.t.Helper()
	cfg := config{Data: k.data, Bucket: "file://" + filepath.Join(k.data, "bucket")}
	f, err := os.Create(filepath.Join(k.data, journalName))
	if err != nil {
		k.t.Fatal(err)
	}
	if err := k.sim.WriteJournal(f); err != nil {
		k.t.Fatal(err)
	}
	f.Close()
	r, err := verifyStored(k.t.Context(), cfg, time.Hour)
	if err != nil {
		k.t.Fatal(err)
	}
	if r.Violations() > 0 {
		r.Print(k.t.Output())
		k.t.Fail()
	}
	k.calls = r.Claim("I14").Looked
	k.t.Logf("%d acknowledged, %d commits, %d create calls, %d outputs compared with the journal",
		len(k.acked), r.Claim("I3").Looked, r.Claim("I14").Looked, r.Claim("I23").Looked)
	if len(k.acked) < 20 || r.Claim("I23").Looked < 20 {
		k.t.Error("the load was too small to show anything")
	}
}
