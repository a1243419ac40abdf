package orchestrator

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/proof/prooftest"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/webhook"
)

var oneSeed = flag.Int64("seed", -1, "the one seed that TestSimulation runs, and tells of")

// rig is what the simulations of one bubble share, because it is dear to make and
// remembers nothing of them.
type rig struct {
	log      presentLog
	provider presentProvider
	handler  *webhook.Handler
	idle     []*thread
	metrics  *Metrics // of all orchestrators, which nobody reads
	hits     [kinds]int
	events   map[string]int
}

// presentLog and presentProvider are those of whatever simulation runs.
type (
	presentLog      struct{ *simLog }
	presentProvider struct{ *simProvider }
)

var simKeys = webhook.Keys{[]byte("simulation of the webhook keys")}

func newRig() *rig {
	r := &rig{events: map[string]int{}}
	r.handler = webhook.New(webhook.Config{
		Bring: func(ctx context.Context, id events.ID, d events.Delivered) (uint64, bool) {
			return r.log.s.bring(ctx, id, d)
		},
		Log: &r.log, Bucket: &blob.Bucket{}, Keys: simKeys,
		Providers: map[string]provider.Provider{"sim": &r.provider}, Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

// An ordinary run is over after so many seeds, or after so long.
const (
	usualSeeds = 200_000
	usualTime  = 15 * time.Second
)

// TestSimulation lets seed after seed go through bad weather. GENSTREAM_SEEDS says
// how many, however long that takes, and GENSTREAM_FROM which is the first; -seed N,
// or GENSTREAM_SEED=N, runs one and tells what happened.
func TestSimulation(t *testing.T) {
	if seed := number64(os.Getenv("GENSTREAM_SEED"), *oneSeed); seed >= 0 {
		problems, diary, _ := tellSeed(t, uint64(seed))
		t.Logf("seed %d: what happened:\n%s", seed, diary)
		for _, p := range problems {
			t.Errorf("seed %d: %s", seed, p)
		}
		return
	}
	seeds := uint64(number64(os.Getenv("GENSTREAM_SEEDS"), 0))
	run := prooftest.Begin(t, "seeds")
	from := uint64(run.From)
	patience := 1000 * time.Hour
	switch {
	case seeds == 0 && run.Long():
		seeds = 1 << 40
	case seeds == 0:
		seeds, patience = usualSeeds, usualTime
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // little is live, and much is made
	started := time.Now()
	var hits [kinds]int
	kindsOf := map[string]int{}
	next := from
	for next < from+seeds && time.Since(started) < patience && run.More() {
		first := next
		upto := min(next+500, from+seeds)
		synctest.Test(t, func(t *testing.T) {
			r := newRig()
			for ; next < upto; next++ {
				if s := r.run(next, false); len(s.problems) > 0 {
					break
				}
			}
			r.end()
			for k := range hits {
				hits[k] += r.hits[k]
			}
			for k, n := range r.events {
				kindsOf[k] += n
			}
		})
		run.Tried(int(min(next+1, upto) - first)) // with the one that failed
		if next < upto {
			run.Violated(int(next))
			problems, diary, _ := tellSeed(t, next)
			t.Fatalf("seed %d (the %dth): %s\nwhat happened:\n%s\nrepeat it with: go test ./orchestrator -run TestSimulation -seed %d",
				next, next-from+1, strings.Join(problems, "\n"), diary, next)
		}
	}
	took := time.Since(started)
	seeds = next - from
	t.Logf("%d seeds in %s, %.0f a minute", seeds, took.Round(time.Millisecond), float64(seeds)/took.Minutes())
	sometimes(t, seeds, hits, kindsOf)
}

// TestSimulationRepeats: a seed is a run, down to the last digest.
func TestSimulationRepeats(t *testing.T) {
	for seed := range uint64(100) {
		_, _, first := tellSeed(t, seed)
		_, _, second := tellSeed(t, seed)
		if first != second {
			t.Fatalf("seed %d was %s, and then %s", seed, first, second)
		}
	}
}

// sometimes fails if something is not reached any more: a fault, an event.
func sometimes(t *testing.T, seeds uint64, hits [kinds]int, types map[string]int) {
	least := int(seeds / 2000)
	var told []string
	for k, n := range hits {
		told = append(told, fmt.Sprintf("%s %d", faults[k].name, n))
		if n < least {
			t.Errorf("%q came %d times in %d seeds, and should at least %d times", faults[k].name, n, seeds, least)
		}
	}
	t.Logf("faults: %s", strings.Join(told, ", "))
	told = nil
	for _, e := range []events.Event{
		events.Requested{},
		events.Dispatching{},
		events.Dispatched{},
		events.Delivered{},
		events.OutputSucceeded{},
		events.OutputFailed{},
		events.Completed{},
	} {
		n := types[e.Type()]
		told = append(told, fmt.Sprintf("%s %d", e.Type(), n))
		if n < int(seeds/10) {
			t.Errorf("event %s came %d times in %d seeds", e.Type(), n, seeds)
		}
	}
	t.Logf("events: %s", strings.Join(told, ", "))
}

// run is one seed, judged.
func (r *rig) run(seed uint64, tracing bool) *simulation {
	s := newSimulation(r, seed, tracing)
	s.happen()
	if len(s.problems) == 0 {
		s.judge()
	}
	for _, p := range s.processes { // what is still under way is of no interest
		s.end(p)
	}
	s.bury()
	r.idle = s.idle
	return s
}

// end stops the threads, which must not outlive their bubble.
func (r *rig) end() {
	for _, t := range r.idle {
		t.stop()
	}
}

func tellSeed(t *testing.T, seed uint64) (problems []string, diary, fingerprint string) {
	synctest.Test(t, func(*testing.T) {
		r := newRig()
		s := r.run(seed, true)
		r.end()
		problems, diary, fingerprint = slices.Clone(s.problems), s.diary.String(), s.fingerprint()
	})
	return problems, diary, fingerprint
}

func number64(text string, otherwise int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// orchestrator is a new one.
func (r *rig) orchestrator(alone, webhooks bool) *Orchestrator {
	cfg := Config{Log: &stream.Log{}, Providers: []Instance{{Name: "sim", Provider: &r.provider}}, Alone: alone}
	if webhooks {
		cfg.Webhook = func(name string, id events.ID) string { return simKeys.URL("http://hooks.test", name, id) }
	}
	o := assemble(cfg)
	if r.metrics == nil {
		r.metrics = newMetrics(o)
	}
	o.Metrics = r.metrics
	return o
}
