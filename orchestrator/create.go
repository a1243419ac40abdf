package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/stream"
)

// Submission is a request for a generation, however it came.
type Submission struct {
	Body      []byte    // a Request in JSON
	ID        string    // the client's own, a UUIDv7 within a day of now; empty: one is made
	Key       string    // Idempotency-Key, at most 255 bytes; not together with ID
	Requester string    // whose key it is; empty = nobody in particular
	Derived   events.ID // of a submission from the queue that brought neither
}

// Created is what a requester is told.
type Created struct {
	ID       events.ID `json:"id"`
	Position uint64    `json:"position"` // stream sequence of the first commit
}

const (
	createTimeout = 4 * time.Second // of everything that a create waits for
	maxKey        = 255             // bytes of an Idempotency-Key
)

// Limits of what is taken, unless Config says otherwise.
const (
	DefaultMaxOpen    = 100_000
	DefaultMaxCreates = 2048
)

// Create accepts a request: when it returns nil, the promise is on disk. The
// same ID (or key) with the same request is the same generation, and answered
// alike. What is wrong with a request, or why none is accepted now, is a *Problem.
func (o *Orchestrator) Create(ctx context.Context, s Submission) (Created, error) {
	if !o.begin() {
		return Created{}, o.refusal(o.busy(), s.Requester)
	}
	defer o.end()
	created, err := o.accept(ctx, s)
	if err != nil {
		return Created{}, o.refusal(err, s.Requester)
	}
	return created, nil
}

// begin takes a place for a create, if there is one: whoever would have to wait for
// one is better told so, as each that waits costs memory and makes others wait.
func (o *Orchestrator) begin() bool {
	select {
	case o.creating <- struct{}{}:
		return true
	default:
		return false
	}
}

func (o *Orchestrator) end() { <-o.creating }

func (o *Orchestrator) busy() *Problem {
	return problem(ProblemBusy, "", fmt.Sprintf("%d requests are being taken at this moment; nothing was written", o.cfg.MaxCreates))
}

// refusal is what a requester is told of an error, counted and logged: a *Problem.
func (o *Orchestrator) refusal(err error, requester string) *Problem {
	var p *Problem
	if !errors.As(err, &p) {
		o.log.Error("request failed", "error", err)
		p = problem(ProblemInternal, "", "the cause is in the log")
	} else {
		o.log.Info("request refused", "problem", p.kind(), "where", p.where(), "requester", events.Cut(requester, 64))
	}
	o.Metrics.Refused.WithLabelValues(p.kind()).Inc()
	return p
}

func (o *Orchestrator) accept(ctx context.Context, s Submission) (Created, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	now := events.Now()
	id, fresh, err := identify(s, now)
	if err != nil {
		return Created{}, err
	}
	r, err := o.parse(s.Body, now)
	if err != nil {
		return Created{}, err
	}
	if err := o.admit(); err != nil {
		return Created{}, err
	}
	for slot := range r.ExpectedCount {
		r.Tasks = append(r.Tasks, events.TaskID(id, slot, 1))
	}
	if fault.Hit("request.before") != nil {
		return Created{}, problem(ProblemUnavailable, "", again)
	}
	return o.promise(ctx, id, fresh, r, now)
}

// promise appends the first event of a generation, unless it is there already; an
// ID that is fresh cannot be.
func (o *Orchestrator) promise(ctx context.Context, id events.ID, fresh bool, r events.Requested, now time.Time) (Created, error) {
	for try := 0; ; try++ {
		if !fresh || try > 0 {
			if known, err := o.known(ctx, id, r.Digest); known.ID != "" || err != nil {
				return known, err
			}
		}
		if try == 0 { // after known: what was accepted once is answered alike for ever
			if err := o.filesThere(ctx, r); err != nil {
				return Created{}, err
			}
		}
		c, err := o.request(ctx, id, r, now)
		switch {
		case err == nil:
			return Created{ID: id, Position: c.Sequence}, nil
		case errors.Is(err, stream.ErrConflict):
			// Somebody else is just making it, and may yet fail: what to answer is
			// known when his commit is there, or when he has given up.
		case errors.Is(err, stream.ErrFull):
			return Created{}, problem(ProblemNoRoom, "", "the log has reached its storage limit")
		case errors.Is(err, stream.ErrUnavailable):
			return Created{}, problem(ProblemUnavailable, "", again)
		default:
			return Created{}, err
		}
		if o.ledger.Later(ctx, try) != nil {
			return Created{}, problem(ProblemUnavailable, "", again)
		}
	}
}

// again is what a requester is told when nobody knows what became of a request.
const again = "the request may have been accepted: send it again with the same ID or Idempotency-Key"

// request appends the first commit, with the claim in it if the provider can be
// called at once, and calls. The entry is owned meanwhile, so that nobody else
// finds the claim and wonders whether its call was made.
func (o *Orchestrator) request(ctx context.Context, id events.ID, r events.Requested, now time.Time) (events.Commit, error) {
	e := o.table.entry(id)
	e.mu.Lock()
	if e.active || e.gone || e.first != 0 {
		e.mu.Unlock()
		return events.Commit{}, stream.ErrConflict // it exists, or is just being made
	}
	e.active = true
	e.mu.Unlock()
	evs := []events.Event{r}
	l := o.lanes[r.Provider]
	placed := r.Rescues == "" && o.ready.Load() && l.enter()
	var claim events.Dispatching
	if placed {
		claim = events.Dispatching{Attempt: 1, By: o.life, Until: now.Add(callTimeout + 5*time.Second)}
		for slot, task := range r.Tasks {
			claim.Tasks = append(claim.Tasks, events.Task{Slot: slot, Try: 1, ID: task})
		}
		evs = append(evs, claim)
	}
	owned := true
	defer func() {
		if owned { // a panic, which a server of HTTP survives: the log tells what is there
			if placed {
				l.giveBack()
			}
			e.stale = true
			o.letGo(e, true)
		}
	}()
	c, head, err := o.ledger.Append(ctx, id, stream.Head{}, now, evs...)
	if err == nil {
		e.fold(c, head)
		e.mu.Lock()
		e.first, e.shown, e.shownAt = c.Sequence, e.open.Generation, c.Sequence
		e.mu.Unlock()
		o.committed(c)
		if placed {
			o.call(e, claim)
		}
	} else if placed {
		l.giveBack()
	}
	owned = false
	o.letGo(e, err == nil)
	if err == nil {
		err = o.answerable(ctx, c.Sequence)
	}
	return c, err
}

// answerable returns once a requester may be told of a commit. Whatever keeps it
// from the disk, he asks again: the error is a *Problem that says so.
func (o *Orchestrator) answerable(ctx context.Context, sequence uint64) error {
	if o.cfg.Loose {
		return nil
	}
	if err := fault.Around("request.sync", func() error { return o.ledger.Await(ctx, sequence) }); err != nil {
		o.log.Warn("a promise is not known to be on disk", "sequence", sequence, "error", err)
		return problem(ProblemUnavailable, "", again)
	}
	return nil
}

// letGo ends the ownership of an entry that request took.
func (o *Orchestrator) letGo(e *entry, exists bool) {
	e.mu.Lock()
	e.active = false
	again := exists || e.dirty || len(e.arrived) > 0
	e.mu.Unlock()
	if again {
		o.activate(e)
		return
	}
	o.retire(e)
}

// admit refuses what could not be worked on, before anything is written.
func (o *Orchestrator) admit() error {
	if o.table.len() >= o.cfg.MaxOpen {
		return problem(ProblemBusy, "", fmt.Sprintf("%d generations are open; nothing was written", o.cfg.MaxOpen))
	}
	if o.cfg.Room != nil {
		if err := o.cfg.Room(); err != nil {
			return problem(ProblemNoRoom, "", err.Error())
		}
	}
	return nil
}

// known is the generation that an ID belongs to already, the zero Created if to
// none. Another request under the same ID is a *Problem.
func (o *Orchestrator) known(ctx context.Context, id events.ID, digest string) (Created, error) {
	for try := 0; ; try++ {
		g, _, err := o.ledger.Load(ctx, id)
		switch {
		case errors.Is(err, stream.ErrNotFound):
			return Created{}, nil
		case err == nil && g.Digest != digest:
			return Created{}, reused(id)
		case err == nil:
			history, err := o.ledger.History(ctx, id)
			if err != nil {
				return Created{}, problem(ProblemUnavailable, "", "the log does not answer")
			}
			first := history[0].Sequence
			return Created{ID: id, Position: first}, o.answerable(ctx, first)
		case ctx.Err() != nil || !errors.Is(err, stream.ErrUnavailable):
			return Created{}, problem(ProblemUnavailable, "", "the log does not answer")
		}
		_ = o.ledger.Later(ctx, try) // the next try tells
	}
}

// reused is the problem of an ID that belongs to another request. Only a key's
// ID carries no time.
func reused(id events.ID) *Problem {
	if id.Time().IsZero() {
		return problem(ProblemReused, "header.Idempotency-Key", "belongs to another request, which was accepted")
	}
	return problem(ProblemReused, "path.id", "belongs to another request, which was accepted")
}

// identify settles the ID, and says whether it is a fresh one that cannot exist.
func identify(s Submission, now time.Time) (id events.ID, fresh bool, err error) {
	switch {
	case s.ID != "" && s.Key != "":
		return "", false, problem(ProblemInvalid, "header.Idempotency-Key", "is not taken together with an ID")
	case s.ID != "":
		id, err := events.ParseID(s.ID)
		if err != nil || id.Time().IsZero() {
			return "", false, problem(ProblemInvalid, "path.id", "must be a UUID of version 7 in canonical form")
		}
		if age := now.Sub(id.Time()); age > 24*time.Hour || age < -24*time.Hour {
			return "", false, problem(ProblemInvalid, "path.id", "carries a time that is not within 24 hours of now")
		}
		return id, false, nil
	case s.Key != "":
		if len(s.Key) > maxKey {
			return "", false, problem(ProblemInvalid, "header.Idempotency-Key", fmt.Sprintf("at most %d bytes", maxKey))
		}
		return events.DerivedID(s.Requester, s.Key), false, nil
	case s.Derived != "":
		return s.Derived, false, nil
	}
	fresh7, err := uuid.NewV7()
	if err != nil {
		return "", false, fmt.Errorf("mint ID: %w", err)
	}
	return events.ID(fresh7.String()), true, nil
}
