package orchestrator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// rescueDeadline is how long a rescue tries to ask, and then to download.
const rescueDeadline = 10 * time.Minute

// Rescue makes the one generation that adopts the tasks of a completed one: the
// last ones of those slots that got no artifact. It asks the provider once and
// fetches what is there by now; it buys nothing. One of those slots at least must
// have failed for want of time or of a file. The same rescue again is the same
// generation. What is wrong is a *Problem.
func (o *Orchestrator) Rescue(ctx context.Context, id events.ID) (Created, error) {
	if !o.begin() {
		return Created{}, o.refusal(o.busy(), "")
	}
	defer o.end()
	created, err := o.adopt(ctx, id)
	if err != nil {
		return Created{}, o.refusal(err, "")
	}
	return created, nil
}

func (o *Orchestrator) adopt(ctx context.Context, id events.ID) (Created, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	old, err := o.lastTries(ctx, id)
	if err != nil {
		return Created{}, err
	}
	if !slices.ContainsFunc(old.Outputs, rescuable) {
		return Created{}, problem(ProblemInvalid, "path.id", "is a generation of which nothing can be rescued: no output failed for want of time or of a file")
	}
	if _, err := o.laneOf(old.Provider); err != nil {
		return Created{}, problem(ProblemInvalid, "path.id", "is a generation of a provider that is not configured any more")
	}
	if err := o.admit(); err != nil {
		return Created{}, err
	}
	now := events.Now()
	r := events.Requested{
		Model: old.Model, Input: old.Input, Provider: old.Provider, Labels: old.Labels,
		Deadline: now.Add(rescueDeadline), Digest: events.Digest([]byte("rescue/" + string(id))), Rescues: id,
	}
	for i, s := range old.Slots {
		if old.Outputs[i].Artifact == nil {
			r.Tasks = append(r.Tasks, s.Task)
		}
	}
	r.ExpectedCount = len(r.Tasks)
	return o.promise(ctx, events.RescueID(id), false, r, now)
}

// rescuable says whether an output may be there by now, though its slot ended
// without it.
func rescuable(out events.Output) bool {
	if out.Error == nil {
		return false
	}
	code := out.Error.Code
	return code == events.CodeDeadline || code == events.CodeLost || strings.HasPrefix(code, "file_")
}

// lastTries is a completed generation as it was before its last event, which
// leaves out the tasks.
func (o *Orchestrator) lastTries(ctx context.Context, id events.ID) (events.Generation, error) {
	var g events.Generation
	now, _, err := o.ledger.Load(ctx, id)
	switch {
	case errors.Is(err, stream.ErrNotFound):
		return g, problem(ProblemNotFound, "", "no generation has this ID")
	case err != nil:
		return g, problem(ProblemUnavailable, "", "the log does not answer")
	case !now.Done():
		return g, problem(ProblemInvalid, "path.id", "is a generation that is not completed yet")
	}
	history, err := o.ledger.History(ctx, id)
	if err != nil || !history[len(history)-1].Completes() { // a replica that lags behind
		return g, problem(ProblemUnavailable, "", "the log does not answer")
	}
	for _, e := range history {
		c, err := e.Decode()
		if err != nil {
			return g, err
		}
		if last := len(c.Events) - 1; c.Events[last].Type() == (events.Completed{}).Type() {
			c.Events = c.Events[:last]
		}
		g = events.Fold(g, c)
	}
	return g, nil
}
