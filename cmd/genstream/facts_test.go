package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// facts is what the log holds.
type facts struct {
	digest    map[uint64]string // of the commit at a sequence
	events    map[place][32]byte
	requested map[uint64]events.ID
	completed map[events.ID]uint64
	claims    map[string]events.ID // by task
	delivered map[string]bool      // tasks
}

// readFacts reads a copy of the store, so that the program finds its own as the
// cut has left it.
func readFacts(t *testing.T, store string) (f facts, err error) {
	t.Helper()
	dir := filepath.Join(fastDir(t), "nats")
	mustCopy(t, dir, store)
	defer os.RemoveAll(dir)
	s, err := natsd.Start(natsd.Config{Dir: dir, MaxStore: 1 << 30})
	if err != nil {
		return f, err
	}
	defer s.Close()
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Own: true})
	if err != nil {
		return f, err
	}
	return factsOf(t.Context(), l)
}

// factsOf reads a log.
func factsOf(ctx context.Context, l *stream.Log) (facts, error) {
	f := facts{
		digest: map[uint64]string{}, events: map[place][32]byte{}, requested: map[uint64]events.ID{},
		completed: map[events.ID]uint64{}, claims: map[string]events.ID{}, delivered: map[string]bool{},
	}
	end, err := l.Refresh(ctx)
	if err != nil {
		return f, err
	}
	return f, l.Scan(ctx, 0, end, func(batch []stream.Entry) error {
		for _, e := range batch {
			if err := f.add(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f facts) add(e stream.Entry) error {
	c, err := e.Decode()
	if err != nil {
		return err
	}
	var raw struct {
		At     time.Time         `json:"at"`
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(e.Body, &raw); err != nil {
		return err
	}
	f.digest[e.Sequence] = e.Digest
	for i, ev := range c.Events {
		var shown bytes.Buffer // as package api sends it
		fmt.Fprintf(&shown, `{"generation_id":"%s","sequence":%d,"version":%d,"at":"%s",%s`,
			e.ID, e.Sequence, e.Version, raw.At.UTC().Format(time.RFC3339Nano), raw.Events[i][1:])
		f.events[place{e.Sequence, i}] = sha256.Sum256(shown.Bytes())
		switch ev := ev.(type) {
		case events.Requested:
			f.requested[e.Sequence] = e.ID
		case events.Dispatching:
			for _, task := range ev.Tasks {
				f.claims[task.ID] = e.ID
			}
		case events.Delivered:
			for _, r := range ev.Results {
				f.delivered[r.Task] = true
			}
		case events.Completed:
			f.completed[e.ID] = e.Sequence
		}
	}
	return nil
}

// accounted looks in the log for what was acknowledged, and for each webhook that was
// answered with 2xx: it is there, or its generation was completed without it.
func (f facts) accounted(t *testing.T, acked map[events.ID]bool, journal []sim.Entry) (webhooks, missing int) {
	requested := map[events.ID]int{}
	for _, id := range f.requested {
		requested[id]++
	}
	for id := range acked {
		if requested[id] != 1 || f.completed[id] == 0 {
			t.Errorf("generation=%s was acknowledged: %d first commits, completed at %d", id, requested[id], f.completed[id])
			missing++
		}
	}
	for _, e := range journal {
		if e.Kind != sim.KindWebhook || e.HTTP/100 != 2 {
			continue
		}
		webhooks++
		if id := f.claims[e.Task]; !f.delivered[e.Task] && f.completed[id] == 0 {
			t.Errorf("the webhook of task %s (generation=%s) was answered %d, and is not in the log", e.Task, id, e.HTTP)
			missing++
		}
	}
	return webhooks, missing
}

// place is where an event stands: its commit, and which of that commit's it is.
type place struct {
	sequence uint64
	index    int
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
