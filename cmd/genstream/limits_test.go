package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// Errors about the account fail no generation: what waits goes on waiting, a
// probe every 30 s finds out when it is over, and then all of it is made.
func TestFiveHundredWaitOutAnAccountInTrouble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const n, trouble = 500, 2 * time.Minute
		w := newWorld(t, sim.Config{Seed: 5})
		w.open()
		w.sim.SetAccount(402)
		began := time.Now()
		ids := make([]events.ID, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				ids[i] = streamtest.NewID()
				if err := w.create(ids[i], map[string]any{
					"model": "runware:101@1", "input": map[string]any{"positivePrompt": fmt.Sprint("waits ", i), "width": 64, "height": 64},
				}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(trouble - time.Since(began))
		if err := w.node.ready(); err == nil || !strings.Contains(err.Error(), "sim") {
			t.Errorf("ready while the account is in trouble: %v, want the provider's name and why", err)
		}
		if open := w.node.orchestrator.OpenCount(); open != n {
			t.Errorf("%d are open, want all %d", open, n)
		}
		refused := 0
		for _, e := range w.journal() {
			if e.Kind == sim.KindCreate {
				refused++
			}
		}
		w.sim.SetAccount(0)
		w.settle(5 * time.Minute)
		for _, id := range ids {
			if g := w.get(id); g.Error != nil || g.Outputs[0].Artifact == nil {
				t.Errorf("generation=%s: %+v", id, g.Error)
			}
		}
		if err := w.node.ready(); err != nil {
			t.Errorf("ready afterwards: %v", err)
		}
		w.verify()
		// 16 may call at once before the first answer, then one every 30 s.
		if most := 16 + int(trouble/(30*time.Second)) + 1; refused > most {
			t.Errorf("%d calls were made into the trouble, want at most %d", refused, most)
		}
		t.Logf("%d calls into the trouble, all %d done %s after it", refused, n, time.Since(began.Add(trouble)).Round(time.Second))
		w.end()
	})
}

// The largest legal request, with the worst that JSON can do to its size, comes
// back with all its outputs.
func TestLargestLegalGenerationCompletes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		labels := map[string]string{}
		for i := range events.MaxLabels {
			labels[fmt.Sprintf("%0*d", events.MaxLabelKey, i)] = strings.Repeat("\u2028", events.MaxLabel/3)
		}
		request := func(fill int) map[string]any {
			return map[string]any{
				"model": "runware:" + strings.Repeat("1", 200) + "@1", "count": events.MaxCount, "labels": labels, "deadline": "24h",
				"input": map[string]any{
					"positivePrompt": "largest", "width": 64, "height": 64, "seed": uint64(1) << 62,
					"notes": strings.Repeat(`"<\`+"\x01\u2028", fill),
				},
			}
		}
		fill := 0
		for ; ; fill++ {
			if b, err := json.Marshal(request(fill + 1)); err != nil || len(b) > events.MaxRequest {
				break
			}
		}
		id := streamtest.NewID()
		if err := w.create(id, request(fill)); err != nil {
			t.Fatal(err)
		}
		if err := w.create(streamtest.NewID(), request(fill+1)); err == nil {
			t.Error("one more was accepted: this is not the largest")
		}
		w.settle(5 * time.Minute)
		g := w.get(id)
		for _, o := range g.Outputs {
			if o.Artifact == nil {
				t.Errorf("slot %d: %+v", o.Slot, o.Error)
			}
		}
		history, err := w.node.stream.History(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		largest := 0
		for _, e := range history {
			largest = max(largest, len(e.Body))
		}
		t.Logf("%d outputs, largest commit %d of %d bytes", len(g.Outputs), largest, events.MaxCommit)
		w.verify()
		w.end()
	})
}
