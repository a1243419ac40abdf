package main

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// count is how many entries of a kind the provider's journal has.
func (w *world) count(kind string) int {
	w.t.Helper()
	n := 0
	for _, e := range w.journal() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// TestRescueAdoptsWhatCameLate: the pictures that were paid for and came after the
// deadline are had by asking once more, and nothing is bought for it.
func TestRescueAdoptsWhatCameLate(t *testing.T) {
	for _, webhooks := range []bool{true, false} {
		name := map[bool]string{true: "webhooks", false: "polls"}[webhooks]
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { rescued(t, webhooks) })
		})
	}
}

func rescued(t *testing.T, webhooks bool) {
	w := newWorld(t, sim.Config{Seed: 3})
	defer w.end()
	if !webhooks {
		w.cfg.WebhookURL, w.cfg.Roles = "", []string{roleOrchestrator, roleAPI}
	}
	w.open()
	old := freshID()
	err := w.create(old, map[string]any{
		"model": "sim:fox@1", "count": 4, "deadline": "1m", "labels": map[string]string{"user": "42"},
		"input": map[string]any{"positivePrompt": "a fox [[take:2,3 5m]] [[never:4]]", "width": 64, "height": 64},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.rescue(context.Background(), old); problemCode(err) != 422 {
		t.Errorf("rescued before it was completed: %v", err)
	}
	w.settle(2 * time.Minute)
	if g := w.get(old); g.Outputs[0].Artifact == nil || g.Outputs[1].Error.Code != "deadline" || g.Outputs[3].Error.Code != "deadline" {
		t.Fatalf("the deadline left %+v", g.Outputs)
	}
	w.verify()

	time.Sleep(10 * time.Minute) // the provider finishes, and its webhooks come too late
	for _, e := range w.journal() {
		if e.Kind == sim.KindWebhook && e.HTTP/100 != 2 {
			t.Errorf("a late webhook was answered %d", e.HTTP)
		}
	}
	if webhooks != (w.count(sim.KindWebhook) == 3) {
		t.Errorf("%d webhooks were sent", w.count(sim.KindWebhook))
	}
	creates, bill := w.count(sim.KindCreate), sim.Bill(w.journal())

	id, err := w.api.rescue(context.Background(), old)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.api.rescue(context.Background(), old); err != nil || again != id || id == old {
		t.Errorf("rescued again it is %s, %v; want %s", again, err, id)
	}
	w.settle(15 * time.Second)
	g := w.get(id)
	if g.Rescues != old || g.ExpectedCount != 3 || g.Model != "sim:fox@1" || g.Labels["user"] != "42" {
		t.Errorf("the rescue is %+v", g)
	}
	if g.Outputs[0].Artifact == nil || g.Outputs[1].Artifact == nil || g.Outputs[2].Error == nil || g.Outputs[2].Error.Code != "deadline" {
		t.Errorf("it has %+v", g.Outputs)
	}
	if took := g.CompletedAt.Sub(g.CreatedAt); took > 10*time.Second {
		t.Errorf("it took %s, and one question is enough", took)
	}
	if now := w.count(sim.KindCreate); now != creates || sim.Bill(w.journal()) != bill {
		t.Errorf("%d create calls, %d before; the bill is %d, it was %d", now, creates, sim.Bill(w.journal()), bill)
	}
	r := w.verify()
	if c := r.Claim("I23"); c.Looked < 3 {
		t.Errorf("verify looked at %d outputs of the provider, want 3", c.Looked)
	}

	// What is rescued is a generation like any other: a restart and a rebuild change nothing.
	w.close()
	w.open()
	live := w.dump()
	if err := w.node.projector.Rebuild(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if w.dump() != live {
		t.Error("the rebuilt catalog's dump differs")
	}
	if again, err := w.api.rescue(context.Background(), old); err != nil || again != id {
		t.Errorf("after a restart the rescue is %s, %v", again, err)
	}
	// One output is still missing: the rescue of the rescue asks about that alone.
	second, err := w.api.rescue(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.settle(15 * time.Second)
	if g := w.get(second); g.Rescues != id || g.ExpectedCount != 1 || g.Error == nil || g.Error.Code != "deadline" {
		t.Errorf("the rescue of the rescue is %+v", g)
	}
	w.verify()
}

func problemCode(err error) int {
	var p *problemError
	if !errors.As(err, &p) {
		return 0
	}
	return p.code
}

func TestWhatCannotBeRescuedIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 3})
		defer w.end()
		w.open()
		good, bad := freshID(), freshID()
		for id, prompt := range map[events.ID]string{good: "a fox", bad: "a fox [[fail contentPolicyViolation]]"} {
			if err := w.create(id, map[string]any{"model": "sim:fox@1", "input": map[string]any{"positivePrompt": prompt, "width": 64, "height": 64}}); err != nil {
				t.Fatal(err)
			}
		}
		w.settle(time.Minute)
		for name, c := range map[string]struct {
			id   events.ID
			want int
		}{
			"unknown":        {freshID(), http.StatusNotFound},
			"nothing missed": {good, http.StatusUnprocessableEntity},
			"refused":        {bad, http.StatusUnprocessableEntity},
		} {
			if id, err := w.api.rescue(context.Background(), c.id); problemCode(err) != c.want {
				t.Errorf("%s: %s, %v; want %d", name, id, err, c.want)
			}
		}
		if n := w.node.orchestrator.OpenCount(); n != 0 {
			t.Errorf("%d generations are open", n)
		}
	})
}

// TestTaskThatIsLostStaysLost: the provider does not know it, which is an answer.
func TestTaskThatIsLostStaysLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 3})
		defer w.end()
		w.open()
		id := freshID()
		err := w.create(id, map[string]any{
			"model": "sim:fox@1", "count": 2, "deadline": "20s",
			"input": map[string]any{"positivePrompt": "a fox [[gone:1]] [[take:2 1m]] [[lose:2]]", "width": 64, "height": 64},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		time.Sleep(2 * time.Minute)
		// The process dies between the promise of the rescue and its question.
		rescue, err := w.api.rescue(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		w.close()
		w.open()
		w.settle(time.Minute)
		g := w.get(rescue)
		if g.Outputs[0].Error == nil || g.Outputs[0].Error.Code != "lost" || g.Outputs[1].Artifact == nil {
			t.Errorf("the rescue has %+v %+v", g.Outputs[0], g.Outputs[1])
		}
		w.verify()
	})
}
