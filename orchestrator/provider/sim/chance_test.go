package sim_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// fates is what befell each of 200 tasks under heavy faults, created in an order.
func fates(t *testing.T, seed uint64, order []int) map[string]string {
	out := map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: seed, Faults: sim.Faults{
			Busy: 0.1, Broken: 0.1, Refused: 0.1, Ambiguous: 0.1, Failing: 0.3, Lost: 0.2, Doubled: 0.2, Late: 0.2, Flat: 0.5, Reordered: 0.2,
		}})
		defer w.close()
		for _, n := range order {
			w.create("a fox", n)
		}
		quiet()
		for id, l := range sim.Ledger(w.journal()) {
			out[id] = fmt.Sprint(l.Taken, l.Code, l.Webhooks)
		}
	})
	return out
}

func TestChanceDependsOnSeedAndTaskAlone(t *testing.T) {
	var up []int
	for n := range 200 {
		up = append(up, n)
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	first := fates(t, 1, up)
	if !maps.Equal(first, fates(t, 1, down)) {
		t.Error("the order of calls changes what befalls them")
	}
	if maps.Equal(first, fates(t, 2, up)) {
		t.Error("the seed changes nothing")
	}
	seen := map[string]bool{}
	for _, f := range first {
		seen[f] = true
	}
	if len(seen) < 8 {
		t.Errorf("%d kinds of fate among 200 tasks: %v", len(seen), seen)
	}
}

func TestBusyProviderIsNotBusyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Faults: sim.Faults{Busy: 0.9}})
		defer w.close()
		codes := map[int]int{}
		for range 60 {
			code, _ := w.create("a fox", 1)
			codes[code]++
		}
		if codes[200] != 1 || codes[429] < 40 {
			t.Errorf("answers %v: want 429 mostly, and 200 once", codes)
		}
	})
}
