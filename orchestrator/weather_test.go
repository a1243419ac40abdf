package orchestrator

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// TestNothingIsBoughtTwiceAndNoPictureIsLost drives decide through bad weather
// of every kind for half of a generation's time, thousands of times, against a
// provider that keeps a journal. A seed that fails is a story to be written.
func TestNothingIsBoughtTwiceAndNoPictureIsLost(t *testing.T) {
	seeds := uint64(4000)
	if testing.Short() {
		seeds = 400
	}
	artifacts, failures, restarts := 0, 0, 0
	for seed := range seeds {
		s := newSky(t, seed)
		s.run()
		for _, problem := range s.judge() {
			t.Errorf("seed %d: %s", seed, problem)
		}
		if t.Failed() {
			t.Fatalf("seed %d: what happened:\n%s", seed, s.diary)
		}
		n := s.entry.open.ArtifactCount()
		artifacts, failures, restarts = artifacts+n, failures+s.entry.open.ExpectedCount-n, restarts+s.life
	}
	t.Logf("%d generations: %d artifacts, %d failed outputs, %d restarts", seeds, artifacts, failures, restarts)
	if artifacts < int(seeds) || failures < int(seeds)/20 || restarts < int(seeds)/4 {
		t.Error("the weather was not what it should be")
	}
}

// sky is a world in which things happen by themselves.
type sky struct {
	*world
	rng      *rand.Rand
	calm     time.Time // from then on nothing goes wrong
	deadline time.Time
	life     int // restarts so far
	down     bool
	unlucky  bool // the last question has failed once
	due      []happening
	made     map[string]*made // the provider's journal
	refused  map[string]bool
	doubled  []string // tasks that were sent although the provider had them
	diary    string
}

// happening is something that will happen; if it is in our process, only if
// that lives until then.
type happening struct {
	at   time.Time
	life int // -1: not in our process
	do   func()
}

// made is one task that the provider has taken.
type made struct {
	ready   time.Time
	failure *events.Error // nil: it is a picture
	address int           // how many URLs it has been given
	expires time.Time     // of the last
}

func newSky(t *testing.T, seed uint64) *sky {
	s := &sky{world: newWorld(t), rng: rand.New(rand.NewPCG(seed, 7)), made: map[string]*made{}, refused: map[string]bool{}}
	s.deadline, s.calm = s.start.Add(5*time.Minute), s.start.Add(150*time.Second)
	s.entry.open.Rules.Webhooks = s.chance(50)
	s.request(1+s.rng.IntN(3), 5*time.Minute)
	s.plan(s.start, 0, func() {})
	for s.chance(40) {
		s.plan(s.start.Add(s.upto(150*time.Second)), -1, func() { s.kill(0) })
	}
	if s.chance(15) { // nothing runs when the deadline passes
		s.plan(s.start.Add(s.upto(100*time.Second)), -1, func() { s.kill(s.deadline.Sub(s.now) + s.upto(time.Hour)) })
	}
	return s
}

// kill ends the process; another life begins after a while.
func (s *sky) kill(after time.Duration) {
	s.note("killed")
	s.life++
	s.down = true
	for i := range s.due { // what was sent arrives within a moment, or never
		if s.due[i].life == arriving && s.due[i].at.After(s.now.Add(2*time.Second)) {
			s.due[i].at = s.now.Add(s.upto(2 * time.Second))
		}
	}
	s.plan(s.now.Add(after), s.life, func() {
		s.note("started")
		s.down = false
		s.restart(true)
	})
}

const arriving = -2 // the life of a request on its way to the provider

func (s *sky) chance(percent int) bool             { return s.rng.IntN(100) < percent }
func (s *sky) bad(percent int) bool                { return s.now.Before(s.calm) && s.chance(percent) }
func (s *sky) upto(d time.Duration) time.Duration  { return time.Duration(s.rng.Int64N(int64(d))) }
func (s *sky) note(what ...any)                    { s.diary += s.at(s.now) + " " + fmt.Sprintln(what...) }
func (s *sky) later(d time.Duration, do func())    { s.plan(s.now.Add(s.upto(d)), s.life, do) }
func (s *sky) plan(at time.Time, l int, do func()) { s.due = append(s.due, happening{at, l, do}) }

// run lets everything happen in order of time, and decides after each.
func (s *sky) run() {
	for len(s.due) > 0 && len(s.diary) < 1<<20 {
		first := 0
		for i, h := range s.due {
			if h.at.Before(s.due[first].at) {
				first = i
			}
		}
		h := s.due[first]
		s.due = slices.Delete(s.due, first, first+1)
		if h.life >= 0 && h.life != s.life {
			continue
		}
		s.now = h.at
		h.do()
		s.turn()
	}
}

// turn is one round of the shell.
func (s *sky) turn() {
	if s.down || s.entry.open.Done() {
		s.inbox = nil
		return
	}
	evs, steps := decide(&s.entry.open, s.inbox, s.now)
	s.inbox = nil
	for _, e := range evs {
		s.note("log:", s.event(e))
	}
	if len(evs) > 0 {
		s.commit(evs...)
	}
	s.steps = steps
	for _, step := range steps {
		if _, wait := step.(Wait); !wait {
			s.note("next:", s.step(step))
		}
		switch step := step.(type) {
		case Dispatch:
			s.hear("claim by=us")
			s.entry.open.Calling = true
			s.create(s.call)
		case Poll:
			s.entry.open.Polling = true
			s.later(900*time.Millisecond, func() { s.inbox = append(s.inbox, s.look(step)) })
		case Fetch:
			s.entry.open.Fetches[step.Slot].Busy = true
			s.later(2*time.Second, func() { s.inbox = append(s.inbox, s.download(step)) })
		case Wait:
			s.plan(step.Until, s.life, func() {})
		}
	}
}

// create makes the call of a claim: whether it arrives, and whether we are told,
// are two things.
func (s *sky) create(claim events.Dispatching) {
	out := called{claim: claim, answer: provider.Answer{Refused: map[string]provider.ErrorOnce{}, Declined: map[string]provider.ErrorOnce{}}}
	arrives := true
	end := s.upto(5 * time.Second)
	switch {
	case s.bad(15):
		out.err = s.failure([]string{"ambiguous"})
		arrives = s.chance(60)
		if s.chance(30) {
			end = callTimeout
		}
	case s.bad(10):
		out.err, arrives = s.failure([]string{"busy", "7s"}), false
	case s.bad(10):
		out.err, arrives = s.failure([]string{"unreachable"}), false
	case s.bad(5):
		out.err, arrives = s.failure([]string{"account"}), false
	}
	var taken []string
	for _, t := range claim.Tasks {
		switch {
		case out.err != nil || s.made[t.ID] != nil || !s.bad(25):
			taken = append(taken, t.ID)
			if !s.bad(10) { // or nothing is said about it
				out.answer.Accepted = append(out.answer.Accepted, t.ID)
			}
		case s.chance(20):
			s.refused[t.ID] = true
			out.answer.Refused[t.ID] = provider.ErrorOnce{Error: events.Error{Code: "refused"}}
		default:
			out.answer.Declined[t.ID] = provider.ErrorOnce{After: s.upto(10 * time.Second)}
		}
	}
	if arrives {
		at := s.now.Add(s.upto(end))
		if out.err != nil { // it may still be on its way when we are told that it failed
			at = s.now.Add(s.upto(end + 2*time.Second))
		}
		s.plan(at, arriving, func() { s.take(taken) })
	}
	s.plan(s.now.Add(end), s.life, func() { s.inbox = append(s.inbox, out) })
}

// take is the provider's side of a create call.
func (s *sky) take(tasks []string) {
	for _, task := range tasks {
		if s.made[task] != nil {
			s.doubled = append(s.doubled, s.name(task))
			continue
		}
		m := &made{ready: s.now.Add(s.upto(20 * time.Second))}
		switch {
		case s.chance(15):
			m.failure = &events.Error{Code: "server", Class: events.Server}
		case s.chance(5):
			m.failure = &events.Error{Code: "safety", Class: events.Safety}
		}
		s.made[task] = m
		s.note("taken:", s.name(task), "ready", s.at(m.ready), "failure", m.failure != nil)
		for s.entry.open.Rules.Webhooks && s.chance(70) { // or lost; and again, now and then
			at := m.ready.Add(s.upto(time.Second))
			if s.chance(20) {
				at = at.Add(s.upto(time.Minute))
			}
			s.plan(at, -1, func() {
				if !s.entry.open.Done() {
					s.note("webhook", s.name(task))
					s.commit(events.Delivered{Source: events.FromWebhook, Results: []events.Result{s.result(task)}})
				}
			})
			if s.chance(60) {
				break
			}
		}
	}
}

// result is what the provider says of a task that is ready. A URL lasts for 5 s,
// and whoever asks after that is given another.
func (s *sky) result(task string) events.Result {
	m := s.made[task]
	if m.failure != nil {
		return events.Result{Task: task, Error: m.failure}
	}
	if s.now.After(m.expires) {
		m.address++
		m.expires = s.now.Add(5 * time.Second)
	}
	return events.Result{Task: task, URL: fmt.Sprintf("https://cdn/%s/%d", task, m.address)}
}

func (s *sky) look(p Poll) polled {
	out := polled{tasks: p.Tasks, asked: s.now, last: p.Last}
	if s.bad(15) || p.Last && !s.unlucky && s.chance(40) {
		s.unlucky = s.unlucky || p.Last
		out.err = errors.New("no answer")
		return out
	}
	d := events.Delivered{Source: events.FromPoll}
	for _, task := range p.Tasks {
		switch m := s.made[task]; {
		case m == nil:
			out.answer.Unknown = append(out.answer.Unknown, task)
		case s.now.Before(m.ready):
			if !s.bad(20) {
				out.answer.Accepted = append(out.answer.Accepted, task)
			}
		default:
			d.Results = append(d.Results, s.result(task))
			out.answer.Results = append(out.answer.Results, provider.Result{Task: task})
		}
	}
	if len(d.Results) > 0 {
		out.delivered = &d
	}
	return out
}

func (s *sky) download(f Fetch) fetched {
	out := fetched{slot: f.Slot, result: f.Result}
	m := s.made[f.Result.Task]
	switch {
	case s.bad(20):
		out.err = &blob.FetchError{Err: errBroken}
	case s.bad(5):
		out.err = errors.New("the bucket is down")
	case s.now.After(m.expires) || f.Result.URL != fmt.Sprintf("https://cdn/%s/%d", f.Result.Task, m.address):
		out.err = &blob.FetchError{Code: events.CodeFetchGone, Err: errBroken}
	default:
		out.file = events.File{BlobKey: f.Result.Task}
	}
	return out
}

// judge holds the log against the provider's journal.
func (s *sky) judge() (problems []string) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	g := s.entry.open.Generation
	if !g.Done() {
		add("it never completed")
		return problems
	}
	if late := g.CompletedAt.Sub(s.entry.open.end()); late > 0 {
		add("completed %s after it had to", late)
	}
	for _, task := range s.doubled {
		add("I14: task %s was sent although the provider had it", task)
	}
	for slot, o := range g.Outputs {
		good, bad, open := 0, 0, 0
		for try := 1; try <= events.MaxTries; try++ {
			task := events.TaskID(storyID, slot, try)
			switch m := s.made[task]; {
			case m == nil:
				if s.refused[task] {
					bad++
				}
			case !m.ready.Before(s.deadline):
				open++
			case m.failure == nil:
				good++
			default:
				bad++
			}
		}
		switch {
		case good > 1:
			add("I24: slot %d was bought %d times", slot, good)
		case good == 1 && o.Artifact == nil:
			add("I23: the picture of slot %d is lost: %s", slot, o.Error.Code)
		case good == 0 && o.Artifact != nil:
			add("slot %d has an artifact that nobody made", slot)
		case good+bad+open == 0 && s.entry.open.Since.Before(s.deadline): // a process ran all the time
			add("slot %d was never sent", slot)
		case bad > 2:
			add("slot %d was tried %d times", slot, bad)
		}
	}
	return problems
}
