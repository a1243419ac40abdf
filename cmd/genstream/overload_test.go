package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// The overload: the provider takes so many create calls a second, and is slow; ten
// times as many are asked for, half of them over NATS, and besides them come webhooks
// that nobody sent. What may be open is what the provider takes in some seconds.
const (
	overloadRate  = 40 // generations a second that the provider takes
	overloadTimes = 10
	overloadOpen  = 100
	overloadBound = 256 << 20 // bytes of memory on top of what it was before
	overloadIndex = 4 << 10   // bytes of memory that a generation in the log may cost for ever
)

// Ten times more is asked for than can be made. What is not accepted is refused at
// once, with a time to come again, and leaves nothing; what is accepted completes.
//
// GENSTREAM_FOR=10m go test -tags overload -run Overload -v -timeout 0 ./cmd/genstream
//
// is minutes of it; without the tag it is seconds, and what is held afterwards is told only.
func TestOverload(t *testing.T) {
	if race {
		t.Skip("SKIPPED: the race detector leaves no processor for it: go test without -race has it")
	}
	run := prooftest.Begin(t, "overload")
	n := 1
	if run.Long() {
		n = math.MaxInt
	}
	for i := range run.Cases(n) {
		if !t.Run(fmt.Sprint("minute ", i), func(t *testing.T) { newOverloaded(t).run(run) }) {
			run.Violated(i)
		}
	}
}

// overloaded is the program that is asked for too much.
type overloaded struct {
	*killed
	hooks   string
	nats    *nats.Conn
	offered atomic.Int64
	odd     atomic.Int64

	mu       sync.Mutex // guards those below, and killed.acked
	turned   map[events.ID]bool
	taking   []time.Duration // until a create was acknowledged
	refusing []time.Duration // until it was refused
	healthy  []time.Duration // until /healthz answered
}

func newOverloaded(t *testing.T) *overloaded {
	t.Helper()
	o := &overloaded{turned: map[events.ID]bool{}, killed: newKilledWith(t, fastDir(t), sim.Config{
		Seed: 3, Latency: sim.Range{Min: 300 * time.Millisecond, Max: 900 * time.Millisecond},
		Faults: sim.Faults{Doubled: .5, Failing: .05, Busy: .02},
	})}
	file := o.args[len(o.args)-1]
	settings, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	settings = bytes.Replace(settings, []byte(`"kind"`), fmt.Appendf(nil, `"per_second":%d,"concurrent":64,"kind"`, overloadRate), 1)
	if err := os.WriteFile(file, settings, 0o600); err != nil {
		t.Fatal(err)
	}
	o.hooks = "http://" + o.args[6]
	listen := freePort(t)
	o.args = append(o.args, "--nats-listen", listen, "--max-open", fmt.Sprint(overloadOpen))
	o.api.http = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	t.Setenv("GOGC", "20") // a heap that is collected often shows what is in use
	o.start()
	t.Cleanup(func() { _ = o.cmd.Process.Kill() })
	password, err := readSecret(o.data + "/nats-requester.password")
	if err != nil {
		t.Fatal(err)
	}
	if o.nats, err = nats.Connect("nats://"+listen, nats.UserInfo("requester", password)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.nats.Close)
	return o
}

func (o *overloaded) run(sum *prooftest.Run) {
	o.ask(o.overHTTP, 20) // a first load makes what is kept for all that follow
	o.ask(o.overNATS, 20)
	o.drained()
	o.api.http.CloseIdleConnections()
	before := o.settles(overloadRest/40, func(held) bool { return false })
	o.resetPeak()
	began := time.Now()
	o.storm()
	asked := time.Since(began)
	o.drained()
	completed := time.Since(began)
	peak := o.memory("VmHWM")
	o.api.http.CloseIdleConnections()
	after := o.settles(overloadRest, func(now held) bool { return now.within(before, len(o.acked)) })
	o.end(syscall.SIGTERM)
	o.check()
	o.compare()

	offered, accepted, refused := o.offered.Load(), len(o.acked), len(o.turned)
	o.t.Logf("%d creates in %s, %.0f times what the provider takes: %d accepted, all completed after %s; %d refused",
		offered, asked.Round(time.Millisecond), float64(offered)/asked.Seconds()/overloadRate, accepted, completed.Round(time.Millisecond), refused)
	o.t.Logf("p50 and p99 of accepting %s, of refusing %s, of /healthz %s, of it at most %s",
		percentiles(o.taking), percentiles(o.refusing), percentiles(o.healthy), slices.Max(o.healthy).Round(time.Millisecond))
	o.t.Logf("memory %d MiB before, %d at most, %d after; live heap %d KiB before, %d after; goroutines %d, %d; files %d, %d",
		before.memory>>20, peak>>20, after.memory>>20, before.live>>10, after.live>>10, before.goroutines, after.goroutines, before.files, after.files)
	if refused == 0 {
		o.t.Error("nothing was refused: there was no overload")
	}
	if peak > before.memory+overloadBound {
		o.t.Errorf("%d MiB more than before, want at most %d", (peak-before.memory)>>20, overloadBound>>20)
	}
	if overloadRest > 0 && !after.within(before, accepted) {
		o.t.Errorf("before %+v, after %+v: want a tenth more at most", before, after)
	}
	for word, n := range map[string]int{"offered": int(offered), "accepted": accepted, "refused": refused} {
		sum.Figure(word, n)
	}
}

// storm asks for too much, each create at its time, whether or not earlier ones
// were answered.
func (o *overloaded) storm() {
	ctx, stop := context.WithTimeout(o.t.Context(), overloadFor)
	defer stop()
	var under sync.WaitGroup
	under.Go(func() { o.probe(ctx) })
	each := func(perSecond int, do func()) {
		under.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			began, made := time.Now(), 0
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				for ; float64(made) < time.Since(began).Seconds()*float64(perSecond); made++ {
					under.Go(do)
				}
			}
		})
	}
	each(overloadTimes*overloadRate/2, func() { o.create(o.overHTTP) })
	each(overloadTimes*overloadRate/2, func() { o.create(o.overNATS) })
	each(overloadTimes*overloadRate/2, o.forge)
	under.Wait()
}

// ask has n creates accepted.
func (o *overloaded) ask(way func(events.ID) (toldOf, error), n int) {
	for len(o.acked) < n {
		o.create(way)
	}
}

// toldOf is what a requester was told of a create.
type toldOf struct {
	code  int
	kind  string // of the problem
	after string // Retry-After
}

// create asks once. It is accepted, or refused as busy with a time to come again.
func (o *overloaded) create(way func(events.ID) (toldOf, error)) {
	id, began := streamtest.NewID(), time.Now()
	o.offered.Add(1)
	a, err := way(id)
	took := time.Since(began)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil && a.code == http.StatusAccepted:
		o.acked[id] = true
		o.taking = append(o.taking, took)
	case err == nil && a.code == http.StatusServiceUnavailable && a.kind == "urn:genstream:problem:busy" && a.after != "":
		o.turned[id] = true
		o.refusing = append(o.refusing, took)
	case err == nil && a.kind == "urn:genstream:problem:unavailable" && a.after != "": // the machine stood still for seconds
		o.t.Logf("a create may have been accepted: answered after %s", took)
	case o.odd.Add(1) <= 3:
		o.t.Errorf("a create was answered %+v, %v after %s", a, err, took)
	}
}

func overloadBody() []byte {
	return []byte(`{"model":"runware:101@1","input":{"positivePrompt":"too much","width":64,"height":64}}`)
}

func (o *overloaded) overHTTP(id events.ID) (a toldOf, err error) {
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodPut, o.api.base+"/v1/generations/"+string(id), bytes.NewReader(overloadBody()))
	if err != nil {
		return a, err
	}
	res, err := o.api.http.Do(req)
	if err != nil {
		return a, err
	}
	defer drain(res.Body)
	a.code, a.after = res.StatusCode, res.Header.Get("Retry-After")
	var p struct{ Type string }
	err = json.NewDecoder(res.Body).Decode(&p)
	a.kind = p.Type
	return a, err
}

func (o *overloaded) overNATS(id events.ID) (a toldOf, err error) {
	m := nats.NewMsg("genstream.generations.create")
	m.Header.Set("Gen-Id", string(id))
	m.Data = overloadBody()
	told, err := o.nats.RequestMsg(m, 10*time.Second)
	if err != nil {
		return a, err
	}
	a.code, a.after = http.StatusAccepted, told.Header.Get("Retry-After")
	if code := told.Header.Get("Nats-Service-Error-Code"); code != "" {
		_, err = fmt.Sscan(code, &a.code)
	}
	var p struct{ Type string }
	if err == nil {
		err = json.Unmarshal(told.Data, &p)
	}
	a.kind = p.Type
	return a, err
}

// forge sends a webhook whose token is none.
func (o *overloaded) forge() {
	url := fmt.Sprintf("%s/hooks/sim/%s/%s", o.hooks, streamtest.NewID(), strings.Repeat("0", 32))
	res, err := o.api.http.Post(url, "application/json", strings.NewReader(`{"data":[]}`))
	if err != nil {
		if o.odd.Add(1) <= 3 {
			o.t.Errorf("a forged webhook: %v", err)
		}
		return
	}
	drain(res.Body)
	if res.StatusCode != http.StatusNotFound && o.odd.Add(1) <= 3 {
		o.t.Errorf("a forged webhook was answered %s", res.Status)
	}
}

// probe asks /healthz as somebody does who restarts what does not answer.
func (o *overloaded) probe(ctx context.Context) {
	c := &http.Client{Timeout: 5 * time.Second}
	defer c.CloseIdleConnections()
	for ctx.Err() == nil {
		began := time.Now()
		res, err := c.Get(o.api.base + "/healthz")
		took := time.Since(began)
		switch {
		case err != nil:
			o.t.Errorf("/healthz: %v", err)
			return
		case res.StatusCode != http.StatusOK:
			o.t.Errorf("/healthz: %s", res.Status)
		}
		drain(res.Body)
		o.mu.Lock()
		o.healthy = append(o.healthy, took)
		o.mu.Unlock()
		rest(ctx, 100*time.Millisecond)
	}
}

// held is what the program holds.
type held struct {
	memory, live      uint64 // bytes: resident, and of the heap, the latter with what was not collected yet
	goroutines, files int
}

// within says whether it is what was held before and a tenth, and of the heap what
// the log keeps of each generation.
func (h held) within(before held, generations int) bool {
	more := func(n int) int { return n + n/10 }
	return h.goroutines <= more(before.goroutines) && h.files <= more(before.files) &&
		h.live <= before.live+before.live/10+uint64(generations*overloadIndex)
}

func (o *overloaded) measure() (h held) {
	o.t.Helper()
	h.memory = o.memory("VmRSS")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", o.cmd.Process.Pid))
	if err != nil {
		o.t.Skipf("SKIPPED: files are counted in /proc: %v", err)
	}
	h.files = len(open)
	res, err := http.Get(o.api.base + "/metrics")
	if err != nil {
		o.t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		o.t.Fatal(err)
	}
	metric := func(name string) (n float64) {
		_, after, _ := strings.Cut(string(text), "\n"+name+" ")
		if _, err := fmt.Sscan(after, &n); err != nil {
			o.t.Fatalf("%s is no metric: %v", name, err)
		}
		return n
	}
	h.goroutines = int(metric("go_goroutines"))
	h.live = uint64(metric("go_memstats_heap_alloc_bytes"))
	return h
}

// settles is the least of what the program holds, asked so often that its heap is
// collected, until that is enough or the time is over.
func (o *overloaded) settles(long time.Duration, enough func(held) bool) (least held) {
	o.t.Helper()
	least = o.measure()
	for until := time.Now().Add(long); time.Now().Before(until) && !enough(least); <-time.After(20 * time.Millisecond) {
		now := o.measure()
		least.memory, least.live = min(least.memory, now.memory), min(least.live, now.live)
		least.goroutines, least.files = min(least.goroutines, now.goroutines), min(least.files, now.files)
	}
	return least
}

// compare looks in the log for what was refused: nothing of it may be there.
func (o *overloaded) compare() {
	o.t.Helper()
	f, err := readFacts(o.t, o.data+"/"+natsDir)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, id := range f.requested {
		if o.turned[id] {
			o.t.Errorf("generation=%s was refused, and is in the log", id)
		}
	}
	for id := range o.acked {
		if f.completed[id] == 0 {
			o.t.Errorf("generation=%s was accepted, and is not completed", id)
		}
	}
}

// percentiles is the median and the 99th percentile.
func percentiles(d []time.Duration) string {
	slices.Sort(d)
	at := func(p int) time.Duration { return d[min(len(d)-1, len(d)*p/100)].Round(100 * time.Microsecond) }
	if len(d) == 0 {
		return "none"
	}
	return fmt.Sprintf("%s and %s", at(50), at(99))
}
