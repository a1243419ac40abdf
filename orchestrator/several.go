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
	o.table.wakeAt(e, o.second(e, time.Now()))
	o.goes(func() {
		o.workers <- struct{}{}
		defer func() { <-o.workers }()
		ctx, cancel := context.WithTimeout(o.background, callTimeout)
		defer cancel()
		began := time.Now()
		err := o.ledger.Check(ctx, e.id, at)
		o.heard(began, err)
		if err != nil {
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

// second is when a look that was asked for is asked for again: after a while, but
// not after the deadline, when there is still something to ask for. From then on it
// is soon: a generation completes within 30 s of its deadline.
func (o *Orchestrator) second(e *entry, now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	again := now.Add(stream.AckWait)
	switch deadline := e.shown.Deadline; {
	case !e.shown.Requested() || deadline.After(again):
		return again
	case deadline.After(now):
		return deadline
	}
	return now.Add(Grace / 2)
}

// watch is a decision about a generation that another process acts on: only when
// to look whether it did. One that was open when this process started may be in
// nobody's hands: a look at it is asked for at once, under the same name by all who
// start within the same ten seconds.
func (o *Orchestrator) watch(e *entry, now time.Time) {
	wake := o.second(e, now)
	steps := Next(e.open, now)
	if w, ok := onlyWait(steps); ok {
		wake = w.Until
	} else if e.head.Sequence <= o.scanned && !e.watched {
		wake = o.recovered.Truncate(10 * time.Second)
	}
	e.watched = true
	o.table.wakeAt(e, wake)
}

func onlyWait(steps []Step) (w Wait, ok bool) {
	if len(steps) == 1 {
		w, ok = steps[0].(Wait)
	}
	return w, ok
}
