package orchestrator

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
)

// What the simulation has found, each by itself.

// TestAPlaceThatIsNotUsedKeepsNobodyWaiting: a generation whose deadline passed in
// line gets the place of the probe, and has no use for it. The next makes the probe
// then, not another one 30 s later.
func TestAPlaceThatIsNotUsedKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane("sim", nil, Limits{})
		if !l.enter() {
			t.Fatal("a new lane is shut")
		}
		l.leave(&provider.Error{Kind: provider.Account, Err: events.Error{Code: "credit", Class: events.Quota}})
		over, next := &entry{index: -1}, &entry{index: -1}
		l.join(over)
		l.join(next)
		if e, _ := l.next(); e != nil {
			t.Fatal("a provider in trouble is called")
		}
		time.Sleep(probeGap)
		if e, _ := l.next(); e != over {
			t.Fatal("there is no probe")
		}
		if e, _ := l.next(); e != nil {
			t.Fatal("there are two probes")
		}
		l.giveBack()
		if e, wait := l.next(); e != next {
			t.Errorf("the next one waits for %s, because the first had no use for its place", wait)
		}
	})
}

// failing is a log whose appends fail, as often as it is told.
type failing struct {
	ledger
	left int
}

func (f *failing) Append(_ context.Context, id events.ID, after stream.Head, at time.Time, evs ...events.Event) (events.Commit, stream.Head, error) {
	if f.left > 0 {
		f.left--
		return events.Commit{}, stream.Head{}, fmt.Errorf("%w: for a moment", stream.ErrFull)
	}
	head := stream.Head{Sequence: after.Sequence + 1, Version: after.Version + 1}
	return events.Commit{ID: id, Version: head.Version, Sequence: head.Sequence, Prev: after.Sequence, At: at, Events: evs}, head, nil
}

func (f *failing) Load(context.Context, events.ID) (events.Generation, stream.Head, error) {
	return events.Generation{}, stream.Head{}, stream.ErrNotFound
}

// TestOutcomesSurviveAnAppendThatFails: what came of a call is decided on again
// when the log takes appends again. It was forgotten, and with it that the call had
// ended: the generation then did nothing more before its deadline.
func TestOutcomesSurviveAnAppendThatFails(t *testing.T) {
	o := New(Config{Log: &stream.Log{}, Providers: []Instance{{Name: "sim"}}, Alone: true})
	log := &failing{}
	o.ledger, o.background = log, context.Background()
	o.goes = func(func()) {} // the test takes its place
	e := o.table.entry(storyID)
	r := events.Requested{ExpectedCount: 1, Deadline: time.Now().Add(time.Hour), Model: "m", Provider: "sim", Input: []byte(`{}`), Tasks: []string{events.TaskID(storyID, 0, 1)}}
	claim := events.Dispatching{Attempt: 1, By: o.life, Until: time.Now().Add(time.Minute), Tasks: []events.Task{{Slot: 0, Try: 1, ID: r.Tasks[0]}}}
	c, head, _ := log.Append(context.Background(), storyID, e.head, events.Now(), r, claim)
	e.fold(c, head)
	e.open.Calling = true
	e.inbox = []outcome{called{claim: claim, answer: provider.Answer{Accepted: r.Tasks}}}

	log.left = 1
	o.activate(e)
	o.advance(e)
	if !e.open.Calling || e.open.Slots[0].Accepted {
		t.Fatal("the append did not fail")
	}
	o.activate(e) // a second later
	o.advance(e)
	if e.open.Calling || !e.open.Slots[0].Accepted {
		t.Error("the answer to the call is forgotten")
	}
}

// TestWhoStartsLooksAtOnce: with several orchestrators each waits for the others to
// act. One that starts may be the only one, and what it finds open in nobody's hands.
func TestWhoStartsLooksAtOnce(t *testing.T) {
	o := New(Config{Log: &stream.Log{}, Providers: []Instance{{Name: "sim"}}})
	log := &failing{}
	o.ledger, o.background, o.scanned = log, context.Background(), 1
	now := events.Now()
	o.recovered = now
	e := o.table.entry(storyID)
	r := events.Requested{ExpectedCount: 1, Deadline: now.Add(20 * time.Second), Model: "m", Provider: "sim", Input: []byte(`{}`), Tasks: []string{events.TaskID(storyID, 0, 1)}}
	c, head, _ := log.Append(context.Background(), storyID, e.head, now, r)
	e.fold(c, head)
	e.show()
	o.watch(e, now)
	if e.at.After(now) {
		t.Errorf("it looks again %s later", e.at.Sub(now))
	}
	before := e.at
	e.watched, o.recovered = false, now.Add(11*time.Second)
	o.watch(e, o.recovered) // the one before it may have died with the look that it was given
	if e.at.Equal(before) || e.at.After(o.recovered) {
		t.Errorf("the next one asks for the look of %s, as the one before it, or later", e.at.Sub(now))
	}
	o.watch(e, now) // it has asked for a look
	if wait := e.at.Sub(now); wait != 20*time.Second {
		t.Errorf("then it looks again %s later, want at the deadline", wait)
	}
}

// TestAnOldAnswerIsNoWordAboutALaterCall: two orchestrators, one of which has asked
// while the other was still calling. The call was answered, with nothing about this
// task; that the provider did not know it before must not have it bought again.
func TestAnOldAnswerIsNoWordAboutALaterCall(t *testing.T) {
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	task := events.TaskID(storyID, 0, 1)
	e := &entry{id: storyID, index: -1}
	e.open.Rules = Rules{Life: "us", MaxTries: 2}
	for i, ev := range []events.Event{
		events.Requested{ExpectedCount: 1, Deadline: start.Add(time.Hour), Tasks: []string{task}},
		events.Dispatching{Attempt: 1, By: "them", Until: start.Add(35 * time.Second), Tasks: []events.Task{{Slot: 0, Try: 1, ID: task}}},
		events.Dispatched{Attempt: 1},
	} {
		n := uint64(i + 1)
		e.fold(events.Commit{ID: storyID, Version: n, Sequence: n, At: start.Add(time.Duration(i) * time.Second), Events: []events.Event{ev}}, stream.Head{Sequence: n, Version: n})
	}
	for asked, want := range map[time.Duration]int{1500 * time.Millisecond: 0, 2500 * time.Millisecond: 1} {
		open := e.open
		p := polled{tasks: []string{task}, asked: start.Add(asked), answer: provider.Answer{Unknown: []string{task}}}
		if evs := p.apply(&open, start.Add(3*time.Second)); len(evs) != want {
			t.Errorf("asked after %s, answered at 2s: %d events, want %d", asked, len(evs), want)
		}
	}
}

// away is a log that takes its time.
type away struct {
	failing
	wait time.Duration
}

func (a *away) Append(ctx context.Context, id events.ID, after stream.Head, at time.Time, evs ...events.Event) (events.Commit, stream.Head, error) {
	time.Sleep(a.wait)
	return a.failing.Append(ctx, id, after, at, evs...)
}

func (a *away) Announce(context.Context, events.ID, uint64) error { return nil }

// TestALogThatWasAwayIsNoReasonToGiveUp: an append that began before the deadline ends
// long after it, because the log had no leader. The provider is asked all the same what
// it has finished: it was paid for. Found by cutting the log's leader off in silence.
func TestALogThatWasAwayIsNoReasonToGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := New(Config{Log: &stream.Log{}, Providers: []Instance{{Name: "sim"}}})
		log := &away{}
		o.ledger, o.background = log, context.Background()
		o.goes = func(func()) {} // the test takes its place
		e := o.table.entry(storyID)
		r := events.Requested{ExpectedCount: 1, Deadline: time.Now().Add(10 * time.Second), Model: "m", Provider: "sim", Input: []byte(`{}`), Tasks: []string{events.TaskID(storyID, 0, 1)}}
		claim := events.Dispatching{Attempt: 1, By: o.life, Until: time.Now().Add(time.Minute), Tasks: []events.Task{{Slot: 0, Try: 1, ID: r.Tasks[0]}}}
		c, head, _ := log.Append(context.Background(), storyID, e.head, events.Now(), r, claim)
		e.fold(c, head)
		e.open.Calling = true
		e.inbox = []outcome{called{claim: claim, answer: provider.Answer{Accepted: r.Tasks}}}

		log.wait = 40 * time.Second
		o.activate(e)
		o.advance(e)
		log.wait = 0
		o.activate(e) // its time has come
		o.advance(e)
		if e.open.Slots[0].Ended || !e.open.Polling {
			t.Fatalf("the provider is not asked: %+v", e.open.Outputs)
		}
		time.Sleep(Grace) // it does not answer
		e.open.Polling = false
		o.activate(e)
		o.advance(e)
		if !e.open.Done() {
			t.Error("the generation is open for ever")
		}
	})
}
