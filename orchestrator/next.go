package orchestrator

import (
	"cmp"
	"time"

	"github.com/genstream/genstream/events"
)

// Open is an open generation as one process sees it: what the log says, and what
// the process remembers beyond that.
type Open struct {
	events.Generation
	Memory
	Rules Rules
}

// Rules are the fixed choices that Next decides by.
type Rules struct {
	Life     string // this process life; a claim by another life is not ours
	Webhooks bool   // results are expected by webhook; polls only find what got lost
	MaxTries int    // of one slot; 2 = one retry after a retryable failure

	// PollAfter is how long a webhook is waited for before the first question;
	// zero = 15 s. Questions after that come at gaps that grow to a minute.
	PollAfter time.Duration
}

// Memory is what a process knows of an open generation and may forget at any
// time: the generation then takes a little longer, and nothing else changes.
type Memory struct {
	Calling   bool                  // our create call for the present claim is under way
	Polling   bool                  // so is a question to the provider
	Polls     int                   // questions since the last claim
	PolledAt  time.Time             // when the last one was asked; at first, the time of the claim
	Believe   time.Time             // from when on "unknown task" is believed; zero = the unanswered claim's Until
	Since     time.Time             // from when on this process could act: it took the generation up, or the log was back; a deadline that had passed by then is followed by the grace all the same
	LastPoll  bool                  // the last question, at the deadline, was answered
	LastAgain time.Time             // it failed, and is not asked again before
	Lost      [events.MaxCount]bool // the provider took the task, and said later that it knows none such
	Fetches   [events.MaxCount]Fetching
}

// Fetching is how far the download of one slot's file is.
type Fetching struct {
	Busy  bool
	Tries int
	Again time.Time     // not before
	Gone  bool          // the file cannot be had at this URL any more
	Early bool          // the question under way was asked before that was known
	Asked bool          // the provider was asked since then for a new one
	Error *events.Error // of the last try
}

// Step is one thing to do next.
type Step interface{ step() }

type (
	// Append commits events that need no I/O.
	Append struct{ Events []events.Event }
	// Dispatch claims the tasks and makes one create call for them.
	Dispatch struct{ Tasks []events.Task }
	// Poll asks the provider what became of the tasks.
	Poll struct {
		Tasks []string
		Last  bool // nothing is asked after this but for new addresses of files that are gone
	}
	// Fetch downloads a slot's file into the bucket.
	Fetch struct {
		Slot   int
		Result events.Result
	}
	// Wait does nothing before the time, unless a commit comes first.
	Wait struct{ Until time.Time }
)

func (Append) step()   {}
func (Dispatch) step() {}
func (Poll) step()     {}
func (Fetch) step()    {}
func (Wait) step()     {}

// Grace is what is left after the deadline for the last question and for
// downloads under way; by then the generation completes with what there is.
const Grace = 10 * time.Second

// goneTries is how often a file is asked for whose address is said to hold
// nothing, and to which the provider knows no other: an address is sometimes told
// before the file can be had there, and the picture is paid for.
const goneTries = 5

// lastGap is the pause after a last question that failed.
const lastGap = 2 * time.Second

// end is when the generation completes with what there is. A process that comes
// late, because none ran or the log was away when the deadline passed, still asks and
// downloads: what the provider finished was paid for.
func (o *Open) end() time.Time {
	if o.Since.After(o.Deadline) {
		return o.Since.Add(Grace)
	}
	return o.Deadline.Add(Grace)
}

// rescue says whether the generation only adopts tasks of another. Its one question
// is the last one, whenever it is answered.
func (o *Open) rescue() bool { return o.Rescues != "" }

// Next is the only place that decides. It is pure: what it says depends on its
// arguments alone, so that every process, before and after any crash, comes to
// the same decision. Append comes alone: its events change what comes next.
func Next(o Open, now time.Time) []Step { return next(&o, now) }

// next is Next, for whoever keeps o from changing: it only reads it.
func next(o *Open, now time.Time) []Step {
	if !o.Requested() || o.Done() {
		return nil
	}
	if evs := settled(o, now); len(evs) > 0 {
		return []Step{Append{evs}}
	}
	if o.Ended() {
		return []Step{Append{[]events.Event{Complete(o.Generation, now)}}}
	}
	d := decision{o: o, now: now, wake: o.Deadline}
	if d.overdue() {
		d.wake = o.end()
	}
	d.fetches()
	d.dispatch()
	d.poll()
	if d.wake.After(now) {
		d.steps = append(d.steps, Wait{d.wake})
	}
	return d.steps
}

// settled is every slot whose end needs no I/O any more.
func settled(o *Open, now time.Time) []events.Event {
	var evs []events.Event
	overdue := !now.Before(o.Deadline)
	late := !now.Before(o.end())
	for i, s := range o.Slots {
		fail := func(e events.Error) { evs = append(evs, events.OutputFailed{Slot: i, Error: e}) }
		f := o.Fetches[i]
		switch {
		case s.Ended:
		case s.Result != nil && s.Result.File != nil:
			evs = append(evs, events.OutputSucceeded{Slot: i, Artifact: Artifact(o.ID, i, *s.Result, *s.Result.File, now)})
		case s.Result != nil:
			switch {
			case f.Gone && f.Asked && f.Tries >= goneTries && f.Error != nil:
				fail(*f.Error)
			case late && f.Error != nil:
				fail(*f.Error)
			case late:
				fail(events.Error{Code: events.CodeFetchFail, Message: "the file could not be downloaded before the deadline", Class: events.Timeout})
			}
		case s.Failure != nil:
			if !retried(s, o.Rules) || overdue || o.rescue() {
				fail(*s.Failure)
			}
		case overdue && (!s.Claimed || o.LastPoll || late), o.rescue() && o.LastPoll:
			fail(missed(o, i))
		}
	}
	return evs
}

// retried says whether a failed slot gets another try. Errors about the account
// fail nothing: the lane waits until it is mended.
func retried(s events.Slot, r Rules) bool {
	return s.Failure.Class.Retryable() && s.Try < r.MaxTries || s.Failure.Class.Account() && s.Try < events.MaxTries
}

// missed is the error of a slot that has nothing when the deadline passes, or when
// there is nothing to be rescued.
func missed(o *Open, slot int) events.Error {
	s, lost := o.Slots[slot], o.Lost[slot]
	e := events.Error{Code: events.CodeDeadline, Class: events.Timeout}
	switch {
	case lost && o.rescue():
		e.Code, e.Message = events.CodeLost, "the provider knew no such task when it was asked"
	case lost:
		e.Code, e.Message = events.CodeLost, "the provider had taken the task, and knew no such task when it was asked before the deadline"
	case o.rescue() && o.LastPoll:
		e.Message = "the provider had not finished this output when it was asked"
	case o.rescue():
		e.Message = "the deadline passed before the provider could be asked"
	case s.Declined != nil:
		e.Message = events.Cut("the deadline passed while the provider could not take the task: "+s.Declined.Code+": "+s.Declined.Message, events.MaxNote)
	case s.Claimed:
		e.Message = "the deadline passed before the provider delivered this output"
	default:
		e.Message = "the deadline passed before the provider could be asked"
	}
	return e
}

// decision collects steps, and the time at which to look again.
type decision struct {
	o     *Open // read only
	now   time.Time
	steps []Step
	wake  time.Time
}

func (d *decision) overdue() bool { return !d.now.Before(d.o.Deadline) }

// at asks to be woken at t, and says whether that is now.
func (d *decision) at(t time.Time) bool {
	if !t.After(d.now) {
		return true
	}
	if t.Before(d.wake) {
		d.wake = t
	}
	return false
}

func (d *decision) fetches() {
	for i, s := range d.o.Slots {
		f := d.o.Fetches[i]
		if s.Ended || s.Result == nil || f.Busy || f.Gone && !f.Asked || !d.at(f.Again) {
			continue
		}
		d.steps = append(d.steps, Fetch{Slot: i, Result: *s.Result})
	}
}

// dispatch asks for every slot that nobody was asked for, and for another try of
// those that failed in a way that may pass. One claim is open at a time, and one
// call under way, also when deliveries have answered its claim before it did. A
// rescue asks for nothing: it would buy again what may be there.
func (d *decision) dispatch() {
	if d.o.Claim != nil || d.o.Calling || d.overdue() || d.o.rescue() {
		return
	}
	var tasks []events.Task
	for i, s := range d.o.Slots {
		switch {
		case s.Ended || s.Result != nil:
		case s.Failure != nil: // settled has ended those that get no further try
			tasks = append(tasks, events.Task{Slot: i, Try: s.Try + 1, ID: events.TaskID(d.o.ID, i, s.Try+1)})
		case !s.Claimed && d.at(s.Again):
			// The same try again: the provider has definitely not taken it, and if
			// that was wrong after all, it knows the task ID.
			tasks = append(tasks, events.Task{Slot: i, Try: s.Try, ID: s.Task})
		}
	}
	if len(tasks) > 0 {
		d.steps = append(d.steps, Dispatch{tasks})
	}
}

// poll asks about tasks that the provider has, or may have. Whoever finds a
// claim that nobody is working on asks at once: its call may have been made.
func (d *decision) poll() {
	tasks, fresh := d.asked()
	if len(tasks) == 0 || d.o.Polling || d.o.Calling && !d.overdue() {
		return
	}
	switch {
	case d.overdue(), d.o.rescue():
		// Once it is answered only files that are gone are left to ask about.
		if d.at(d.o.LastAgain) && (!d.o.LastPoll || fresh && d.at(d.o.PolledAt.Add(time.Second))) {
			d.steps = append(d.steps, Poll{Tasks: tasks, Last: true})
		}
	case fresh && d.at(d.o.PolledAt.Add(time.Second)) || d.at(d.nextPoll()):
		d.steps = append(d.steps, Poll{Tasks: tasks})
	}
}

// asked is the tasks to ask about, and whether one of them needs a new URL now.
func (d *decision) asked() (tasks []string, fresh bool) {
	for i, s := range d.o.Slots {
		f := d.o.Fetches[i]
		switch {
		case s.Ended:
		case s.Result != nil:
			if f.Gone && !f.Asked {
				tasks, fresh = append(tasks, s.Result.Task), true
			}
		case s.Claimed && s.Failure == nil:
			tasks = append(tasks, s.Task)
		}
	}
	return tasks, fresh
}

// nextPoll is when to ask next. Gaps grow by half from 1 s to 10 s (Runware's own
// SDK asks like that), and from 15 s to 60 s where webhooks are expected.
func (d *decision) nextPoll() time.Time {
	first, most := time.Second, 10*time.Second
	if d.o.Rules.Webhooks {
		first, most = cmp.Or(d.o.Rules.PollAfter, 15*time.Second), time.Minute
	}
	if c := d.o.Claim; c != nil { // nobody is working on it: was the call made?
		if c.By != d.o.Rules.Life && d.now.Before(c.Until) && d.o.Believe.IsZero() {
			return c.Until // its owner may still be calling
		}
		if d.o.Polls == 0 {
			return d.now
		}
		first, most = time.Second, 10*time.Second
	}
	gap := first
	for range d.o.Polls {
		gap = min(gap*3/2, most)
	}
	return d.o.PolledAt.Add(gap)
}

// Definite is from when on the provider's "unknown task" is believed: when the call
// of the last claim cannot be under way any more, or its answer was noted. To a
// question that was asked before that the call may just have been unknown.
func (o *Open) Definite() time.Time {
	if !o.Believe.IsZero() || o.Claim == nil {
		return o.Believe
	}
	return o.Claim.Until
}

// Artifact is the artifact of a good result whose file is in the bucket.
func Artifact(id events.ID, slot int, r events.Result, f events.File, at time.Time) events.Artifact {
	return events.Artifact{
		ID: events.ArtifactID(id, slot), File: f,
		Seed: r.Seed, Cost: r.Cost, Metadata: r.Metadata, CreatedAt: at,
	}
}

// Complete is the last event of a generation whose slots have all ended: with an
// error exactly if there is no artifact, and with the whole folded record.
func Complete(g events.Generation, at time.Time) events.Completed {
	var failed *events.Error
	if g.ArtifactCount() == 0 {
		failed = g.Outputs[0].Error
	}
	g.At = at
	return events.Completed{Error: failed, Generation: events.Apply(g, events.Completed{Error: failed})}
}
