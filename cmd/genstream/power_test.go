//go:build power

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// cuts is how many power cuts a test makes in each mode: GENSTREAM_POWER_CUTS, or
// a few. As root: GENSTREAM_POWER_CUTS=60 go test -tags power -run PowerCut -v -timeout 1h ./cmd/genstream
func cuts(few int) int {
	if n, err := strconv.Atoi(os.Getenv("GENSTREAM_POWER_CUTS")); err == nil {
		return n
	}
	return few
}

// Whatever the program told anybody is there after the power was cut, and
// everything goes on: on a store that grows old over many cuts, and on fresh ones.
func TestPowerCuts(t *testing.T) {
	modes := []string{fsyncGate, fsyncAlways}
	run := prooftest.Begin(t, "power")
	n := cuts(8)
	if !run.Long() {
		n *= len(modes)
	}
	aging := map[string]*powered{}
	for i := range run.Cases(n) {
		mode := modes[i/10%len(modes)]
		p := aging[mode]
		if i%5 == 4 {
			p = newPowered(t, os.Args[0], mode)
		} else if p == nil {
			p = newPowered(t, os.Args[0], mode)
			aging[mode] = p
		}
		if p.round(); i%5 == 4 || p.cuts%8 == 0 {
			p.settle()
		}
		if p != aging[mode] {
			p.end(run)
		}
	}
	for _, p := range aging {
		p.settle()
		p.end(run)
	}
}

// end says what was told and lost, and leaves.
func (p *powered) end(run *prooftest.Run) {
	p.t.Helper()
	p.report()
	p.leave()
	run.Figure("acknowledged", len(p.acked))
	run.Figure("webhooks", p.webhooks)
}

// powered is the program on a disk whose power is cut, with load and witnesses.
type powered struct {
	*witness
	t             *testing.T
	disk          *volume
	program, mode string
	args          []string
	sim           *sim.Server
	api           *client
	cmd           *exec.Cmd
	errs          bytes.Buffer  // what the program said
	exited        chan struct{} // closed when it has
	stopLoad      func()
	leave         func() // ends everything and unmounts
	cuts          int
	webhooks      int
	calls         int
}

func newPowered(t *testing.T, program, mode string) *powered {
	t.Helper()
	p := &powered{t: t, witness: newWitness(), disk: newVolume(t), program: program, mode: mode}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	p.sim, err = sim.New(sim.Config{
		Seed: rand.Uint64(), BaseURL: func() string { return base },
		Latency: sim.Range{Min: 5 * time.Millisecond, Max: 300 * time.Millisecond},
		Faults:  sim.Faults{Doubled: .3, Failing: .05, Sync: .1, Flat: .2, Ambiguous: .01},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p.sim}
	go server.Serve(l)
	file := filepath.Join(t.TempDir(), "config.json")
	settings := fmt.Appendf(nil, `{"providers":[{"name":"sim","kind":"runware","url":%q,"key":"k"}]}`, base+"/v1")
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	api, hooks := freePort(t), freePort(t)
	p.args = []string{"up", "--fsync", mode, "--data", p.data(), "--listen", api, "--hooks-listen", hooks, "--webhook-url", "http://" + hooks, "--config", file}
	p.api = &client{base: "http://" + api, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	events := &client{base: p.api.base, http: &http.Client{Transport: &http.Transport{}}} // a stream has no timeout

	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { p.watchChanges(ctx, p.api) })
	watching.Go(func() { p.watchEvents(ctx, events) })
	p.stopLoad = func() {}
	p.leave = sync.OnceFunc(func() {
		p.stopLoad()
		cancel()
		if p.cmd != nil {
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		watching.Wait()
		server.Close()
		p.sim.Close()
		_ = exec.Command("umount", p.disk.dir).Run()
		os.Remove(p.disk.file)
	})
	t.Cleanup(p.leave)
	return p
}

func (p *powered) data() string { return filepath.Join(p.disk.dir, "data") }

// start runs the program.
func (p *powered) start() {
	p.t.Helper()
	p.errs.Reset()
	p.cmd = exec.Command(p.program, p.args...)
	p.cmd.Env = append(os.Environ(), asGenstream+"=1")
	p.cmd.Stderr = &p.errs
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
}

// load has 16 clients create, each under one ID until it is told the position.
func (p *powered) load() {
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := rand.IntN(4); ctx.Err() == nil; i++ {
				p.create(ctx, streamtest.NewID(), 1+i%4)
			}
		})
	}
	p.stopLoad = func() { cancel(); clients.Wait() }
}

func (p *powered) create(ctx context.Context, id events.ID, count int) {
	body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"power","width":64,"height":64}}`, count)
	for ; ctx.Err() == nil; rest(ctx, 20*time.Millisecond) {
		res, err := p.api.do(ctx, http.MethodPut, "/v1/generations/"+string(id), body)
		if err != nil {
			continue
		}
		var told struct {
			Position uint64 `json:"position"`
		}
		err = json.NewDecoder(res.Body).Decode(&told)
		drain(res.Body)
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.acked[id] = told.Position
		p.mu.Unlock()
		return
	}
}

// healthy returns once the program answers.
func (p *powered) healthy() {
	p.t.Helper()
	for range time.Tick(5 * time.Millisecond) {
		select {
		case <-p.exited:
			p.t.Fatalf("after %d cuts the program does not start: %s", p.cuts, p.errs.String())
		default:
		}
		res, err := http.Get(p.api.base + "/healthz")
		if err == nil {
			drain(res.Body)
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
}

// round is one life of the program, up to a cut: at a random moment under load,
// or while it starts, or soon after a kill that left its last words unsynced.
func (p *powered) round() {
	p.t.Helper()
	p.start()
	switch p.load(); rand.IntN(5) {
	case 0:
		<-time.After(rand.N(300 * time.Millisecond))
	case 1:
		p.healthy()
		<-time.After(200*time.Millisecond + rand.N(300*time.Millisecond))
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.start()
		p.healthy()
		<-time.After(rand.N(100 * time.Millisecond))
	default:
		p.healthy()
		<-time.After(100*time.Millisecond + rand.N(1400*time.Millisecond))
	}
	p.cut()
}

// cut cuts the power, and holds what is there then against what was told.
func (p *powered) cut() {
	p.t.Helper()
	p.disk.cut(p.cmd.Process)
	<-p.exited
	p.stopLoad()
	p.disk.remount()
	p.cuts++
	f, err := p.left()
	if err != nil {
		p.lose("log", "after cut %d: %v", p.cuts, err)
	}
	p.webhooks, p.calls = p.compare(f, p.journal())
}

// left is what the log holds. A store that was never told of holds nothing.
func (p *powered) left() (facts, error) {
	if _, err := os.Stat(filepath.Join(p.data(), createdName)); err != nil {
		return facts{}, nil
	}
	return readFacts(p.t, filepath.Join(p.data(), natsDir))
}

func (p *powered) journal() []sim.Entry {
	p.t.Helper()
	var b bytes.Buffer
	if err := p.sim.WriteJournal(&b); err != nil {
		p.t.Fatal(err)
	}
	entries, err := sim.ReadJournal(&b)
	if err != nil {
		p.t.Fatal(err)
	}
	return entries
}

// settle lets the program finish what it has promised, stops it, and verifies
// everything that is stored against the provider's journal.
func (p *powered) settle() {
	p.t.Helper()
	p.start()
	p.healthy()
	for until := time.Now().Add(3 * time.Minute); ; {
		open := p.open()
		if len(open) == 0 {
			break
		}
		if time.Now().After(until) {
			p.lose("generation", "%d acknowledged generations are not completed, %s is one", len(open), open[0])
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	<-p.exited
	cfg := config{Data: p.data(), Bucket: "file://" + filepath.Join(p.data(), "bucket")}
	var b bytes.Buffer
	if err := p.sim.WriteJournal(&b); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.data(), journalName), b.Bytes(), 0o600); err != nil {
		p.t.Fatal(err)
	}
	r, err := verifyStored(p.t.Context(), cfg, time.Hour)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.Violations() > 0 {
		r.Print(p.t.Output())
		p.t.Fail()
	}
	p.t.Logf("%d cuts: verified %d commits, %d create calls, %d outputs", p.cuts, r.Claim("I3").Looked, r.Claim("I14").Looked, r.Claim("I23").Looked)
}

func (p *powered) open() (ids []events.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.acked {
		if _, done := p.changed[id]; !done {
			ids = append(ids, id)
		}
	}
	return ids
}

// report says what was told and what of it was lost, and fails the test for the
// latter unless it is the control.
func (p *powered) report() {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, lost := 0, ""
	for kind, all := range p.lost {
		n += len(all)
		for one := range all {
			lost += fmt.Sprintf("; %d of %s, such as: %s", len(all), kind, one)
			break
		}
	}
	p.t.Logf("%s: %d cuts; told: %d creates, %d webhooks 2xx, %d changes, %d events; %d create calls; lost: %d%s",
		p.mode, p.cuts, len(p.acked), p.webhooks, len(p.changed), len(p.shown), p.calls, n, lost)
	if p.program == os.Args[0] && n > 0 {
		p.t.Error("something that was told is lost")
	}
}
