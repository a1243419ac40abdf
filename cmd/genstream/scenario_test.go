package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/projector"
)

// TestClusterScenarios has two orchestrators, two ingresses and an API, each the real
// program in a process of its own, on three NATS nodes in trouble, under load. What
// was acknowledged completes in time, nothing is bought twice, and what clients were
// told could have happened one after the other.
//
// GENSTREAM_FOR=40m GENSTREAM_FROM=0 go test -tags cluster -run ClusterScenarios -v -timeout 2h ./cmd/genstream
//
// GENSTREAM_SCENARIO=20s has each in trouble for so long, GENSTREAM_ATONCE=1 runs so
// many at a time.
func TestClusterScenarios(t *testing.T) {
	if race { // eight programs at once, each with the detector, outlast what they promise each other
		t.Skip("SKIPPED: go test without -race runs it")
	}
	tried := prooftest.Begin(t, "cluster")
	most := scenarios
	if tried.Long() {
		most = math.MaxInt
	}
	span, ok := lookupDuration(t, "GENSTREAM_SCENARIO")
	if !ok {
		span = scenarioSpan
	}
	atOnce := scenariosAtOnce
	if text := os.Getenv("GENSTREAM_ATONCE"); text != "" {
		var err error
		if atOnce, err = strconv.Atoi(text); err != nil || atOnce < 1 {
			t.Fatalf("GENSTREAM_ATONCE=%s is no number", text)
		}
	}
	var sum scenarioTally
	t.Run("cases", func(t *testing.T) {
		var running sync.WaitGroup
		places := make(chan struct{}, atOnce)
		for range atOnce {
			places <- struct{}{}
		}
		<-places
		for n := range tried.Cases(most) {
			kind := troubles()[n%len(troubles())]
			r := rand.New(rand.NewPCG(uint64(n), 2))
			running.Go(func() {
				defer func() { places <- struct{}{} }()
				if !t.Run(fmt.Sprint(n, " ", kind.name), func(t *testing.T) { newScenario(t, r).run(kind, span, r, &sum) }) {
					tried.Violated(n)
				}
			})
			<-places // before the next is counted
		}
		running.Wait()
	})
	tried.Void(sum.disturbed)
	tried.Figure("acknowledged", sum.acked)
	tried.Figure("operations", sum.operations)
	tried.Figure("old", sum.old)
	tried.Figure("disturbed", sum.disturbed)
	t.Logf("%d operations of clients, %d refused with 503 or unanswered; %d webhooks 2xx, %d create calls and %d outputs compared; the slowest cluster was of one mind after %s, the slowest drain took %s",
		sum.operations, sum.unknown, sum.webhooks, sum.calls, sum.outputs, sum.mind.Round(time.Second), sum.drain.Round(time.Second))
}

func lookupDuration(t *testing.T, name string) (time.Duration, bool) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d, true
}

// scenarioTally is what all scenarios came to.
type scenarioTally struct {
	mu                                                                   sync.Mutex
	disturbed, acked, operations, unknown, old, webhooks, calls, outputs int
	mind, drain                                                          time.Duration // the longest
}

// scenario is the program's processes on a cluster.
type scenario struct {
	t       *testing.T
	cluster *natsdtest.Processes
	dir     string
	sim     *sim.Server
	parts   []*process
	api     *client
	conn    *nats.Conn  // of the clients that ask over NATS
	log     *stream.Log // for whoever looks, after everything
	clients clients
	stolen  atomic.Int64 // nanoseconds in which this machine let nobody run
}

// watch counts what is stolen from the whole machine (it was suspended, or had
// other things to do): nobody keeps a promise about time then.
func (s *scenario) watch(ctx context.Context) {
	last := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if gap := time.Since(last); gap > time.Second {
			s.stolen.Add(int64(gap))
		}
		last = time.Now()
	}
}

// late is how much later everything may be for it.
func (s *scenario) late() time.Duration { return time.Duration(s.stolen.Load()) }

// disturbed says whether so much was stolen that a picture may have been out of
// reach in all the time that it could be had. Such a scenario is not counted.
func (s *scenario) disturbed() bool { return s.late() > 3*time.Second }

// within waits for done for a time, of which nothing is stolen.
func (s *scenario) within(atMost time.Duration, done <-chan struct{}) bool {
	for end, was := time.Now().Add(atMost), s.late(); ; {
		left := time.Until(end.Add(s.late() - was))
		if left <= 0 {
			return false
		}
		select {
		case <-done:
			return true
		case <-time.After(min(left, time.Second)):
		}
	}
}

func newScenario(t *testing.T, r *rand.Rand) *scenario {
	t.Helper()
	s := &scenario{t: t, cluster: natsdtest.StartProcesses(t), dir: fastDir(t)}
	var base string
	s.sim, base = serveProvider(t, sim.Config{
		Seed: r.Uint64(), Latency: sim.Range{Min: 20 * time.Millisecond, Max: 3 * time.Second},
		Faults: sim.Faults{Lost: .05, Doubled: .1, Failing: .05, Ambiguous: .03, Busy: .03},
	})
	keys := filepath.Join(s.dir, "webhook.keys")
	if err := os.WriteFile(keys, []byte(strings.Repeat("ab", 16)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hooks := []string{freePort(t), freePort(t)}
	dealer := deal(t, &hooks)
	file := providerFile(t, base)
	add := func(name, roles string, args ...string) *process {
		p := &process{t: t, name: name, link: s.cluster.Link(), at: freePort(t)}
		p.args = append([]string{
			"serve", "--roles", roles, "--nats-url", p.link.URL(), "--replicas", fmt.Sprint(natsdtest.Nodes), "--data", filepath.Join(s.dir, name),
			"--config", file, "--webhook-keys", keys, "--webhook-url", dealer, "--bucket", "file://" + filepath.Join(s.dir, "bucket"),
		}, args...)
		if roles == roleAPI {
			p.args = append(p.args, "--listen", p.at)
		} else {
			p.args = append(p.args, "--ops-listen", p.at)
		}
		s.parts = append(s.parts, p)
		p.begin()
		return p
	}
	for i, at := range hooks {
		add(fmt.Sprint("o", i), roleOrchestrator)
		add(fmt.Sprint("i", i), roleIngress, "--hooks-listen", at)
	}
	s.api = &client{base: "http://" + add("a", roleAPI).at, http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // others may want the machine
	defer cancel()
	for _, p := range s.parts {
		if !p.await(ctx) {
			t.Fatalf("%s does not start\n%s", p.name, p.said.all())
		}
	}
	s.conn = s.cluster.Connect(s.cluster.Link().URL())
	var err error
	if s.log, err = stream.Open(t.Context(), s.conn, stream.Config{}); err != nil {
		t.Fatal(err)
	}
	s.clients = clients{t: t, s: s, began: time.Now(), pace: 200 * time.Millisecond, told: map[events.ID]*tale{}}
	return s
}

func (s *scenario) run(kind trouble, span time.Duration, r *rand.Rand, sum *scenarioTally) {
	go s.watch(s.t.Context())
	ctx, cancel := context.WithTimeout(s.t.Context(), span)
	defer cancel()
	finished := s.clients.begin(ctx, r)
	rest(ctx, time.Duration(r.Int64N(int64(3*time.Second))))
	kind.make(ctx, s, r)
	<-ctx.Done()

	for _, p := range s.parts {
		p.heal()
	}
	healed := time.Now()
	mind := s.cluster.Heal(s.t.Context(), 2*time.Minute)
	of := time.Since(healed)
	if !mind && !s.disturbed() {
		s.t.Error("the nodes are not of one mind two minutes after the trouble")
	}
	if !s.within(2*time.Minute, finished) {
		s.t.Fatal("a create is not accepted two minutes after the trouble")
	}
	s.clients.drained(healed)
	drain := time.Since(healed)
	for _, p := range s.parts {
		p.finish()
		if n := p.ended.Load(); n > 0 && !s.disturbed() {
			s.t.Errorf("%s ended by itself %d times", p.name, n)
		}
	}
	r2, webhooks := s.verify()
	reads := open
	if strings.Contains(kind.name, "leader") { // one that is cut off does not know for some 10 s that it leads no more
		reads = anything
	}
	acked, operations, unknown, old := s.clients.judge(open, reads)
	s.t.Logf("%d acknowledged, %d operations (%d unknown, %d IDs not shown for a while), of one mind after %s, drained after %s, %s stolen",
		acked, operations, unknown, old, of.Round(100*time.Millisecond), drain.Round(100*time.Millisecond), s.late().Round(100*time.Millisecond))
	sum.mu.Lock()
	defer sum.mu.Unlock()
	if s.disturbed() {
		sum.disturbed++
	}
	sum.acked, sum.operations, sum.unknown, sum.old = sum.acked+acked, sum.operations+operations, sum.unknown+unknown, sum.old+old
	sum.webhooks, sum.calls, sum.outputs = sum.webhooks+webhooks, sum.calls+r2.Claim("I14").Looked, sum.outputs+r2.Claim("I23").Looked
	sum.mind, sum.drain = max(sum.mind, of), max(sum.drain, drain)
}

// tell says what is known of a generation.
func (s *scenario) tell(id events.ID, journal []sim.Entry) {
	history, err := s.log.History(s.t.Context(), id)
	if err != nil {
		s.t.Log(err)
	}
	for _, e := range history {
		s.t.Logf("%s %d %s", e.Stored.Format("05.000"), e.Sequence, events.Cut(string(e.Body), 1500))
	}
	for _, e := range journal {
		for slot := range events.MaxCount {
			if task := events.TaskID(id, slot, 1); e.Task == task || slices.Contains(e.Tasks, task) {
				s.t.Logf("%s %+v", e.At.Format("05.000"), e)
			}
		}
	}
}

// verify holds log, catalog and bucket against the provider's journal, and against
// what was promised to clients and to the provider.
func (s *scenario) verify() (*verify.Report, int) {
	s.t.Helper()
	ctx := s.t.Context()
	bucket, err := blob.Open(ctx, "file://"+filepath.Join(s.dir, "bucket"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer bucket.Close()
	rows, err := projector.OpenCurrent(ctx, filepath.Join(s.dir, "a", catalogDir))
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	journal := journalOf(s.t, s.sim)
	r, err := verify.Run(ctx, verify.Source{Log: s.log, Bucket: bucket, Catalog: rows, Journal: journal, Grace: time.Hour})
	if err != nil {
		s.t.Fatal(err)
	}
	bad := r.Violations()
	if s.disturbed() {
		bad -= r.Claim("I23").Count
	}
	if bad > 0 {
		r.Print(s.t.Output())
		s.t.Errorf("%d violations", bad)
		for _, c := range r.Claims {
			for _, f := range c.Broken {
				s.tell(f.ID, journal)
			}
		}
	}
	f, err := factsOf(ctx, s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	webhooks, _ := f.accounted(s.t, s.clients.accepted(), journal)
	if n, err := s.log.ParkedCount(ctx); err != nil || n > 0 {
		s.t.Errorf("%d messages are parked: %v", n, err)
	}
	return r, webhooks
}
