package verify

import (
	"context"
	"maps"
	"slices"
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
	made    map[string]sim.Entry      // the same, by task
	tasks   map[string]taskOf         // by whoever bought them
	rescued map[string]events.ID      // tasks of which a rescue has the artifact
}

func (v *verifier) readJournal() journalOf {
	j := journalOf{
		calls: map[events.ID]int{}, outputs: map[events.ID][]sim.Entry{}, made: map[string]sim.Entry{},
		tasks: map[string]taskOf{}, rescued: map[string]events.ID{},
	}
	for _, id := range v.log.order {
		s := v.log.subjects[id]
		for task, of := range s.tasks {
			switch {
			case s.rescues == "":
				j.tasks[task] = of
			case !slices.ContainsFunc(s.artifacts, func(a events.Artifact) bool { return a.ID == events.ArtifactID(id, of.slot) }):
			case j.rescued[task] != "":
				v.broken("I24", id, "", "task %s is the artifact of generation=%s too", task, j.rescued[task])
			default:
				j.rescued[task] = id
			}
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
				j.made[e.Task] = e
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
	for _, out := range j.of(id, s) {
		slot := s.tasks[out.Task].slot
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
		case !ok && v.expired(out, s, slot), !ok && s.rescues == "" && j.rescued[out.Task] != "":
		case !ok:
			v.broken("I23", id, "", "slot %d: the provider made %s for task %s, and there is no artifact (%s)", slot, out.SHA256, out.Task, s.failed[slot])
		case !matched[slot] && len(outputsOf(j, id, s, slot)) == 1:
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

// of is the good outputs of a generation's tasks, be they its own or adopted.
func (j journalOf) of(id events.ID, s *subject) []sim.Entry {
	if s.rescues == "" {
		return j.outputs[id]
	}
	var all []sim.Entry
	for _, task := range slices.Sorted(maps.Keys(s.tasks)) {
		if e, ok := j.made[task]; ok {
			all = append(all, e)
		}
	}
	return all
}

func outputsOf(j journalOf, id events.ID, s *subject, slot int) []sim.Entry {
	var of []sim.Entry
	for _, e := range j.of(id, s) {
		if s.tasks[e.Task].slot == slot {
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
