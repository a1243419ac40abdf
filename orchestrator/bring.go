package orchestrator

import (
	"context"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
)

// Bring has a delivery that came by webhook decided on at once, where the ingress
// and the orchestrator are one process: the delivery and all that follows from it
// without any I/O are one commit then, in place of two. It returns the sequence of
// a commit by which the log says what the delivery says; nothing is answered
// before that is on disk.
//
// taken is false if the generation is not open here, or ctx ended first: the
// ingress appends the delivery itself, or has it sent again. It may be committed
// all the same, and is recognised by its digest then.
func (o *Orchestrator) Bring(ctx context.Context, id events.ID, d events.Delivered) (sequence uint64, taken bool) {
	if fault.Hit("bring.before") != nil {
		return 0, false
	}
	b, ok := o.bring(id, d)
	if !ok {
		return 0, false
	}
	select {
	case sequence = <-b.said:
		if sequence > 0 && fault.Hit("bring.after") != nil {
			return 0, false
		}
		return sequence, sequence > 0
	case <-ctx.Done():
		return 0, false
	}
}

// bring is Bring until there is something to wait for.
func (o *Orchestrator) bring(id events.ID, d events.Delivered) (b brought, ok bool) {
	if !o.ready.Load() {
		return b, false
	}
	e := o.table.find(id)
	if e == nil {
		return b, false
	}
	b = brought{delivered: d, said: make(chan uint64, 1)}
	e.mu.Lock()
	if e.gone {
		e.mu.Unlock()
		return b, false
	}
	e.inbox = append(e.inbox, b)
	e.mu.Unlock()
	o.activate(e)
	return b, true
}

// brought is a delivery that somebody waits to see in the log.
type brought struct {
	delivered events.Delivered
	said      chan uint64 // capacity 1: the sequence by which the log says it, 0 = it is not decided on here
}

// apply records the delivery, whatever it is worth: what was answered 2xx is in the log.
func (b brought) apply(o *Open, _ time.Time) []events.Event {
	arrived(o, &b.delivered) // for the memory
	return []events.Event{b.delivered}
}

// tell says it once: after an append that failed, outcomes are decided on again.
func (b brought) tell(sequence uint64) {
	select {
	case b.said <- sequence:
	default:
	}
}

// tellAll tells those who brought something that the log says it, as of a sequence; 0:
// it is not decided on here.
func tellAll(outs []outcome, sequence uint64) {
	for _, out := range outs {
		if b, ok := out.(brought); ok {
			b.tell(sequence)
		}
	}
}

// unseen are the outcomes without deliveries that the log has: those who brought
// them are told. Of two that are the same, one is left.
func (e *entry) unseen(outs []outcome) []outcome {
	var left []outcome
	fresh := map[string]bool{}
	for _, out := range outs {
		b, ok := out.(brought)
		switch {
		case !ok:
		case e.head.HasSeen(b.delivered.Digest):
			b.tell(e.head.Sequence)
			continue
		case fresh[b.delivered.Digest]:
			b.tell(0) // the ingress finds it in the log, or appends it itself
			continue
		default:
			fresh[b.delivered.Digest] = true
		}
		left = append(left, out)
	}
	return left
}
