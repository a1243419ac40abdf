package verify

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// subject is what is known of one generation while the log is read.
type subject struct {
	fold        events.Generation
	last        stream.Entry // headers of the last commit; its body is dropped
	ended       uint32       // slots that have ended, a bit each
	claims      int
	keys        []string      // blob keys that its events name
	delivered   []events.File // that came inline
	inputs      []string      // SHA-256 of the files that its input names
	tasks       map[string]taskOf
	rescues     events.ID         // whose tasks these are, if it adopted them
	artifacts   []events.Artifact // of the completed generation
	failed      map[int]string    // code of each failed slot
	deadline    time.Time         // what the provider finished by then should be here; of a rescue, the request
	doneAt      uint64            // sequence of the completing commit, 0 = not completed
	completedAt time.Time
}

// taskOf is where a task belongs.
type taskOf struct {
	id        events.ID
	slot, try int
}

// readLog goes through the whole log in order and checks every subject's chain
// of commits: I3 to I6 and I20.
type readLog struct {
	*Report
	subjects map[events.ID]*subject
	order    []events.ID // by first commit
	last     uint64      // sequence of the last entry read
	done     func(g events.Generation, sequence uint64)
}

func (l *readLog) entries(batch []stream.Entry) {
	for _, e := range batch {
		l.entry(e)
	}
}

func (l *readLog) entry(e stream.Entry) {
	l.looked("I20", 1)
	if e.Sequence != l.last+1 {
		l.broken("I3", "", "restore the stream from a backup", "sequences %d to %d are missing from the log", l.last+1, e.Sequence-1)
	}
	l.last = e.Sequence
	if e.ID == "" {
		l.broken("I20", "", "find who may publish to gen.> and take the right away", "sequence %d is on subject %q", e.Sequence, e.Subject)
		return
	}
	s := l.subjects[e.ID]
	if s == nil {
		s = &subject{tasks: map[string]taskOf{}, failed: map[int]string{}}
		l.subjects[e.ID] = s
		l.order = append(l.order, e.ID)
		l.looked("I4", 1)
	}
	l.chain(s, e)
	c, err := e.Decode()
	if err != nil {
		l.broken("I3", e.ID, "look at it with `nats stream get`, and retry it from PARKED", "commit at sequence %d cannot be read: %v", e.Sequence, err)
	} else {
		l.commit(s, c)
	}
	e.Body = nil
	s.last = e
}

// chain is I3: the version, the link back, and the digest over all before it.
func (l *readLog) chain(s *subject, e stream.Entry) {
	const do = "a commit is missing or was altered: restore the stream from a backup"
	l.looked("I3", 1)
	switch {
	case e.Version != s.last.Version+1:
		l.broken("I3", e.ID, do, "version %d follows version %d at sequence %d", e.Version, s.last.Version, e.Sequence)
	case e.Prev != s.last.Sequence:
		l.broken("I3", e.ID, do, "version %d points back to sequence %d, the one before is at %d", e.Version, e.Prev, s.last.Sequence)
	case e.Digest != stream.Chain(s.last.Digest, e.ID, e.Version, e.Body):
		l.broken("I3", e.ID, do, "version %d at sequence %d does not match its digest", e.Version, e.Sequence)
	}
}

func (l *readLog) commit(s *subject, c events.Commit) {
	if !s.fold.Done() {
		s.fold.ID, s.fold.At = c.ID, c.At
	}
	for i, ev := range c.Events {
		_, requested := ev.(events.Requested)
		first := s.last.Version == 0 && i == 0
		switch {
		case first && !requested:
			l.broken("I4", c.ID, "", "the first event is %s", ev.Type())
		case !first && requested:
			l.broken("I4", c.ID, "", "requested comes again in version %d", c.Version)
		}
		if s.fold.Done() {
			l.broken("I6", c.ID, "", "%s follows completed in version %d", ev.Type(), c.Version)
		}
		l.event(s, c, ev)
		s.fold = events.Apply(s.fold, ev)
	}
	if s.fold.Done() && s.doneAt == 0 {
		s.doneAt, s.completedAt = c.Sequence, s.fold.CompletedAt
		for _, o := range s.fold.Outputs {
			if o.Artifact != nil {
				s.artifacts = append(s.artifacts, *o.Artifact)
			}
		}
		l.done(s.fold, c.Sequence)
		s.fold = events.Generation{CompletedAt: s.fold.CompletedAt} // a million folds would not fit
	}
}

// event looks at one event, with s.fold as it was before it.
func (l *readLog) event(s *subject, c events.Commit, ev events.Event) {
	switch ev := ev.(type) {
	case events.Requested:
		s.deadline = ev.Deadline
		for slot, task := range ev.Tasks {
			s.tasks[task] = taskOf{c.ID, slot, 1}
		}
		l.named(s, c.ID, ev.Input)
		if ev.Rescues != "" {
			s.rescues, s.deadline = ev.Rescues, c.At
			l.adopted(c.ID, ev)
		}
	case events.Dispatching:
		s.claims++
		l.claim(s, c, ev)
		for _, t := range ev.Tasks {
			s.tasks[t.ID] = taskOf{c.ID, t.Slot, t.Try}
		}
	case events.Delivered:
		if ev.RawKey != "" {
			s.keys = append(s.keys, ev.RawKey)
		}
		for _, r := range ev.Results {
			if r.File != nil {
				s.keys = append(s.keys, r.File.BlobKey)
				s.delivered = append(s.delivered, *r.File)
			}
		}
	case events.OutputSucceeded:
		s.keys = append(s.keys, ev.Artifact.BlobKey)
		l.end(s, c, ev.Slot)
	case events.OutputFailed:
		s.failed[ev.Slot] = ev.Error.Code
		l.end(s, c, ev.Slot)
	case events.Completed:
		l.completed(s, c, ev)
	}
}

// named notes the files of an input.
func (l *readLog) named(s *subject, id events.ID, input json.RawMessage) {
	files, err := events.InputFiles(input)
	if err != nil {
		l.broken("I11", id, "", "its input names a file in a form that is never accepted: %v", err)
	}
	for _, f := range files {
		s.inputs = append(s.inputs, f.SHA256)
		s.keys = append(s.keys, events.InputKey(f.SHA256))
	}
}

// adopted is I14 for a rescue: the tasks are those of the generation that it names,
// which was completed without artifacts of them.
func (l *readLog) adopted(id events.ID, ev events.Requested) {
	old := l.subjects[ev.Rescues]
	if old == nil || old.doneAt == 0 {
		l.broken("I14", id, "", "it rescues %s, which was not completed before", ev.Rescues)
		return
	}
	for _, task := range ev.Tasks {
		of, ok := old.tasks[task]
		if !ok {
			l.broken("I14", id, "", "it adopts task %s, which is none of generation=%s", task, ev.Rescues)
		} else if slices.ContainsFunc(old.artifacts, func(a events.Artifact) bool { return a.ID == events.ArtifactID(of.id, of.slot) }) {
			l.broken("I14", id, "", "it adopts task %s, of which generation=%s has the artifact", task, ev.Rescues)
		}
	}
}

// end is I5.
func (l *readLog) end(s *subject, c events.Commit, slot int) {
	l.looked("I5", 1)
	switch {
	case slot < 0 || slot >= events.MaxCount:
		l.broken("I5", c.ID, "", "slot %d ends, which does not exist", slot)
	case s.ended&(1<<slot) != 0:
		l.broken("I5", c.ID, "", "slot %d ends again in version %d", slot, c.Version)
	default:
		s.ended |= 1 << slot
	}
}

// claim is the log's half of I14: a slot is asked for again only after a definite
// no to the try before.
func (l *readLog) claim(s *subject, c events.Commit, ev events.Dispatching) {
	if s.rescues != "" {
		l.broken("I14", c.ID, "", "attempt %d is claimed in version %d, and a rescue buys nothing", ev.Attempt, c.Version)
	}
	if s.fold.Claim != nil {
		l.broken("I14", c.ID, "", "attempt %d is claimed in version %d, and attempt %d has no answer yet", ev.Attempt, c.Version, s.fold.Claim.Attempt)
	}
	for _, t := range ev.Tasks {
		if t.Slot < 0 || t.Slot >= len(s.fold.Slots) {
			l.broken("I14", c.ID, "", "attempt %d claims slot %d, which does not exist", ev.Attempt, t.Slot)
			continue
		}
		before := s.fold.Slots[t.Slot]
		again := t.Try == before.Try && !before.Claimed // never asked for, or declined since
		next := t.Try == before.Try+1 && before.Failure != nil
		if !again && !next || before.Result != nil || before.Ended {
			l.broken("I14", c.ID, "", "attempt %d asks for slot %d again (try %d) without a definite no to the try before", ev.Attempt, t.Slot, t.Try)
		}
	}
}

// completed is the second half of I6, and the log's half of I7.
func (l *readLog) completed(s *subject, c events.Commit, ev events.Completed) {
	if s.fold.Done() {
		return // reported already
	}
	l.looked("I6", 1)
	fold := events.Apply(s.fold, ev)
	want, err1 := json.Marshal(fold)
	have, err2 := json.Marshal(ev.Generation)
	if err1 != nil || err2 != nil || !bytes.Equal(want, have) {
		l.broken("I6", c.ID, "", "completed in version %d does not carry the fold of the commits before it", c.Version)
	}
	if (ev.Error != nil) != (fold.ArtifactCount() == 0) {
		l.broken("I7", c.ID, "", "%d artifacts and error=%t", fold.ArtifactCount(), ev.Error != nil)
	}
}
