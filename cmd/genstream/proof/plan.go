package proof

import (
	"cmp"
	"slices"
	"time"
)

// enough is what a run is given at least, if there are others to wait for.
const enough = time.Minute

// inARow is how many minutes a fuzz target is given at most before the next one's
// turn: each start tries all that is in its corpus again.
const inARow = 5

// Step is one run to come.
type Step struct {
	Sum
	From  int64         // its first case, or its target
	Cases int64         // at most: what is missing from the goal, or as many again if nothing is
	For   time.Duration // its share of the time
}

// Order is the kinds that are to run, those furthest from their goal first, equals
// in the order given. A kind that has reached its goal is run only if insist.
func Order(sums []Sum, insist bool) []Sum {
	var todo []Sum
	for _, s := range sums {
		if !s.Reached() || insist {
			todo = append(todo, s)
		}
	}
	slices.SortStableFunc(todo, func(a, b Sum) int { return cmp.Compare(a.part(), b.part()) })
	return todo
}

// part is how much of its goal is reached: 1 = all.
func (s Sum) part() float64 {
	if s.Goal == 0 {
		return 1
	}
	return float64(s.Here) / float64(s.Goal)
}

// Plan is the next run of what Order gave: the first of it, with an equal share of
// the time left, but not less than a minute, or than a case takes. It reports false
// if there is nothing to run, or no time for it.
func Plan(todo []Sum, left time.Duration) (Step, bool) {
	if len(todo) == 0 || left < max(todo[0].Least, time.Second) {
		return Step{}, false
	}
	s := todo[0]
	share := max(left/time.Duration(len(todo)), enough, s.Least)
	step := Step{Sum: s, From: s.Next, Cases: s.Goal - s.Here, For: min(share, left)}
	if s.Name == Fuzz {
		minutes := int64(inARow)
		if missing := each - s.Minutes[s.Next]; missing > 0 {
			minutes = min(minutes, missing)
		}
		step.For = min(step.For.Truncate(time.Minute), time.Duration(minutes)*time.Minute)
		step.Cases = int64(step.For / time.Minute)
	}
	if step.Cases <= 0 {
		step.Cases = s.Goal
	}
	return step, true
}
