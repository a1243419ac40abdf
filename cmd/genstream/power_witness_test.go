//go:build power

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// witness keeps what the program told those outside, where no cut reaches it.
type witness struct {
	mu      sync.Mutex
	acked   map[events.ID]uint64       // creates that were answered, and the position told
	changed map[events.ID]uint64       // generations that /v1/changes listed, and the page's next if it ended there
	shown   map[place][32]byte         // digests of the events that /v1/events sent
	before  map[uint64]string          // digests of the commits that were there after the cut before
	lost    map[string]map[string]bool // what was lost, in words, by what was told
}

func newWitness() *witness {
	return &witness{
		acked: map[events.ID]uint64{}, changed: map[events.ID]uint64{}, shown: map[place][32]byte{}, before: map[uint64]string{},
		lost: map[string]map[string]bool{},
	}
}

// lose notes a loss once, however many cuts find it.
func (w *witness) lose(kind, format string, args ...any) {
	if w.lost[kind] == nil {
		w.lost[kind] = map[string]bool{}
	}
	w.lost[kind][fmt.Sprintf(format, args...)] = true
}

// watchChanges reads /v1/changes as a client does who never wants to miss one.
func (w *witness) watchChanges(ctx context.Context, c *client) {
	for after := uint64(0); ctx.Err() == nil; {
		var page struct {
			Generations []struct{ ID events.ID } `json:"generations"`
			Next        uint64                   `json:"next"`
		}
		if err := c.get(ctx, fmt.Sprintf("/v1/changes?after=%d&wait=1s&limit=200", after), &page); err != nil {
			rest(ctx, 20*time.Millisecond)
			continue
		}
		w.mu.Lock()
		for i, g := range page.Generations {
			w.changed[g.ID] = 0
			if i == len(page.Generations)-1 {
				w.changed[g.ID] = page.Next
			}
		}
		w.mu.Unlock()
		after = page.Next
	}
}

// watchEvents reads /v1/events, and begins again behind the last whole commit.
func (w *witness) watchEvents(ctx context.Context, c *client) {
	last := "0"
	for ; ctx.Err() == nil; rest(ctx, 20*time.Millisecond) {
		res, err := c.do(ctx, "GET", "/v1/events?after="+last, nil, "Accept", "text/event-stream")
		if err != nil {
			continue
		}
		at := place{}
		_ = readEvents(res.Body, &last, func(e logged) error {
			if at.index++; e.Sequence != at.sequence {
				at = place{sequence: e.Sequence}
			}
			w.mu.Lock()
			w.shown[at] = sha256.Sum256(e.raw)
			w.mu.Unlock()
			return nil
		})
		res.Body.Close()
	}
}

// compare holds what was told against what is there. It returns how many
// webhooks were answered 2xx, and how many create calls the provider saw.
func (w *witness) compare(f facts, journal []sim.Entry) (webhooks, calls int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, at := range w.acked {
		if f.requested[at] != id {
			w.lose("create", "generation=%s was told to be at %d, there is %q", id, at, f.requested[at])
		}
	}
	for id, next := range w.changed {
		if at := f.completed[id]; at == 0 || next != 0 && at != next {
			w.lose("change", "generation=%s was listed as completed at %d, it is at %d", id, next, at)
		}
	}
	for at, digest := range w.shown {
		if f.events[at] != digest {
			w.lose("event", "the event at %d/%d is not the one that was sent", at.sequence, at.index)
		}
	}
	for at, digest := range w.before {
		if f.digest[at] != digest {
			w.lose("commit", "the commit at %d is not the one that was on disk after the cut before", at)
		}
	}
	w.before = f.digest
	for _, e := range journal {
		switch {
		case e.Kind == sim.KindWebhook && e.HTTP/100 == 2:
			webhooks++
			if id := f.claims[e.Task]; !f.delivered[e.Task] && f.completed[id] == 0 {
				w.lose("webhook", "the webhook of task %s (generation=%s, copy %d, try %d) was answered %d at %s", e.Task, id, e.Copy, e.Try, e.HTTP, e.At)
			}
		case e.Kind == sim.KindCreate:
			calls++
			for _, task := range e.Tasks {
				if f.claims[task] == "" {
					w.lose("claim", "create call %d asked for task %s, which no claim names", e.Call, task)
				}
			}
		case e.Kind == sim.KindFile:
			if !f.delivered[e.Task] {
				w.lose("fetch", "the file of task %s was asked for, no delivery names it", e.Task)
			}
		}
	}
	return webhooks, calls
}
