package verify

import (
	"context"
	"strconv"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// journal checks the log against what the provider says it did: I14, I23, I24.
func (v *verifier) journal(context.Context) error {
	if v.Journal == nil {
		v.skip("there is no journal of a simulated provider", "I14", "I23", "I24")
		return nil
	}
	j := v.readJournal()
	for _, id := range v.log.order {
		s := v.log.subjects[id]
		v.looked("I14", j.calls[id])
		if j.calls[id] > s.claims {
			v.broken("I14", id, "", "%d create calls for %d claims", j.calls[id], s.claims)
		}
		if s.doneAt != 0 {
			v.bill(id, s, j)
		}
	}
	return nil
}

// journalOf is the journal by what it is about.
type journalOf struct {
	calls   map[events.ID]int         // create calls
	outputs map[events.ID][]sim.Entry // good outputs
	tasks   map[string]taskOf
}

func (v *verifier) readJournal() journalOf {
	j := journalOf{calls: map[events.ID]int{}, outputs: map[events.ID][]sim.Entry{}, tasks: map[string]taskOf{}}
	for _, id := range v.log.order {
		for task, of := range v.log.subjects[id].tasks {
			j.tasks[task] = of
		}
	}
	taken := map[string]int{}
	for _, e := range v.Journal {
		switch e.Kind {
		case sim.KindCreate:
			if len(e.Tasks) > 0 {
				if of, ok := j.tasks[e.Tasks[0]]; ok {
					j.calls[of.id]++
				} else {
					v.broken("I14", "", "", "create call %d is for task %s, which no claim names", e.Call, e.Tasks[0])
				}
			}
		case sim.KindTaken:
			if taken[e.Task]++; taken[e.Task] > 1 {
				v.broken("I14", j.tasks[e.Task].id, "", "task %s was taken %d times", e.Task, taken[e.Task])
			}
		case sim.KindOutput:
			if of, ok := j.tasks[e.Task]; ok && e.Code == "" {
				j.outputs[of.id] = append(j.outputs[of.id], e)
			}
		}
	}
	return j
}

// bill is I23 and I24 for one completed generation.
func (v *verifier) bill(id events.ID, s *subject, j journalOf) {
	have := map[int]events.Artifact{}
	for _, a := range s.artifacts {
		_, slot, err := events.ParseArtifactID(a.ID)
		if err != nil {
			v.broken("I23", id, "", "artifact %q: %v", a.ID, err)
			continue
		}
		have[slot] = a
	}
	var catalog, provider int64
	matched := map[int]bool{}
	for _, out := range j.outputs[id] {
		slot := j.tasks[out.Task].slot
		a, ok := have[slot]
		if same := ok && a.SHA256 == out.SHA256 && a.Seed == out.Seed; same {
			v.looked("I23", 1)
			matched[slot] = true
			catalog, provider = catalog+cost(a), provider+out.Cost
			continue
		}
		if out.At.After(s.deadline) {
			continue // finished too late to be anybody's artifact
		}
		v.looked("I23", 1)
		switch {
		case !ok && v.expired(out, s, slot):
		case !ok:
			v.broken("I23", id, "", "slot %d: the provider made %s for task %s, and there is no artifact (%s)", slot, out.SHA256, out.Task, s.failed[slot])
		case !matched[slot] && len(outputsOf(j, id, slot)) == 1:
			v.broken("I23", id, "", "slot %d: the provider made %s with seed %s, the artifact is %s with seed %s", slot, out.SHA256, out.Seed, a.SHA256, a.Seed)
		}
	}
	for slot := range have {
		if !matched[slot] {
			v.broken("I23", id, "", "slot %d has an artifact that the provider's journal does not have", slot)
		}
	}
	v.looked("I24", 1)
	if catalog != provider {
		v.broken("I24", id, "", "its artifacts cost %s, the provider billed %s", strconv.FormatInt(catalog, 10), strconv.FormatInt(provider, 10))
	}
}

func outputsOf(j journalOf, id events.ID, slot int) []sim.Entry {
	var of []sim.Entry
	for _, e := range j.outputs[id] {
		if j.tasks[e.Task].slot == slot {
			of = append(of, e)
		}
	}
	return of
}

// expired says whether an output could not be had: the provider had stopped
// serving its file when the generation completed, and the log says so.
func (v *verifier) expired(out sim.Entry, s *subject, slot int) bool {
	code := s.failed[slot]
	return !out.Expires.IsZero() && out.Expires.Before(s.completedAt) &&
		(code == events.CodeFetchGone || code == events.CodeFetchFail)
}

func cost(a events.Artifact) int64 {
	if a.Cost == nil {
		return 0
	}
	return *a.Cost
}
