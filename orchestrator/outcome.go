package orchestrator

import (
	"errors"
	"slices"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// outcome is what came of one piece of I/O. apply is as pure as Next: it changes
// the memory and says which events follow. It may be called again after a
// conflict, with the fold as it is by then.
type outcome interface {
	apply(o *Open, now time.Time) []events.Event
}

// called is the end of a create call.
type called struct {
	claim     events.Dispatching
	answer    provider.Answer
	err       *provider.Error   // nil: answered task by task
	delivered *events.Delivered // results that came with the answer
}

func (c called) apply(o *Open, now time.Time) []events.Event {
	o.Calling = false
	if o.Claim == nil || o.Claim.Attempt != c.claim.Attempt {
		// Deliveries have proved every task to be taken: only inline results are news.
		return arrived(o, c.delivered)
	}
	if c.err != nil {
		return c.failed(o, now)
	}
	var refused []events.Event
	d := events.Dispatched{Attempt: c.claim.Attempt}
	for _, t := range c.claim.Tasks {
		switch {
		case settledBy(o.Slots[t.Slot]):
		case slices.Contains(c.answer.Accepted, t.ID) || hasResult(c.answer.Results, t.ID):
			d.Accepted = append(d.Accepted, t.Slot)
		default:
			if no, ok := c.answer.Refused[t.ID]; ok {
				refused = append(refused, events.OutputFailed{Slot: t.Slot, Error: no.Error})
			} else if no, ok := c.answer.Declined[t.ID]; ok {
				d.Declined = append(d.Declined, declined(t.Slot, no.Error, no.After, o.Attempts, now))
			}
			// Nothing said: the slot stays claimed, and is asked about.
		}
	}
	return slices.Concat([]events.Event{d}, refused, arrived(o, c.delivered))
}

// failed is the end of a call that was not answered task by task.
func (c called) failed(o *Open, now time.Time) []events.Event {
	if c.err.Kind == provider.Ambiguous {
		o.Believe = now.Add(2 * settling)
		if o.Claim.Until.Before(o.Believe) {
			o.Believe = o.Claim.Until
		}
		o.Polls = 0
		return nil
	}
	var refused []events.Event
	d := events.Dispatched{Attempt: c.claim.Attempt}
	for _, t := range c.claim.Tasks {
		switch {
		case settledBy(o.Slots[t.Slot]):
		case c.err.Kind == provider.Refused:
			refused = append(refused, events.OutputFailed{Slot: t.Slot, Error: c.err.Err})
		default:
			d.Declined = append(d.Declined, declined(t.Slot, c.err.Err, c.err.After, o.Attempts, now))
		}
	}
	return append([]events.Event{d}, refused...)
}

// settledBy says whether a delivery knew better than the answer to the call can:
// a picture that was delivered is kept, whatever the call is told.
func settledBy(s events.Slot) bool { return s.Ended || s.Accepted || s.Result != nil }

// arrived is the event of a delivery, if it is news. A new result is a new
// download: what is remembered of the one before does not count against it.
func arrived(o *Open, d *events.Delivered) []events.Event {
	if d == nil || !news(o, *d) {
		return nil
	}
	for _, r := range d.Results {
		i, _, ok := o.SlotOf(r.Task)
		if ok && r.Error == nil && o.Slots[i].Result != nil && r.URL != o.Slots[i].Result.URL {
			o.Fetches[i] = Fetching{Busy: o.Fetches[i].Busy}
		}
	}
	return []events.Event{*d}
}

// declined puts a slot off: as long as the provider asks for, or else twice as
// long after each claim, from 1 s to 30 s.
func declined(slot int, e events.Error, after time.Duration, attempts int, now time.Time) events.Declined {
	if after <= 0 {
		after = min(time.Second<<min(max(attempts-1, 0), 5), 30*time.Second)
	}
	return events.Declined{Slot: slot, Again: now.Add(min(after, time.Hour)), Error: e}
}

// polled is the answer to a question about tasks.
type polled struct {
	tasks     []string
	asked     time.Time // what the provider said is no younger than this
	last      bool
	answer    provider.Answer
	err       error
	delivered *events.Delivered
}

func (p polled) apply(o *Open, now time.Time) []events.Event {
	o.Polling, o.PolledAt = false, now
	o.Polls++
	for i, s := range o.Slots {
		f := &o.Fetches[i]
		if f.Gone && !f.Early && s.Result != nil && p.speaksOf(s.Result.Task) {
			f.Asked = true
		}
		f.Early = false
	}
	if p.err != nil {
		if p.last { // a picture may be waiting there: asked again while there is time
			o.LastAgain = now.Add(lastGap)
			if o.rescue() { // there is plenty
				o.LastAgain = now.Add(min(lastGap<<min(o.Polls-1, 4), 30*time.Second))
			}
		}
		return nil
	}
	o.LastPoll = o.LastPoll || p.last
	return append(arrived(o, p.delivered), p.claimed(o, now)...)
}

// speaksOf says whether the answer has a word about the task. Nothing is concluded
// from silence: what it leaves out is asked about again.
func (p polled) speaksOf(task string) bool {
	return p.err == nil && (hasResult(p.answer.Results, task) || slices.Contains(p.answer.Accepted, task) || slices.Contains(p.answer.Unknown, task))
}

// claimed answers a claim whose own answer is missing, and takes back what the
// provider turns out not to have.
func (p polled) claimed(o *Open, now time.Time) []events.Event {
	d := events.Dispatched{Attempt: o.Attempts}
	open := false
	for i, s := range o.Slots {
		if s.Ended || !s.Claimed || s.Result != nil || s.Failure != nil {
			continue
		}
		known := slices.Contains(p.answer.Accepted, s.Task) || hasResult(p.answer.Results, s.Task)
		// What was asked before the last call had ended says nothing about that call.
		unknown := slices.Contains(p.answer.Unknown, s.Task) && !p.asked.Before(o.Definite())
		switch {
		case known && !s.Accepted:
			d.Accepted = append(d.Accepted, i)
		case unknown && s.Accepted:
			o.Lost[i] = true // it was taken: buying it again would be wrong, so we go on asking
		case unknown:
			d.Declined = append(d.Declined, events.Declined{Slot: i, Again: now, Error: events.Error{
				Code: "unknown_task", Message: "the provider does not know the task: the call did not reach it", Class: events.Connection,
			}})
		case !s.Accepted && !known:
			open = true
		}
	}
	if o.Calling || len(d.Accepted)+len(d.Declined) == 0 || open && o.Claim != nil {
		return nil
	}
	return []events.Event{d}
}

// news says whether a delivery tells the fold anything: a first result, or
// another place to have the file from.
func news(o *Open, d events.Delivered) bool {
	for _, r := range d.Results {
		i, try, ok := o.SlotOf(r.Task)
		if !ok || o.Slots[i].Ended {
			continue
		}
		s := o.Slots[i]
		switch {
		case r.Error != nil:
			if s.Result == nil && s.Failure == nil && try == s.Try {
				return true
			}
		case s.Result == nil:
			return true
		case s.Result.File == nil && r.URL != s.Result.URL:
			return true
		}
	}
	return false
}

func hasResult(results []provider.Result, task string) bool {
	return slices.ContainsFunc(results, func(r provider.Result) bool { return r.Task == task })
}

// fetched is the end of one download.
type fetched struct {
	slot   int
	result events.Result
	file   events.File
	err    error
}

func (f fetched) apply(o *Open, now time.Time) []events.Event {
	m := &o.Fetches[f.slot]
	m.Busy = false
	m.Tries++
	s := o.Slots[f.slot]
	if s.Ended {
		return nil // the file, if any, is an orphan that gc removes
	}
	if f.err == nil {
		return []events.Event{events.OutputSucceeded{Slot: f.slot, Artifact: Artifact(o.ID, f.slot, f.result, f.file, now)}}
	}
	if s.Result == nil || s.Result.URL != f.result.URL {
		*m = Fetching{} // there is a newer result by now
		return nil
	}
	var fe *blob.FetchError
	if !errors.As(f.err, &fe) { // the bucket's fault, or the process ends: the output is as good as before
		m.Again = now.Add(wait(m.Tries))
		return nil
	}
	code, message := fe.Code, fe.Error()
	if code == "" {
		code = events.CodeFetchFail
	}
	m.Error = &events.Error{Code: code, Message: events.Cut(message, events.MaxNote), Class: events.Connection}
	switch fe.Code {
	case "":
		m.Again = now.Add(wait(m.Tries))
	case events.CodeFetchGone:
		if !m.Gone { // what was asked, and what broke, before now says nothing about it
			m.Gone, m.Early, m.Asked, m.Tries = true, o.Polling, false, 1
		}
		m.Again = now.Add(wait(m.Tries))
	default: // size, type, address: it will not get better
		return []events.Event{events.OutputFailed{Slot: f.slot, Error: *m.Error}}
	}
	return nil
}

// wait is the pause before try number tries+1 of a download: 0.5 s, doubled each
// time, at most 15 s. URLs expire within minutes, so it stays short.
func wait(tries int) time.Duration {
	return min(500*time.Millisecond<<min(max(tries-1, 0), 5), 15*time.Second)
}
