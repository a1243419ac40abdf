package orchestrator

import (
	"context"
	"fmt"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/orchestrator/delivery"
	"github.com/genstream/genstream/orchestrator/provider"
)

const (
	callTimeout = 30 * time.Second // of a create call; what it left open is asked about
	pollTimeout = 20 * time.Second
	lastTimeout = 5 * time.Second // of the question at the deadline
)

// start begins the steps that need I/O, and notes when to look again.
func (o *Orchestrator) start(e *entry, steps []Step) {
	sequence := e.head.Sequence // what they rest on: on disk before anybody is asked for anything
	for _, s := range steps {
		switch s := s.(type) {
		case Poll:
			e.open.Polling = true
			g, timeout := e.open.Generation, pollTimeout // e itself is its owner's
			if left := time.Until(g.Deadline); s.Last && !e.open.rescue() || left < lastTimeout {
				timeout = lastTimeout
			} else {
				timeout = min(timeout, left) // or there would be no time for the question at the deadline
			}
			o.spawn(e, func(ctx context.Context) outcome { return o.poll(ctx, g, sequence, s, timeout) })
		case Fetch:
			e.open.Fetches[s.Slot].Busy = true
			o.spawn(e, func(ctx context.Context) outcome { return o.fetch(ctx, e.id, sequence, s) })
		case Wait:
			o.table.wakeAt(e, s.Until)
		}
	}
}

// spawn does I/O for e, and has its outcome decided on. Only the owner of e
// calls it; run must not touch e.
func (o *Orchestrator) spawn(e *entry, run func(context.Context) outcome) {
	e.mu.Lock()
	e.running++
	e.mu.Unlock()
	o.goes(func() {
		out := run(o.background)
		e.mu.Lock()
		e.running--
		e.inbox = append(e.inbox, out)
		held := o.cfg.Alone && holds(out)
		if held {
			e.until = time.Now().Add(hold)
		}
		active, until := e.active, e.until
		e.mu.Unlock()
		switch {
		case !held:
			o.activate(e)
		case !active: // else its owner sees to it when it has done with e
			o.table.wakeBy(e, until)
		}
	})
}

// hold is how long a provider's word that it has taken all tasks waits for a commit
// to go along with: a delivery, mostly. Nothing rests on it, and a crash meanwhile
// costs the next life a question about each generation whose call was answered in
// so short a time. With several orchestrators it does not wait: they are to know.
const hold = 250 * time.Millisecond

// holds says whether an outcome is that word and nothing else.
func holds(out outcome) bool {
	c, ok := out.(called)
	return ok && c.err == nil && c.delivered == nil && len(c.answer.Accepted) == len(c.claim.Tasks) &&
		len(c.answer.Refused) == 0 && len(c.answer.Declined) == 0
}

// call makes the create call that the claim promised. The claim is the last
// commit of e: it is on disk before anything is sent.
func (o *Orchestrator) call(e *entry, claim events.Dispatching) {
	e.open.Calling = true
	l := o.lanes[e.open.Provider]
	sequence := e.head.Sequence
	call := provider.Call{
		Generation: e.id, Model: e.open.Model, Input: e.open.Input, Tasks: claim.Tasks, Deadline: e.open.Deadline,
	}
	if o.cfg.Webhook != nil {
		call.Webhook = o.cfg.Webhook(l.name, e.id)
	}
	o.spawn(e, func(ctx context.Context) outcome {
		out, sent := o.create(ctx, l, sequence, call)
		out.claim = claim
		if sent {
			l.leave(out.err)
		} else { // it says nothing of the provider
			l.giveBack()
		}
		return out
	})
}

// create makes one create call, and says whether it came to that.
func (o *Orchestrator) create(ctx context.Context, l *lane, sequence uint64, call provider.Call) (out called, sent bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := o.ledger.Await(ctx, sequence); err != nil {
		out.err = &provider.Error{Kind: provider.Unreachable, Cause: err, Err: events.Error{
			Code: "log", Message: "the claim is not known to be on disk", Class: events.Connection,
		}}
		return out, false
	}
	let, unsent := o.carry(ctx, &call)
	defer let()
	if unsent != nil {
		out.err = unsent
		o.log.Warn("input not sent", "generation", call.Generation, "error", unsent, "fate", fate(unsent))
		return out, false
	}
	started := time.Now()
	err := fault.Around("call", func() (err error) {
		out.answer, err = l.Create(ctx, call)
		return err
	})
	if err != nil {
		out.err = provider.AsError(err)
		o.Metrics.called(l.name, "create", fate(out.err), started)
		o.log.Info("create call failed", "generation", call.Generation, "provider", l.name, "error", out.err, "fate", fate(out.err))
		return out, true
	}
	o.Metrics.called(l.name, "create", "answered", started)
	own := func(task string) (int, bool) { return delivery.Slot(call.Generation, task) }
	out.delivered, err = o.delivered(ctx, call.Generation, own, l.name, events.FromCreate, out.answer)
	if err != nil { // the answer is lost, the results are not: they are asked for
		o.log.Warn("results of create call not kept", "generation", call.Generation, "error", err)
	}
	return out, true
}

// poll asks about tasks of g, which is the fold as it was when that was decided.
func (o *Orchestrator) poll(ctx context.Context, g events.Generation, sequence uint64, s Poll, timeout time.Duration) outcome {
	id, name := g.ID, g.Provider
	l := o.lanes[name]
	out := polled{tasks: s.Tasks, asked: time.Now(), last: s.Last}
	if l == nil {
		out.err = fmt.Errorf("provider %s is not configured", name)
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if out.err = o.ledger.Await(ctx, sequence); out.err != nil {
		return out
	}
	started := time.Now()
	out.err = fault.Around("look", func() (err error) {
		out.answer, err = l.Look(ctx, s.Tasks)
		return err
	})
	if out.err != nil {
		o.Metrics.called(name, "look", fate(provider.AsError(out.err)), started)
		o.log.Info("question failed", "generation", id, "provider", name, "error", out.err)
		return out
	}
	o.Metrics.called(name, "look", "answered", started)
	slots := func(task string) (int, bool) {
		slot, _, ok := g.SlotOf(task)
		return slot, ok
	}
	if out.delivered, out.err = o.delivered(ctx, id, slots, name, events.FromPoll, out.answer); out.err != nil {
		o.log.Warn("results of question not kept", "generation", id, "error", out.err)
	}
	return out
}

// delivered is the event for the results that an answer holds, nil if none. It
// closes the answer's Reply, whose place somebody else may be waiting for: the log
// may take its time with the event.
func (o *Orchestrator) delivered(ctx context.Context, id events.ID, slot delivery.SlotOf, name, source string, a provider.Answer) (*events.Delivered, error) {
	defer a.Reply.Close() // temporary files, without a name already
	if len(a.Results) == 0 {
		return nil, nil
	}
	d, err := delivery.Of(ctx, o.cfg.Bucket, id, slot, source, a.Reply, a.Results)
	o.Metrics.delivered(name, source, err)
	if err != nil {
		return nil, err
	}
	return &d, nil
}

func (o *Orchestrator) fetch(ctx context.Context, id events.ID, sequence uint64, s Fetch) outcome {
	out := fetched{slot: s.Slot, result: s.Result}
	select {
	case o.downloads <- struct{}{}:
		defer func() { <-o.downloads }()
	case <-ctx.Done():
		out.err = ctx.Err()
		return out
	}
	if out.err = o.ledger.Await(ctx, sequence); out.err != nil {
		return out
	}
	out.err = fault.Around("fetch", func() (err error) {
		out.file, err = o.fetcher.Fetch(ctx, s.Result.URL, id, s.Slot)
		return err
	})
	o.Metrics.fetched(out.err, out.file.Size)
	if out.err != nil {
		o.log.Info("download failed", "generation", id, "slot", s.Slot, "error", out.err)
	}
	return out
}

// announce tells whoever listens that the generation is completed. It is at most
// once; GET /v1/changes is the lossless way. The completing commit is on disk.
func (o *Orchestrator) announce(e *entry) {
	err := fault.Around("announce", func() error { return o.ledger.Announce(o.background, e.id, e.head.Sequence) })
	if err != nil {
		o.log.Warn("completion not announced", "generation", e.id, "error", err)
	}
}

// fate is an error's kind as a metric label.
func fate(e *provider.Error) string {
	switch e.Kind {
	case provider.Refused:
		return "refused"
	case provider.Busy:
		return "busy"
	case provider.Account:
		return "account"
	case provider.Unreachable:
		return "unreachable"
	}
	return "ambiguous"
}
