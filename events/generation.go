package events

import (
	"encoding/json"
	"slices"
	"time"
)

// Generation is the fold of one subject: everything that its commits say.
// Its JSON form is what a Completed event carries; fields without a JSON name
// matter only while the generation is open.
type Generation struct {
	ID            ID                `json:"id"`
	Model         string            `json:"model"`
	Input         json.RawMessage   `json:"input"`
	Provider      string            `json:"provider"`
	Labels        map[string]string `json:"labels,omitempty"`
	ExpectedCount int               `json:"expected_count"`
	Digest        string            `json:"digest"`            // of the request
	Rescues       ID                `json:"rescues,omitempty"` // the generation whose tasks it adopted; it buys none of its own
	CreatedAt     time.Time         `json:"created_at"`
	Deadline      time.Time         `json:"deadline"`
	CompletedAt   time.Time         `json:"completed_at,omitzero"`
	Error         *Error            `json:"error,omitempty"`
	Outputs       []Output          `json:"outputs"` // one per slot, in order

	At       time.Time    `json:"-"` // time of the last commit folded in
	Attempts int          `json:"-"` // claims so far
	Claim    *Dispatching `json:"-"` // the claim that is not answered yet
	Slots    []Slot       `json:"-"` // how far each output is; nil once completed
}

// Output is one slot of a generation: empty until the slot ends, then with
// exactly one of Artifact and Error.
type Output struct {
	Slot     int       `json:"slot"`
	Artifact *Artifact `json:"artifact,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// Artifact is a good output: a file in the bucket, and later a row in the catalog.
type Artifact struct {
	ID string `json:"id"` // ArtifactID(generation, slot)
	File
	Seed      string          `json:"seed,omitempty"` // decimal
	Cost      *int64          `json:"cost,omitempty"` // billionths of a dollar
	Metadata  json.RawMessage `json:"metadata,omitempty"`
	CreatedAt time.Time       `json:"created_at"`
}

// Slot is how far one output of an open generation is.
type Slot struct {
	Try      int       // the try that Task belongs to, 1 = first
	Task     string    // TaskID of this try
	Claimed  bool      // a claim names this try
	Accepted bool      // the provider is known to have it
	Again    time.Time // the provider said "not now": no new claim before
	Declined *Error    // what it said then
	Result   *Result   // the delivered success, not yet turned into an artifact
	Failure  *Error    // the delivered failure of this try
	Ended    bool      // there is an OutputSucceeded or OutputFailed
}

// Requested says whether the generation exists at all: the fold of no commits does not.
func (g Generation) Requested() bool { return g.ID != "" && g.ExpectedCount > 0 }

// Done says whether the generation is completed; nothing follows after that.
func (g Generation) Done() bool { return !g.CompletedAt.IsZero() }

// ArtifactCount is the number of good outputs. Of a completed generation, 0 is a failure.
func (g Generation) ArtifactCount() int {
	n := 0
	for _, o := range g.Outputs {
		if o.Artifact != nil {
			n++
		}
	}
	return n
}

// Ended says whether every slot has ended.
func (g Generation) Ended() bool {
	for _, o := range g.Outputs {
		if o.Artifact == nil && o.Error == nil {
			return false
		}
	}
	return true
}

// SlotOf finds the slot that a task belongs to, by its present try or an
// earlier one, and says which. It reports ok=false for a task that is not ours.
func (g Generation) SlotOf(task string) (slot, try int, ok bool) {
	for i, s := range g.Slots {
		if s.Task == task {
			return i, s.Try, true
		}
	}
	for i, s := range g.Slots {
		for t := 1; t < s.Try; t++ {
			if TaskID(g.ID, i, t) == task {
				return i, t, true
			}
		}
	}
	return 0, 0, false
}

// Commit is 1 to n events that were decided together: one message on the
// generation's subject, atomic, and behind one sync of the disk.
type Commit struct {
	ID       ID
	Version  uint64    // 1, 2, 3 … of this ID
	Sequence uint64    // in the stream
	Prev     uint64    // stream sequence of this ID's previous commit, 0 = none
	At       time.Time // when it was decided, UTC, microseconds
	Events   []Event
}

// Fold applies a whole commit.
func Fold(g Generation, c Commit) Generation {
	g.ID, g.At = c.ID, c.At
	for _, e := range c.Events {
		g = Apply(g, e)
	}
	return g
}

// Apply is the fold: g after e, with g.At as the time of e. It is total (an
// event that has no place in g changes nothing) and shares no memory with g
// that it changes, so that a fold may be handed around while it grows.
func Apply(g Generation, e Event) Generation {
	if g.Done() {
		return g
	}
	if r, ok := e.(Requested); ok {
		return requested(g, r)
	}
	if !g.Requested() {
		return g
	}
	g.Slots = slices.Clone(g.Slots)
	switch e := e.(type) {
	case Dispatching:
		return dispatching(g, e)
	case Dispatched:
		return dispatched(g, e)
	case Delivered:
		return delivered(g, e)
	case OutputSucceeded:
		return ended(g, Output{Slot: e.Slot, Artifact: &e.Artifact})
	case OutputFailed:
		return ended(g, Output{Slot: e.Slot, Error: &e.Error})
	case Completed:
		g.CompletedAt, g.Error = g.At, e.Error
		g.Slots, g.Claim = nil, nil
	}
	return g
}

func requested(g Generation, r Requested) Generation {
	n := len(r.Tasks)
	if g.Requested() || n == 0 || n > MaxCount || r.ExpectedCount != n {
		return g
	}
	g.Model, g.Input, g.Provider, g.Labels = r.Model, r.Input, r.Provider, r.Labels
	g.ExpectedCount, g.Digest, g.Rescues = r.ExpectedCount, r.Digest, r.Rescues
	g.CreatedAt, g.Deadline = g.At, r.Deadline
	g.Outputs = make([]Output, n)
	g.Slots = make([]Slot, n)
	for i, task := range r.Tasks {
		g.Outputs[i].Slot = i
		g.Slots[i] = Slot{Try: 1, Task: task}
		if g.Rescues != "" { // somebody else asked for it, and the provider took it
			g.Slots[i].Claimed, g.Slots[i].Accepted = true, true
		}
	}
	return g
}

// dispatching opens a claim. A slot that is asked for again with the same try
// keeps what is known of it; a new try starts afresh, but for a success, which
// was paid for.
func dispatching(g Generation, e Dispatching) Generation {
	g.Attempts = max(g.Attempts, e.Attempt)
	g.Claim = &e
	for _, t := range e.Tasks {
		if t.Slot < 0 || t.Slot >= len(g.Slots) || t.Try < 1 || t.Try > MaxTries {
			continue
		}
		s := &g.Slots[t.Slot]
		if t.Try < s.Try {
			continue
		}
		if t.Try > s.Try {
			*s = Slot{Try: t.Try, Task: t.ID, Result: s.Result, Ended: s.Ended}
		}
		s.Claimed, s.Again, s.Declined = true, time.Time{}, nil
	}
	return g
}

func dispatched(g Generation, e Dispatched) Generation {
	for _, i := range e.Accepted {
		if i >= 0 && i < len(g.Slots) {
			g.Slots[i].Accepted = true
		}
	}
	for _, d := range e.Declined {
		// A delivery that came first has already proved that the task was taken.
		if d.Slot >= 0 && d.Slot < len(g.Slots) && !g.Slots[d.Slot].Accepted {
			s := &g.Slots[d.Slot]
			s.Claimed, s.Again, s.Declined = false, d.Again, &d.Error
		}
	}
	if g.Claim != nil && g.Claim.Attempt == e.Attempt {
		g.Claim = nil
	}
	return g
}

// delivered takes each result to its slot. A success of an earlier try is a
// picture that was paid for, so it counts; a failure counts for the present try
// only, and never against a success.
func delivered(g Generation, e Delivered) Generation {
	for _, r := range e.Results {
		i, try, ok := g.SlotOf(r.Task)
		if !ok || g.Slots[i].Ended {
			continue
		}
		s := &g.Slots[i]
		present := try == s.Try
		s.Accepted = s.Accepted || present
		switch {
		case r.Error != nil:
			if present && s.Result == nil {
				s.Failure = r.Error
			}
		case s.Result == nil || s.Result.File == nil: // a newer URL replaces an older one, a file stays
			s.Result, s.Failure = &r, nil
		}
	}
	return answered(g)
}

// answered closes a claim whose answer has nothing to add: every task of it is
// known to be taken, or its slot needs it no more. Left open, it would keep the
// other slots from their next try.
func answered(g Generation) Generation {
	if g.Claim != nil && !slices.ContainsFunc(g.Claim.Tasks, func(t Task) bool {
		if t.Slot < 0 || t.Slot >= len(g.Slots) {
			return false
		}
		s := g.Slots[t.Slot]
		return !s.Accepted && !s.Ended && s.Result == nil
	}) {
		g.Claim = nil
	}
	return g
}

func ended(g Generation, o Output) Generation {
	if o.Slot < 0 || o.Slot >= len(g.Slots) || g.Slots[o.Slot].Ended {
		return g
	}
	g.Slots[o.Slot].Ended = true
	g.Outputs = slices.Clone(g.Outputs)
	g.Outputs[o.Slot] = o
	return answered(g)
}
