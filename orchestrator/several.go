package orchestrator

import (
	"context"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// When several orchestrators run, each knows every open generation, and for each
// event and each due time one of them acts: the one that the log's shared
// consumer, or the queue CHECKS, gave it to. Should that one die, the others look
// again after a while.

// follow keeps the table in step with what other processes append.
func (o *Orchestrator) follow(ctx context.Context) error {
	return o.cfg.Log.Follow(ctx, o.scanned, func(batch []stream.Entry) error {
		for _, se := range batch {
			if e := o.see(se); e != nil {
				o.learn(e)
			}
		}
		o.position.Store(batch[len(batch)-1].Sequence)
		return nil
	})
}

// due is called when an entry's time has come.
func (o *Orchestrator) due(e *entry, at time.Time) {
	e.mu.Lock()
	ours := o.cfg.Alone || len(e.inbox) > 0 // what came of our own I/O is for nobody else
	e.mu.Unlock()
	if ours {
		o.activate(e)
		return
	}
	// In case that whoever is given it dies: look again. What it does meanwhile
	// sets another time.
	o.table.wakeAt(e, time.Now().Add(o.second(e)))
	o.goes(func() {
		o.workers <- struct{}{}
		defer func() { <-o.workers }()
		ctx, cancel := context.WithTimeout(o.background, callTimeout)
		defer cancel()
		if err := o.ledger.Check(ctx, e.id, at); err != nil {
			o.activate(e) // the queue does not take it: better twice than not at all
		}
	})
}

// checked is called with a look that was given to this process.
func (o *Orchestrator) checked(id events.ID) {
	if e := o.table.find(id); e != nil {
		o.activate(e)
	}
}

// second is how long after a look was asked for it is asked for again. After the
// deadline it is short: a generation completes within 30 s of it.
func (o *Orchestrator) second(e *entry) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shown.Requested() && time.Now().After(e.shown.Deadline) {
		return Grace / 2
	}
	return stream.AckWait
}

// watch is a decision about a generation that another process acts on: only when
// to look whether it did.
func (o *Orchestrator) watch(e *entry, now time.Time) {
	wake := now.Add(o.second(e))
	steps := Next(e.open, now)
	if len(steps) == 1 {
		if w, ok := steps[0].(Wait); ok {
			wake = w.Until
		}
	}
	o.table.wakeAt(e, wake)
}
