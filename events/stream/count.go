package stream

import (
	"errors"
	"sync/atomic"
)

// Counts is what has become of the appends of this process since Open.
type Counts struct {
	Commits   uint64 // in the log
	Conflicts uint64 // refused, because somebody else's commit came first; a create that is sent twice is one
	UnderWay  uint64 // begun, and not acknowledged by the server yet
	Syncs     uint64 // that the gate has begun, shared by all who waited; 0 with a server that syncs

	// Of the appends whose answer was lost:
	Found   uint64 // the commit was looked for, and is in the log
	Missing uint64 // it was looked for, and is not
	Unknown uint64 // time ran out before anything was known (ErrUnavailable)
}

// Counts is how the appends of this process have fared. The numbers are read one
// after the other, while appends go on.
func (l *Log) Counts() Counts {
	return Counts{
		Commits: l.tally.commits.Load(), Conflicts: l.tally.conflicts.Load(), UnderWay: uint64(l.tally.underWay.Load()), Syncs: l.gate.barrier.Syncs(),
		Found: l.tally.found.Load(), Missing: l.tally.missing.Load(), Unknown: l.tally.unknown.Load(),
	}
}

// Lag is how many sequences the server has in its files, as far as this process
// knows, beyond the durable one.
func (l *Log) Lag() uint64 {
	durable := l.Durable() // first: it never passes what is written
	return max(l.gate.written.Load(), durable) - durable
}

// tally is Counts being counted.
type tally struct {
	commits, conflicts, found, missing, unknown atomic.Uint64
	underWay                                    atomic.Int64
}

// end counts an append that has ended; again says that it was sent more than once.
func (t *tally) end(again bool, err error) {
	t.underWay.Add(-1)
	switch {
	case err == nil:
		t.commits.Add(1)
		if again {
			t.found.Add(1)
		}
	case errors.Is(err, ErrConflict):
		t.conflicts.Add(1)
		if again {
			t.missing.Add(1)
		}
	case errors.Is(err, ErrUnavailable):
		t.unknown.Add(1)
	}
}
