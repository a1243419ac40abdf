package orchestrator

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// mail is what was new in an entry's mailbox.
type mail struct {
	arrived []stream.Entry
	inbox   []outcome
	act     bool
}

// collect empties the mailbox. If nothing is new it gives the ownership up
// instead, acknowledges what is done, and reports false.
func (o *Orchestrator) collect(e *entry) (m mail, ok bool) {
	e.mu.Lock()
	if o.cfg.Alone && e.foreign() {
		e.dirty, e.act = true, true
	}
	if e.dirty && !e.gone {
		m = mail{arrived: e.arrived, act: e.act}
		e.arrived, e.dirty, e.act = nil, false, false
		if len(e.inbox) > 1 || !time.Now().Before(e.until) { // else what is in it waits for company
			m.inbox, e.inbox, e.until = e.inbox, nil, time.Time{}
		}
		if e.most > 0 && len(m.inbox) > e.most {
			m.inbox, e.inbox, e.dirty = m.inbox[:e.most:e.most], slices.Clone(m.inbox[e.most:]), true
		}
		e.mu.Unlock()
		return m, true
	}
	e.active, e.dirty = false, false
	var works []stream.Work
	until := e.until
	var inbox []outcome
	if e.gone {
		inbox, e.inbox = e.inbox, nil
	}
	if e.running+len(e.inbox) == 0 || e.gone {
		// What these commits brought is done, or waits in the open table.
		works, e.works = e.works, nil
	}
	placed := e.placed
	e.placed = false
	e.mu.Unlock()
	for _, w := range works {
		w.Ack()
	}
	if placed { // its turn came, and there was nothing to dispatch any more
		o.leave(e)
	}
	tellAll(inbox, 0)
	if !until.IsZero() {
		o.table.wakeBy(e, until)
	}
	return m, false
}

// foreign lets go of what has arrived and is folded, and says whether anything is
// left. The owner calls it, with the mutex held.
func (e *entry) foreign() bool {
	e.arrived = slices.DeleteFunc(e.arrived, func(se stream.Entry) bool { return se.Sequence <= e.head.Sequence })
	return len(e.arrived) > 0
}

// advance decides and acts until nothing is new. The caller owns e.
func (o *Orchestrator) advance(e *entry) {
	for {
		m, ok := o.collect(e)
		if !ok {
			return
		}
		err := o.round(e, m)
		switch {
		case err == nil:
			e.most = 0
			continue
		case errors.Is(err, stream.ErrConflict):
			e.mu.Lock()
			e.dirty, e.act = true, true
			e.mu.Unlock()
		case errors.Is(err, events.ErrTooLarge) && len(m.inbox) > 1:
			e.most = len(m.inbox) / 2 // each by itself is within the limits (package events has the test)
			e.mu.Lock()
			e.dirty, e.act = true, true
			e.mu.Unlock()
		case errors.Is(err, events.ErrMalformed):
			o.log.Error("not a generation", "generation", e.id, "error", err)
			o.retire(e)
		case o.background.Err() != nil:
			o.retire(e) // the process ends; the next life finds it in the log
		default:
			o.log.Warn("generation put off", "generation", e.id, "error", err)
			o.table.wakeAt(e, time.Now().Add(time.Second))
		}
		if err != nil { // decide on the outcomes again, on what the log says by then
			e.stale = true
			e.mu.Lock()
			e.inbox = append(m.inbox, e.inbox...)
			e.mu.Unlock()
		}
	}
}

// round is one decision: what came of I/O, and what follows from it without any,
// become one commit; then the steps that need I/O are started. If the append
// fails nothing has happened.
func (o *Orchestrator) round(e *entry, m mail) error {
	if err := o.catchUp(e, m.arrived); err != nil {
		return err
	}
	if !e.open.Requested() || e.open.Done() {
		tellAll(m.inbox, 0)
		o.retire(e)
		return nil
	}
	inbox := e.unseen(m.inbox)
	now := events.Now()
	if back := time.Unix(0, o.back.Load()); back.After(e.open.Since) {
		e.open.Since = back // nobody could act before
	}
	if !m.act && len(inbox) == 0 {
		e.show()
		o.watch(e, now)
		return nil
	}
	memory := e.open.Memory
	evs, steps := decide(&e.open, inbox, now)
	steps, claim := o.claim(e, steps, now)
	if claim != nil {
		evs = append(evs, *claim)
	}
	if len(evs) > 0 {
		if err := o.commit(e, now, evs); err != nil {
			e.open.Memory = memory // the outcomes are decided on again
			if claim != nil {      // the place was not used after all
				e.mu.Lock()
				e.placed = true
				e.mu.Unlock()
			}
			return err
		}
	}
	tellAll(inbox, e.head.Sequence)
	e.show()
	if e.open.Done() {
		o.announce(e)
		o.retire(e)
		return nil
	}
	if claim != nil {
		o.call(e, *claim)
	}
	o.start(e, steps)
	return nil
}

// show publishes the fold to readers, who wait until it is on disk.
func (e *entry) show() {
	e.mu.Lock()
	e.shown, e.shownAt = e.open.Generation, e.head.Sequence
	e.mu.Unlock()
}

// catchUp folds what arrived, and loads what is missing.
func (o *Orchestrator) catchUp(e *entry, arrived []stream.Entry) error {
	for _, se := range arrived {
		if se.Sequence <= e.head.Sequence {
			continue // known
		}
		if se.Version != e.head.Version+1 {
			e.stale = true // a gap, or what none of us has written: the load below tells
			continue
		}
		c, err := se.Decode()
		if err != nil {
			e.stale = true
			break
		}
		e.fold(c, se.Head())
	}
	if e.stale || !e.open.Requested() {
		if err := o.load(e); err != nil {
			return err
		}
	}
	if c := e.open.Claim; c != nil && c.By != o.life && o.cfg.Alone && e.open.Believe.IsZero() {
		// Whoever made that call is dead. What he sent may still be on its way for a moment.
		e.open.Believe = o.recovered.Add(settling)
	}
	return nil
}

// logPatience is how long the log takes for an answer at most, while it is there:
// after so long package stream asks once more. A log that is only slow must not put
// off the end of a generation again and again.
const logPatience = 5 * time.Second

// heard notes how long the log took for an answer. One that was away let nobody act,
// so that a deadline which passed meanwhile is followed by the grace, as it is for a
// process that comes late.
func (o *Orchestrator) heard(began time.Time, err error) {
	if now := time.Now(); errors.Is(err, stream.ErrUnavailable) || now.Sub(began) > logPatience {
		o.back.Store(now.UnixNano())
	}
}

// settling is how long a request that was sent may take to reach the provider
// after its sender is gone, before "unknown task" is believed.
const settling = 3 * time.Second

// load replaces the fold by what the log says.
func (o *Orchestrator) load(e *entry) error {
	began := time.Now()
	g, head, err := o.ledger.Load(o.background, e.id)
	o.heard(began, err)
	if errors.Is(err, events.ErrMalformed) || err == nil && !g.Requested() {
		g, head, err = o.salvage(e)
	}
	if errors.Is(err, stream.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	before := e.open.Generation
	e.open.Generation, e.head, e.stale = g, head, false
	if g.Attempts != before.Attempts || e.open.PolledAt.IsZero() {
		e.open.Polls, e.open.PolledAt, e.open.Believe = 0, g.At, time.Time{}
	}
	if g.Claim == nil && g.At.After(e.open.Believe) {
		e.open.Believe = g.At // its answer is no younger
	}
	for i, s := range g.Slots { // a new result is a new download
		if s.Result != nil && (i >= len(before.Slots) || before.Slots[i].Result == nil || before.Slots[i].Result.URL != s.Result.URL) {
			e.open.Fetches[i] = Fetching{Busy: e.open.Fetches[i].Busy}
		}
	}
	return nil
}

// salvage parks what cannot be read, and goes on with the rest: a generation that
// was promised completes, by its deadline at the latest.
func (o *Orchestrator) salvage(e *entry) (events.Generation, stream.Head, error) {
	g, head, bad, err := o.cfg.Log.Salvage(o.background, e.id)
	if err != nil {
		return g, head, err
	}
	for _, se := range bad {
		_, cause := se.Decode()
		if cause == nil {
			cause = fmt.Errorf("%w: version %d is not the next one", events.ErrMalformed, se.Version)
		}
		if se.Sequence > e.parked { // it stays in the log, and is met at each load
			o.park(se, cause)
			e.parked = se.Sequence
		}
	}
	if !g.Requested() {
		return g, head, fmt.Errorf("salvage generation=%s: %w: nothing was promised", e.id, events.ErrMalformed)
	}
	return g, head, nil
}

// decide applies the outcomes to the memory and turns them, and everything that
// follows without I/O, into the events of one commit. The steps are what is to
// be done once that commit is in the log.
func decide(open *Open, inbox []outcome, now time.Time) ([]events.Event, []Step) {
	var evs []events.Event
	after := *open
	after.At = now
	add := func(more []events.Event) {
		evs = append(evs, more...)
		for _, ev := range more {
			after.Generation = events.Apply(after.Generation, ev)
		}
	}
	for _, out := range inbox {
		add(out.apply(&after, now))
	}
	for {
		steps := next(&after, now)
		if len(steps) == 1 {
			if a, ok := steps[0].(Append); ok {
				add(a.Events)
				continue
			}
		}
		open.Memory = after.Memory
		return evs, steps
	}
}

// commit appends evs and folds them in.
func (o *Orchestrator) commit(e *entry, now time.Time, evs []events.Event) error {
	began := time.Now()
	c, head, err := o.ledger.Append(o.background, e.id, e.head, now, evs...)
	o.heard(began, err)
	if err != nil {
		return err
	}
	o.committed(c)
	e.fold(c, head)
	return nil
}

// claim turns a Dispatch into the claim that precedes the call, if the provider
// can be called now; if not, the generation waits in line.
func (o *Orchestrator) claim(e *entry, steps []Step, now time.Time) ([]Step, *events.Dispatching) {
	for i, s := range steps {
		d, ok := s.(Dispatch)
		if !ok {
			continue
		}
		rest := append(steps[:i:i], steps[i+1:]...)
		l := o.lanes[e.open.Provider]
		if l == nil { // a provider that is not configured any more: the deadline decides
			return rest, nil
		}
		e.mu.Lock()
		placed := e.placed
		e.placed = false
		lined := e.lined
		e.lined = lined || !placed
		e.mu.Unlock()
		switch {
		case placed:
		case lined:
			return rest, nil
		case l.enter():
			e.mu.Lock()
			e.lined = false
			e.mu.Unlock()
		default:
			l.join(e)
			return rest, nil
		}
		return rest, &events.Dispatching{
			Attempt: e.open.Attempts + 1, By: o.life,
			Until: now.Add(callTimeout + 5*time.Second), Tasks: d.Tasks,
		}
	}
	return steps, nil
}

// leave gives back a place that was not used.
func (o *Orchestrator) leave(e *entry) {
	if l := o.lanes[e.open.Provider]; l != nil {
		l.giveBack()
	}
}
