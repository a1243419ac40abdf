package orchestrator

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

// judge holds the log, the rows and the bucket against what the client was
// promised and against the provider's journal.
func (s *simulation) judge() {
	subjects := map[events.ID][]*storedCommit{}
	for i := range s.log.stored {
		c := &s.log.stored[i]
		if id, err := stream.ParseSubject(c.Subject); err != nil || id != c.ID {
			s.problem("I20: commit %d is on subject %q", c.Sequence, c.Subject)
		}
		subjects[c.ID] = append(subjects[c.ID], c)
	}
	for _, p := range s.requester.promises {
		if p.acked && len(subjects[p.id]) == 0 {
			s.problem("I1: %s was promised and is not in the log", s.short(p.id))
		}
		if commits := subjects[p.id]; len(commits) > 0 {
			s.judgeGeneration(p.id, commits)
			delete(subjects, p.id)
		}
	}
	for id := range subjects {
		s.problem("I16: nobody asked for %s", id)
	}
	s.judgeCatalog()
}

func (s *simulation) judgeGeneration(id events.ID, commits []*storedCommit) {
	var g events.Generation
	var done *events.Completed
	ended, digests := map[int]bool{}, map[string]bool{}
	prev := uint64(0)
	for i, c := range commits {
		if c.Version != uint64(i+1) || c.Prev != prev {
			s.problem("I3: commit %d of %s has version %d after %d", i+1, s.short(id), c.Version, c.Prev)
		}
		prev = c.Sequence
		for n, e := range c.commit.Events {
			s.rig.events[e.Type()]++
			if _, first := e.(events.Requested); first != (i == 0 && n == 0) {
				s.problem("I4: %s is event %d of commit %d of %s", e.Type(), n, i+1, s.short(id))
			}
			if done != nil {
				s.problem("I6: %s of %s follows completed", e.Type(), s.short(id))
				continue
			}
			slot := -1
			switch e := e.(type) {
			case events.OutputSucceeded:
				slot = e.Slot
			case events.OutputFailed:
				slot = e.Slot
			case events.Delivered:
				if digests[e.Digest] && e.Source == events.FromWebhook {
					s.problem("webhook %s of %s was appended twice", e.Digest, s.short(id))
				}
				digests[e.Digest] = true
				s.judgeDelivery(id, e)
			case events.Completed:
				done = &e
			}
			if slot >= 0 && ended[slot] {
				s.problem("I5: slot %d of %s ends twice", slot, s.short(id))
			}
			ended[slot] = true
			if done == nil {
				g.ID, g.At = c.ID, c.commit.At
				g = events.Apply(g, e)
			}
		}
		g.At = c.commit.At
	}
	if done == nil {
		s.problem("I2: %s (deadline +%s) is not completed by +%s", s.short(id), g.Deadline.Sub(s.start), s.now.Sub(s.start))
		return
	}
	s.judgeEnd(g, done.Generation)
	for slot, o := range done.Generation.Outputs {
		s.judgeSlot(done.Generation, slot, o)
	}
}

// judgeDelivery: a delivery is about tasks of its generation that the provider knows (I16).
func (s *simulation) judgeDelivery(id events.ID, d events.Delivered) {
	for _, r := range d.Results {
		if k := s.provider.tasks[r.Task]; k == nil || k.generation != id || k.refused {
			s.problem("I16: %s has a delivery about task %s", s.short(id), r.Task)
		}
	}
}

// judgeEnd holds the completed generation against the fold of all before.
func (s *simulation) judgeEnd(g, done events.Generation) {
	if !reflect.DeepEqual(g.Outputs, done.Outputs) || !g.CreatedAt.Equal(done.CreatedAt) || g.Digest != done.Digest {
		s.problem("I8: what %s completed with is not the fold of its commits", s.short(g.ID))
	}
	if (done.ArtifactCount() == 0) != (done.Error != nil) {
		s.problem("I7: %s has %d artifacts and error %v", s.short(g.ID), done.ArtifactCount(), done.Error)
	}
	if !g.Ended() {
		s.problem("%s is completed with an open slot", s.short(g.ID))
	}
	grace := 15 * time.Second
	if !s.gated {
		grace = 30 * time.Second
	}
	from := done.Deadline
	if s.whole.After(from) {
		from = s.whole
	}
	if s.calm.After(from) {
		from = s.calm
	}
	if late := done.CompletedAt.Sub(from); late > grace {
		s.problem("I2: %s was completed %s after its deadline", s.short(g.ID), late)
	}
	if done.CompletedAt.Before(done.CreatedAt) {
		s.problem("I24: %s was completed before it was created", s.short(g.ID))
	}
}

// judgeSlot holds one output against the provider's journal.
func (s *simulation) judgeSlot(g events.Generation, slot int, o events.Output) {
	var good *simTask
	tries, refused, kept := 0, false, true
	for try := 1; try <= events.MaxTries; try++ {
		k := s.provider.tasks[events.TaskID(g.ID, slot, try)]
		if k == nil {
			continue
		}
		tries++
		switch {
		case k.refused, k.never:
			refused = true
		case k.Error == nil && !k.ready.After(g.CompletedAt):
			if good != nil {
				s.problem("I24: %s %d was bought twice", s.short(g.ID), slot)
			}
			good, kept = k, !k.tooLarge
		}
	}
	a := o.Artifact
	switch {
	case a == nil && good != nil && kept && s.fair(g) && good.ready.Before(g.Deadline):
		s.problem("I23: the picture of %s %d is lost: %s", s.short(g.ID), slot, o.Error.Code)
	case a != nil && good == nil:
		s.problem("%s %d has an artifact that nobody made", s.short(g.ID), slot)
	case a == nil && tries == 0 && s.fair(g) && s.calm.Add(callTimeout+probeGap+5*time.Second).Before(g.Deadline):
		// The last trouble may be a probe's call, which hangs for half a minute and keeps
		// the circuit open for another. A claim whose acknowledgement was lost takes less.
		s.problem("%s %d was never sent", s.short(g.ID), slot)
	case a == nil && good == nil && !refused && s.fair(g):
		s.judgeFailure(g, slot, o)
	}
	if a == nil || good == nil {
		return
	}
	if a.Cost == nil || *a.Cost != *good.Cost || a.Seed != good.Seed {
		s.problem("I24: %s %d cost %v with seed %s, the provider says %v and %s", s.short(g.ID), slot, a.Cost, a.Seed, *good.Cost, good.Seed)
	}
	if f, ok := s.bucket[a.BlobKey]; !ok || f != a.File || f.SHA256 != good.Task {
		s.problem("I11: the file of %s %d is not as the event says: %+v", s.short(g.ID), slot, f)
	}
	if a.ID != events.ArtifactID(g.ID, slot) {
		s.problem("I7: artifact %d of %s has the ID %s", slot, s.short(g.ID), a.ID)
	}
}

// fair says whether there was time enough in calm weather before the deadline, so
// that nothing but a mistake of ours can lose a picture: with several orchestrators,
// enough for the others to notice that a look was lost. One that starts looks at once.
func (s *simulation) fair(g events.Generation) bool {
	enough := 10 * time.Second
	if !s.gated {
		enough += stream.AckWait
	}
	return s.calm.Add(enough).Before(g.Deadline) && s.whole.Add(10*time.Second).Before(g.Deadline)
}

// judgeFailure: a failure that may pass was tried again, if we were told of it in time.
func (s *simulation) judgeFailure(g events.Generation, slot int, o events.Output) {
	first := s.provider.tasks[events.TaskID(g.ID, slot, 1)]
	if first == nil || first.Error == nil || !first.Error.Class.Retryable() || s.provider.tasks[events.TaskID(g.ID, slot, 2)] != nil {
		return
	}
	for c := range s.log.of(g.ID) {
		for _, e := range c.commit.Events {
			d, ok := e.(events.Delivered)
			if ok && c.commit.At.Add(probeGap+20*time.Second).Before(g.Deadline) && s.calm.Add(probeGap+20*time.Second).Before(g.Deadline) &&
				slices.ContainsFunc(d.Results, func(r events.Result) bool { return r.Task == first.Task && r.Error != nil }) {
				s.problem("%s %d was not tried again after %s: %s", s.short(g.ID), slot, first.Error.Code, o.Error.Code)
				return
			}
		}
	}
}

// judgeCatalog: every completed generation has its row, nothing else has one, and
// a catalog that is built anew is the same.
func (s *simulation) judgeCatalog() {
	if lag := s.projector.lag(); lag != 0 {
		s.problem("I18: the catalog is %d commits behind at rest", lag)
	}
	done := 0
	for _, c := range s.log.stored {
		if !c.Completes() {
			continue
		}
		done++
		if row := s.projector.rows[c.ID]; row == nil || row.Sequence != c.Sequence {
			s.problem("I8: %s is completed and has no row", s.short(c.ID))
		} else {
			s.judgeRow(row.Entry)
		}
	}
	if done != len(s.projector.rows) {
		s.problem("I9: the catalog has %d rows, and %d generations are completed", len(s.projector.rows), done)
	}
	if s.seed%16 != 0 {
		return
	}
	for _, e := range projector.Read(catalog.Position{}, s.log.entries(0, s.log.end())).Entries {
		if row := s.projector.rows[e.Generation.ID]; row == nil || !reflect.DeepEqual(row.Entry, e) {
			s.problem("I12: the row of %s is another when it is built anew", s.short(e.Generation.ID))
		}
	}
}

// judgeRow: a row says what the fold of the generation's commits says (I7, I8, I9).
func (s *simulation) judgeRow(e catalog.Entry) {
	var g events.Generation
	for c := range s.log.of(e.Generation.ID) {
		g = events.Fold(g, c.commit)
	}
	good := 0
	for _, o := range g.Outputs {
		if o.Artifact == nil {
			continue
		}
		if !slices.ContainsFunc(e.Artifacts, func(a catalog.Artifact) bool {
			return a.ID == o.Artifact.ID && a.BlobKey == o.Artifact.BlobKey && a.Seed == o.Artifact.Seed && reflect.DeepEqual(a.Cost, o.Artifact.Cost)
		}) {
			s.problem("I8: artifact %s is in the log and not in the catalog", o.Artifact.ID)
		}
		good++
	}
	row := e.Generation
	if !g.Done() || row.ArtifactCount != good || len(e.Artifacts) != good || row.Model != g.Model || string(row.Input) != string(g.Input) ||
		!row.CreatedAt.Equal(g.CreatedAt) || !row.CompletedAt.Equal(g.CompletedAt) {
		s.problem("I8: the row of %s is not its fold: %+v", s.short(g.ID), row)
	}
}

// fingerprint names a run by everything that it wrote.
func (s *simulation) fingerprint() string {
	var b strings.Builder
	for _, c := range s.log.stored {
		b.WriteString(c.Digest)
	}
	return events.Digest([]byte(b.String())) + " " + s.now.Sub(s.start).String()
}
