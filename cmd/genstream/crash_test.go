package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

const (
	crashesShort  = 20 // cases of the matrix, if GENSTREAM_CRASHES does not say
	crashesAtOnce = 12
)

// crashCase is one place in the matrix.
type crashCase struct {
	fault.Point
	how    string // the mode
	hit    int    // that it fires at
	flight int    // generations that are open at a time
}

func (c crashCase) String() string {
	return fmt.Sprintf("%s %s %d of %d", c.Name, c.how, c.hit, c.flight)
}

func crashMatrix() (all []crashCase) {
	for _, p := range fault.Points() {
		for _, mode := range p.Modes() {
			for _, hit := range []int{1, 2, 7} {
				for _, flight := range []int{1, 8, 64} {
					if hit == 1 || !p.Start {
						all = append(all, crashCase{p, mode, hit, flight})
					}
				}
			}
		}
	}
	return all
}

// some are n of the cases, spread evenly over all.
func some(all []crashCase, n int) (chosen []crashCase) {
	for i := range n {
		chosen = append(chosen, all[i*len(all)/n])
	}
	return chosen
}

// The program breaks at either side of every durable step, in every way, under
// load. What was acknowledged completes, nothing is bought twice, nothing that a
// provider was told is taken is missing, and a requester never hears of it but as
// a reason to ask again.
//
// GENSTREAM_CRASHES=all go test -run CrashMatrix -v -timeout 3h ./cmd/genstream
//
// A number in place of all is so many cases, spread evenly.
func TestCrashMatrix(t *testing.T) {
	if race { // the programs of a dozen cases at once, each with the detector, outlast what a case is given
		t.Skip("SKIPPED: go test without -race runs it")
	}
	all := crashMatrix()
	n := crashesShort
	switch env := os.Getenv("GENSTREAM_CRASHES"); {
	case env == "all":
		n = len(all)
	case env != "":
		var err error
		if n, err = strconv.Atoi(env); err != nil || n < 1 || n > len(all) {
			t.Fatalf("GENSTREAM_CRASHES=%s is neither all nor a number from 1 to %d", env, len(all))
		}
	}
	run := prooftest.Begin(t, "crashes")
	chosen, first := some(all, n), int(run.From)
	if n == len(all) { // whatever of them there is time for, is of all kinds
		rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	}
	sum := crashTally{fired: map[string]int{}, modes: map[string]int{}}
	t.Run("cases", func(t *testing.T) {
		var running sync.WaitGroup
		places := make(chan struct{}, crashesAtOnce) // most of a case is waiting: more than there are processors
		for i := range run.Cases(n - first%n) {
			c := chosen[i%n]
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				if !t.Run(c.String(), func(t *testing.T) { newCrashed(t, c, &sum).run() }) {
					run.Violated(i)
				}
			})
		}
		running.Wait()
	})
	t.Logf("%d cases of %d: %d faults fired (%d kills, %d panics, %d stalls, %d errors) at %d points of %d, %d restarts; "+
		"%d creates acknowledged and all completed, %d commits, %d create calls, %d outputs and %d webhooks 2xx compared; %d violations",
		sum.cases, len(all), sum.modes[fault.Kill]+sum.modes[fault.Panic]+sum.modes[fault.Stall]+sum.modes[fault.Error],
		sum.modes[fault.Kill], sum.modes[fault.Panic], sum.modes[fault.Stall], sum.modes[fault.Error], len(sum.fired), len(fault.Points()), sum.restarts,
		sum.acked, sum.commits, sum.calls, sum.outputs, sum.webhooks, sum.violations)
	run.Figure("acknowledged", sum.acked)
	run.Figure("restarts", sum.restarts)
	for _, p := range fault.Points() {
		if sum.cases == len(all) && sum.fired[p.Name] == 0 {
			t.Errorf("no fault fired at %s", p.Name)
		}
	}
}

// crashTally is what all cases came to.
type crashTally struct {
	mu                                                                    sync.Mutex
	fired, modes                                                          map[string]int
	cases, restarts, acked, commits, calls, outputs, webhooks, violations int
}

// crashed is the program that is about to break.
type crashed struct {
	*killed
	crashCase
	sum      *crashTally
	said     *logLines // by the life that breaks
	exited   chan struct{}
	err      error // of the exit; read after exited
	restarts int
	load     sync.WaitGroup
	loaded   chan struct{}
	odd      atomic.Int64 // answers that no requester should get
}

func newCrashed(t *testing.T, c crashCase, sum *crashTally) *crashed {
	t.Helper()
	k := newKilledWith(t, fastDir(t), sim.Config{
		Seed: 3, Latency: sim.Range{Min: 5 * time.Millisecond, Max: 60 * time.Millisecond},
		Faults: sim.Faults{Doubled: .1, Failing: .05},
	})
	k.api.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	if strings.HasPrefix(c.Name, "look.") { // what comes by webhook is not asked for
		at := slices.Index(k.args, "--webhook-url")
		k.args = slices.Delete(k.args, at, at+2)
	}
	return &crashed{killed: k, crashCase: c, sum: sum, loaded: make(chan struct{})}
}

func (c *crashed) run() {
	c.t.Cleanup(func() { // of a case that failed
		if c.cmd != nil {
			_ = c.cmd.Process.Kill()
			<-c.exited
		}
	})
	ctx, stop := context.WithCancel(c.t.Context())
	c.t.Cleanup(stop)
	if strings.HasPrefix(c.Name, "recover.") || strings.HasPrefix(c.Name, "horizon.") { // there must be something in the log
		c.begin("")
		c.healthy()
		c.drive(ctx)
		<-time.After(150 * time.Millisecond)
		c.kill()
		c.begin(c.spec())
	} else {
		c.begin(c.spec())
		c.drive(ctx)
	}
	select {
	case <-c.exited:
		if !c.fired() {
			c.t.Fatalf("the program ended by itself: %v\n%s", c.err, c.said.all())
		}
		c.again()
		<-c.loaded
	case <-c.loaded:
		if c.fired() && c.how == fault.Kill {
			<-c.exited
			c.again()
		}
	case <-time.After(30 * time.Second):
		c.t.Fatalf("the load is stuck (fired: %v)\n%s", c.fired(), c.said.all())
	}
	c.mend = func() {
		if c.finished() { // it broke after the last answer
			c.again()
		}
	}
	c.drained()
	c.mend()
	c.drained()
	c.finish(c.fired())
}

func (c *crashed) spec() string { return fmt.Sprintf("%s:%s:%d", c.Name, c.how, c.hit) }

// begin starts a life of the program.
func (c *crashed) begin(spec string) {
	c.t.Helper()
	said := &logLines{}
	if c.said == nil || spec != "" {
		c.said = said
	}
	cmd := exec.Command(os.Args[0], c.args...)
	cmd.Env = append(os.Environ(), asGenstream+"=1", faultVariable+"="+spec)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	exited := make(chan struct{})
	c.cmd, c.exited = cmd, exited
	go func() { c.err = cmd.Wait(); close(exited) }()
}

// again is a life without a fault, after one that ended.
func (c *crashed) again() {
	c.t.Helper()
	c.restarts++
	c.begin("")
	c.healthy()
}

func (c *crashed) healthy() {
	c.t.Helper()
	for range time.Tick(5 * time.Millisecond) {
		if c.finished() {
			c.t.Fatalf("the program does not start: %v\n%s", c.err, c.said.all())
		}
		if res, err := http.Get(c.api.base + "/healthz"); err == nil {
			drain(res.Body)
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
}

func (c *crashed) kill() {
	_ = c.cmd.Process.Kill()
	<-c.exited
}

func (c *crashed) finished() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

func (c *crashed) fired() bool { return c.said.has("fault: " + c.Name + ":") }

// drive has c.flight clients make generations, each the next one when the last is
// completed, or was not within two seconds.
func (c *crashed) drive(ctx context.Context) {
	each := map[int]int{1: 10, 8: 4, 64: 1}[c.flight]
	for n := range c.flight {
		c.load.Go(func() {
			for i := range each {
				if strings.HasPrefix(c.Name, "input.") {
					c.upload(ctx, n, i)
				}
				c.create(ctx, streamtest.NewID(), 1+(n+i)%3)
			}
		})
	}
	go func() { c.load.Wait(); close(c.loaded) }()
}

// create asks until it is acknowledged.
func (c *crashed) create(ctx context.Context, id events.ID, count int) {
	body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"input":{"positivePrompt":"crashed","width":64,"height":64}}`, count)
	c.insist(ctx, func() error {
		res, err := c.api.do(ctx, http.MethodPut, "/v1/generations/"+string(id), body, "Prefer", "wait=2")
		if err == nil {
			drain(res.Body)
			c.mu.Lock()
			c.acked[id] = true
			c.mu.Unlock()
		}
		return err
	})
}

// upload sends a picture that nobody has sent before.
func (c *crashed) upload(ctx context.Context, n, i int) {
	picture := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), fmt.Sprintf("%s %d %d", c, n, i)...)
	c.insist(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.api.base+"/v1/files", bytes.NewReader(picture))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", cmp.Or(mime.TypeByExtension(".png"), "image/png"))
		res, err := c.api.http.Do(req)
		if err != nil {
			return err
		}
		defer drain(res.Body)
		if res.StatusCode/100 != 2 {
			text, _ := io.ReadAll(res.Body)
			return &problemError{code: res.StatusCode, Title: string(text)}
		}
		return nil
	})
}

// insist asks until there is an answer. The only ones allowed are good ones, none,
// and 503: nobody is to blame but us, and trying again helps.
func (c *crashed) insist(ctx context.Context, ask func() error) {
	for ctx.Err() == nil {
		err := ask()
		if err == nil {
			return
		}
		var p *problemError
		if errors.As(err, &p) && p.code != http.StatusServiceUnavailable && c.odd.Add(1) == 1 {
			c.t.Errorf("a requester was told %d: %v", p.code, err)
		}
		rest(ctx, 20*time.Millisecond)
	}
}

// finish stops the program and holds what it left against what everybody was told.
func (c *crashed) finish(fired bool) {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	if <-c.exited; c.err != nil {
		c.t.Errorf("after SIGTERM: %v\n%s", c.err, c.said.all())
	}
	var b bytes.Buffer
	if err := c.sim.WriteJournal(&b); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.data, journalName), b.Bytes(), 0o600); err != nil {
		c.t.Fatal(err)
	}
	r, err := verifyStored(c.t.Context(), config{Data: c.data, Bucket: "file://" + filepath.Join(c.data, "bucket")}, time.Hour)
	if err != nil {
		c.t.Fatal(err)
	}
	bad := r.Violations() + int(c.odd.Load())
	if r.Violations() > 0 {
		r.Print(c.t.Output())
	}
	journal, err := sim.ReadJournal(&b)
	if err != nil {
		c.t.Fatal(err)
	}
	f, err := readFacts(c.t, filepath.Join(c.data, natsDir))
	if err != nil {
		c.t.Fatal(err)
	}
	webhooks, missing := f.accounted(c.t, c.acked, journal)
	if bad += missing; bad > 0 {
		c.t.Errorf("%d violations; the life that broke said:\n%s", bad, c.said.all())
	}
	c.sum.mu.Lock()
	defer c.sum.mu.Unlock()
	if c.sum.cases++; fired {
		c.sum.fired[c.Name]++
		c.sum.modes[c.how]++
	}
	c.sum.restarts += c.restarts
	c.sum.acked += len(c.acked)
	c.sum.commits += r.Claim("I3").Looked
	c.sum.calls += r.Claim("I14").Looked
	c.sum.outputs += r.Claim("I23").Looked
	c.sum.webhooks += webhooks
	c.sum.violations += bad
}
