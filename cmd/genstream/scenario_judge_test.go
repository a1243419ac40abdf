package main

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/genstream/genstream/events"
)

// clusterGrace is how long after its deadline a generation completes on a cluster: I2.
const clusterGrace = 30 * time.Second

// drained waits until all that was accepted is in the catalog, and holds each to
// its time: it completes within 30 s of its deadline, not counting the trouble.
func (c *clients) drained(healed time.Time) {
	c.t.Helper()
	left := c.accepted()
	after, before := uint64(0), c.s.late()
	for len(left) > 0 {
		var page struct {
			Generations []struct{ ID events.ID } `json:"generations"`
			Next        uint64                   `json:"next"`
		}
		if err := c.s.api.get(c.t.Context(), fmt.Sprintf("/v1/changes?after=%d&wait=2s&limit=200", after), &page); err == nil {
			for _, g := range page.Generations {
				delete(left, g.ID)
			}
			after = page.Next
		} else {
			rest(c.t.Context(), 100*time.Millisecond)
		}
		if time.Since(healed) > 3*time.Minute+c.s.late()-before {
			for id := range left {
				history, _ := c.s.log.History(c.t.Context(), id)
				for _, e := range history {
					c.t.Logf("%d %s", e.Sequence, e.Body)
				}
				c.t.Fatalf("%d acknowledged generations are not completed, generation=%s is one", len(left), id)
			}
		}
	}
	for id := range c.accepted() {
		of := c.told[id]
		for try := 0; ; try++ {
			var ok bool
			if of.view, ok = c.get(9, id, of, false); ok && !of.view.CompletedAt.IsZero() {
				break
			}
			if try == 20 {
				c.t.Errorf("generation=%s is in the catalog, and is not read as completed", id)
				break
			}
			rest(c.t.Context(), 100*time.Millisecond)
		}
		g, _, err := c.s.log.Load(c.t.Context(), id)
		if err != nil {
			c.t.Fatal(err)
		}
		latest := g.Deadline
		if healed.After(latest) {
			latest = healed
		}
		if late := g.CompletedAt.Sub(latest.Add(clusterGrace + c.s.late())); late > 0 {
			c.t.Errorf("generation=%s completed %s too late", id, late)
		}
	}
}

// judge looks, for each ID, for an order in which what everybody was told could
// have happened. It returns how many were accepted, operations, and tries without
// an answer that says anything, and how many are possible only with reads as old as
// counted.
func (c *clients) judge(reads, counted reading) (acked, operations, unknown, old int) {
	c.t.Helper()
	end := c.now() + 1
	for id, of := range c.told {
		operations += len(of.ops) + len(of.odd)
		unknown += len(of.odd)
		if of.acked {
			acked++
		}
		switch {
		case of.possible(end, reads):
		case of.possible(end, counted):
			old++
		default:
			c.t.Errorf("generation=%s: what clients were told cannot have happened:", id)
			for _, op := range append(of.ops, of.odd...) {
				c.t.Logf("  %d %d..%d %+v -> %+v", op.ClientId, op.Call/1e6, op.Return/1e6, op.Input, op.Output)
			}
		}
	}
	return acked, operations, unknown, old
}

// possible is the verdict on one tale. The log knows whose request it is in the
// end: a create without an answer may have come through if it was that one.
func (s *tale) possible(end int64, reads reading) bool {
	ops := s.ops
	request := promptOf(s.view)
	first := end
	for _, op := range s.odd {
		if op.Input.(ask).request == request {
			op.Output, op.Return = answer{}, end
			ops = append(ops, op)
		}
	}
	for _, op := range ops {
		first = min(first, op.Call)
	}
	if !s.view.CompletedAt.IsZero() {
		ops = append(ops, porcupine.Operation{Input: ask{kind: "complete", request: request}, Call: first, Output: answer{}, Return: end})
	}
	return porcupine.CheckOperationsTimeout(apiModel(reads), ops, time.Minute) == porcupine.Ok
}
