package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// weather is the bad weather of the whole-system test.
func weather(seed uint64) sim.Config {
	return sim.Config{
		Seed:    seed,
		Latency: sim.Range{Min: 200 * time.Millisecond, Max: 20 * time.Second},
		Faults: sim.Faults{
			Lost: .05, Doubled: .10, Late: .05, Reordered: .05, Failing: .10, Refused: .02, Flat: .2, Sync: .05,
			Busy: .03, Broken: .01, Ambiguous: .02, Cut: .02, Trickle: .01,
		},
	}
}

// A thousand generations in bad weather, ten thousand with -tags long: each completes, and what came of it is
// what the provider's journal says was made, to the last byte and the last
// billionth of a dollar. A restart in the middle changes nothing.
func TestThousandGenerationsInBadWeather(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := 1000
				if long {
					n = 10_000
				}
				w := newWorld(t, weather(7))
				w.open()
				started := time.Now()
				ids := w.load(n, 16, func(done int) {
					if restart && done == n/2 {
						w.close()
						w.open()
					}
				})
				w.settle(15 * time.Minute)
				w.checkAgainstJournal(ids)
				w.verify()
				live := w.dump()
				if err := w.node.projector.Rebuild(context.Background(), nil); err != nil {
					t.Fatal(err)
				}
				if rebuilt := w.dump(); rebuilt != live {
					t.Error("the rebuilt catalog's dump differs from the live one")
				}
				good := 0
				for _, l := range sim.Ledger(w.journal()) {
					if l.Output != nil {
						good++
					}
				}
				t.Logf("%d generations, %d good outputs, %s of fake time", n, good, time.Since(started).Round(time.Second))
				w.end()
			})
		})
	}
}

// load creates n generations of 1 to 4 outputs, so many at a time. between is
// called with the number that were created, by one goroutine while no other creates.
func (w *world) load(n, clients int, between func(done int)) []events.ID {
	ids := make([]events.ID, n)
	for done := 0; done < n; done += clients {
		between(done)
		var wg sync.WaitGroup
		for i := done; i < min(done+clients, n); i++ {
			wg.Go(func() {
				ids[i] = events.SubmittedID("load", uint64(i), time.Now()) // the same in every run, so that fates are too
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				err := w.create(ids[i], map[string]any{
					"model": "runware:101@1", "count": 1 + rng.IntN(4),
					"input":  map[string]any{"positivePrompt": fmt.Sprintf("picture %d", i), "width": 64, "height": 64, "seed": rng.Uint32()},
					"labels": map[string]string{"batch": fmt.Sprint(i % 10)},
				})
				if err != nil {
					w.t.Errorf("create %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		time.Sleep(100 * time.Millisecond) // fake time: ten batches a second
	}
	return ids
}

// checkAgainstJournal compares, for each generation, the set of artifacts with
// what the journal says the provider made for its tasks.
func (w *world) checkAgainstJournal(ids []events.ID) {
	w.t.Helper()
	type made struct{ sha, seed, cost string }
	ledger := sim.Ledger(w.journal())
	var billed, catalogued int64
	for _, id := range ids {
		g := w.get(id)
		if g.CompletedAt.IsZero() {
			w.t.Errorf("generation=%s is not completed", id)
			continue
		}
		for _, o := range g.Outputs {
			var want *made
			var when time.Time
			for try := 1; try <= events.MaxTries; try++ {
				l := ledger[events.TaskID(id, o.Slot, try)]
				if l.Taken > 1 {
					w.t.Errorf("generation=%s slot=%d: task taken %d times", id, o.Slot, l.Taken)
				}
				if l.Output != nil {
					want = &made{l.Output.SHA256, l.Output.Seed, string(events.Dollars(l.Output.Cost))}
					when = l.Output.At
					billed += l.Output.Cost
				}
			}
			var have *made
			if a := o.Artifact; a != nil {
				have = &made{a.SHA256, a.Seed, string(a.Cost)}
			}
			if (want == nil) != (have == nil) || want != nil && *want != *have {
				w.t.Errorf("generation=%s slot=%d: have %+v, the provider made %+v at %s; error %+v", id, o.Slot, have, want, when, o.Error)
			}
		}
	}
	counts, err := w.node.projector.Current().Counts(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	if catalogued = counts.Cost; catalogued != billed || catalogued != sim.Bill(w.journal()) {
		w.t.Errorf("the catalog's cost is %d, the provider's bill %d (%d in all)", catalogued, billed, sim.Bill(w.journal()))
	}
}
