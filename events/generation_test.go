package events_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

// asked is generation fox, with n outputs expected and nothing sent yet.
func asked(n int) events.Generation {
	r := events.Requested{
		Model: "runware:101@1", Input: json.RawMessage(`{"positivePrompt":"a red fox"}`), ExpectedCount: n,
		Provider: "sim", Deadline: noon.Add(10 * time.Minute), Digest: events.Digest([]byte("request")),
	}
	for slot := range n {
		r.Tasks = append(r.Tasks, events.TaskID(fox, slot, 1))
	}
	return events.Apply(events.Generation{ID: fox, At: noon}, r)
}

// claimed is asked, with one claim for the first try of every slot.
func claimed(n int) events.Generation { return fold(asked(n), claim(1, 1, slots(n)...)) }

func slots(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func claim(attempt, try int, of ...int) events.Dispatching {
	e := events.Dispatching{Attempt: attempt, By: "life", Until: noon.Add(35 * time.Second)}
	for _, slot := range of {
		e.Tasks = append(e.Tasks, events.Task{Slot: slot, Try: try, ID: events.TaskID(fox, slot, try)})
	}
	return e
}

func good(slot, try int, url string) events.Event {
	return delivered(events.Result{Task: events.TaskID(fox, slot, try), URL: url})
}

func bad(slot, try int) events.Event {
	return delivered(events.Result{Task: events.TaskID(fox, slot, try), Error: &events.Error{Code: "inference", Class: events.Inference}})
}

func filed(slot, try int, key string) events.Event {
	return delivered(events.Result{Task: events.TaskID(fox, slot, try), File: &events.File{BlobKey: key}})
}

func delivered(results ...events.Result) events.Event {
	return events.Delivered{Source: events.FromWebhook, Results: results}
}

func succeeded(slot int) events.Event {
	return events.OutputSucceeded{Slot: slot, Artifact: events.Artifact{ID: events.ArtifactID(fox, slot), CreatedAt: noon}}
}

func failed(slot int) events.Event {
	return events.OutputFailed{Slot: slot, Error: events.Error{Code: "late"}}
}

func fold(g events.Generation, evs ...events.Event) events.Generation {
	for _, e := range evs {
		g = events.Apply(g, e)
	}
	return g
}

// snapshot is everything in g, as a text that later changes cannot reach.
func snapshot(g events.Generation) string {
	body, err := json.Marshal(struct {
		G        events.Generation
		At       time.Time
		Attempts int
		Claim    *events.Dispatching
		Slots    []events.Slot
	}{g, g.At, g.Attempts, g.Claim, g.Slots})
	if err != nil {
		panic(err)
	}
	return string(body)
}

func TestRequestedIsThePromise(t *testing.T) {
	g := asked(3)
	if !g.Requested() || g.Done() || g.Ended() || g.ArtifactCount() != 0 || len(g.Outputs) != 3 || len(g.Slots) != 3 {
		t.Fatalf("fold is %s", snapshot(g))
	}
	if g.CreatedAt != noon || g.Deadline != noon.Add(10*time.Minute) {
		t.Errorf("created %v, deadline %v", g.CreatedAt, g.Deadline)
	}
	for i, s := range g.Slots {
		if want := (events.Slot{Try: 1, Task: events.TaskID(fox, i, 1)}); !reflect.DeepEqual(s, want) || g.Outputs[i].Slot != i {
			t.Errorf("slot %d is %+v", i, s)
		}
	}
}

func TestWhatHasNoPlaceChangesNothing(t *testing.T) {
	first := events.Requested{ExpectedCount: 1, Tasks: []string{"another"}, Model: "other"}
	many := events.Requested{ExpectedCount: events.MaxCount + 1, Tasks: make([]string, events.MaxCount+1)}
	nothing := events.Generation{ID: fox, At: noon}
	ended := fold(claimed(2), succeeded(0))
	for _, c := range []struct {
		name string
		g    events.Generation
		e    events.Event
	}{
		{"a second request", claimed(2), first},
		{"a request for nothing", nothing, events.Requested{}},
		{"a request for too many", nothing, many},
		{"a request whose tasks do not fit its count", nothing, events.Requested{ExpectedCount: 2, Tasks: []string{"a"}}},
		{"a claim before the request", nothing, claim(1, 1, 0)},
		{"an answer before the request", nothing, events.Dispatched{Attempt: 1, Accepted: []int{0}}},
		{"a delivery before the request", nothing, good(0, 1, "u")},
		{"an output before the request", nothing, succeeded(0)},
		{"a completion before the request", nothing, events.Completed{}},
		{"a delivery for somebody else's task", claimed(2), delivered(events.Result{Task: "7c9e6679-7425-40de-944b-e07fc1f90ae7", URL: "u"})},
		{"a delivery for no task", claimed(2), delivered(events.Result{URL: "u"})},
		{"an empty delivery", claimed(2), delivered()},
		{"a delivery for a try that was never claimed", claimed(2), good(0, 2, "u")},
		{"a delivery for a slot that is not there", claimed(2), good(2, 1, "u")},
		{"a late success", ended, good(0, 1, "u")},
		{"a late failure", ended, bad(0, 1)},
		{"a second end, good", ended, succeeded(0)},
		{"a second end, bad", ended, failed(0)},
		{"the end of a slot below the first", ended, failed(-1)},
		{"the end of a slot above the last", ended, succeeded(2)},
		{"an answer about slots that are not there", claimed(2), events.Dispatched{Attempt: 9, Accepted: []int{-1, 2, 99}, Declined: []events.Declined{{Slot: -1}, {Slot: 2}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := snapshot(c.g)
			if after := snapshot(events.Apply(c.g, c.e)); after != before {
				t.Errorf("fold was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

func TestNothingFollowsCompleted(t *testing.T) {
	g := fold(claimed(2), failed(0), good(1, 1, "u"), succeeded(1), events.Completed{})
	if !g.Done() || g.Slots != nil || g.Claim != nil || g.ArtifactCount() != 1 {
		t.Fatalf("fold is %s", snapshot(g))
	}
	before := snapshot(g)
	g.At = g.At.Add(time.Hour)
	for _, e := range append(examples(), good(0, 1, "u"), bad(1, 1), succeeded(0), failed(1), claim(2, 2, 0)) {
		after := events.Apply(g, e)
		if after.At = noon; snapshot(after) != before {
			t.Errorf("%s after completed changes it to\n%s", e.Type(), snapshot(after))
		}
	}
}

// TestDeliveriesInAnyOrderGiveOneOutputPerSlot tries every order of six
// deliveries, and of every part of them, about two slots.
func TestDeliveriesInAnyOrderGiveOneOutputPerSlot(t *testing.T) {
	all := []events.Event{
		good(0, 1, "https://a.example/1"), // slot 0 succeeds,
		good(0, 1, "https://a.example/1"), // is told twice,
		bad(0, 1),                         // and contradicted
		bad(1, 1),                         // slot 1 fails
		delivered(events.Result{Task: "somebody else's", URL: "https://a.example/2"}),
		delivered(events.Result{Task: events.TaskID(fox, 1, 1), URL: "https://a.example/3"}, // slot 1 succeeds after all
			events.Result{Task: events.TaskID(fox, 0, 1), URL: "https://a.example/1"}),
	}
	orders := 0
	permute(len(all), func(order []int) {
		orders++
		g := claimed(2)
		saw := [2]bool{}
		for _, i := range order {
			g = events.Apply(g, all[i])
			saw[0] = saw[0] || i <= 1 || i == 5
			saw[1] = saw[1] || i == 5
			for slot, want := range saw {
				if have := g.Slots[slot].Result != nil; have != want {
					t.Fatalf("order %v up to %d: slot %d has a success: %v, want %v", order, i, slot, have, want)
				}
			}
		}
		for slot, want := range saw {
			if want != (g.Slots[slot].Failure == nil) && g.Slots[slot].Accepted {
				t.Fatalf("order %v: slot %d has success %v and failure %v", order, slot, want, g.Slots[slot].Failure)
			}
		}
		g = fold(g, succeeded(0), failed(0), failed(1), succeeded(1))
		if g.Outputs[0].Artifact == nil || g.Outputs[0].Error != nil || g.Outputs[1].Error == nil || g.Outputs[1].Artifact != nil {
			t.Fatalf("order %v: outputs are %+v", order, g.Outputs)
		}
	})
	if want := 1957; orders != want { // 6! + 6!/1! + 6!/2! + … + 6!/6!
		t.Errorf("%d orders, want %d", orders, want)
	}
}

// permute calls f with every arrangement of 0 to n of the numbers below n.
func permute(n int, f func([]int)) {
	var order []int
	used := make([]bool, n)
	var extend func()
	extend = func() {
		f(order)
		for i := range n {
			if used[i] {
				continue
			}
			used[i], order = true, append(order, i)
			extend()
			used[i], order = false, order[:len(order)-1]
		}
	}
	extend()
}

func TestSuccessOfAnEarlierTryIsKept(t *testing.T) {
	again := fold(claimed(1), events.Dispatched{Attempt: 1, Accepted: []int{0}}, bad(0, 1), claim(2, 2, 0))
	if s := again.Slots[0]; s.Try != 2 || s.Accepted || s.Failure != nil || !s.Claimed {
		t.Fatalf("the second try starts as %+v", s)
	}
	g := fold(again, good(0, 1, "https://a.example/1"))
	if r := g.Slots[0].Result; r == nil || r.Task != events.TaskID(fox, 0, 1) {
		t.Fatalf("the first try's success is lost: %+v", g.Slots[0])
	}
	for name, e := range map[string]events.Event{
		"a failure of the second try": bad(0, 2), "a failure of the first": bad(0, 1), "a claim of a third": claim(3, 3, 0),
		"a claim of the second again": claim(3, 2, 0), "a refusal": events.Dispatched{Attempt: 2, Declined: []events.Declined{{Slot: 0}}},
	} {
		if after := fold(g, e).Slots[0]; after.Result == nil || after.Failure != nil {
			t.Errorf("%s takes the success away: %+v", name, after)
		}
	}
	if g := fold(again, bad(0, 1)); g.Slots[0].Failure != nil {
		t.Error("a failure of the first try, told again, counts against the second")
	}
}

func TestClaimOfAnEarlierTryChangesNothingOfTheSlot(t *testing.T) {
	g := fold(claimed(1), bad(0, 1), claim(2, 2, 0), good(0, 2, "u"))
	if after := fold(g, claim(3, 1, 0)); !reflect.DeepEqual(after.Slots, g.Slots) {
		t.Errorf("slot was %+v and is %+v", g.Slots[0], after.Slots[0])
	}
}

func TestAFileStaysAndANewerURLReplacesAnOlderOne(t *testing.T) {
	g := fold(claimed(1), good(0, 1, "old"), good(0, 1, "new"))
	if r := g.Slots[0].Result; r.URL != "new" {
		t.Errorf("result is %+v", r)
	}
	g = fold(g, filed(0, 1, "first"), filed(0, 1, "second"), good(0, 1, "newest"))
	if r := g.Slots[0].Result; r.File == nil || r.File.BlobKey != "first" {
		t.Errorf("result is %+v", r)
	}
}

func TestDeliveryProvesThatTheTaskWasTaken(t *testing.T) {
	g := fold(claimed(2), good(0, 1, "u"))
	if !g.Slots[0].Accepted || g.Claim == nil {
		t.Fatalf("fold is %s", snapshot(g))
	}
	// The answer may say anything now: what is delivered was taken.
	g = fold(g, events.Dispatched{Attempt: 1, Declined: []events.Declined{{Slot: 0, Again: noon}, {Slot: 1, Again: noon.Add(time.Minute), Error: events.Error{Code: "busy"}}}})
	if s := g.Slots[0]; !s.Claimed || !s.Accepted || s.Declined != nil {
		t.Errorf("slot 0 is %+v", s)
	}
	if s := g.Slots[1]; s.Claimed || s.Again != noon.Add(time.Minute) || s.Declined.Code != "busy" || g.Claim != nil {
		t.Errorf("slot 1 is %+v, claim %v", s, g.Claim)
	}
}

func TestClaimIsOpenUntilItsAnswerCanSayNothingMore(t *testing.T) {
	for _, c := range []struct {
		name string
		evs  []events.Event
		open bool
	}{
		{"nothing came", nil, true},
		{"its answer came", []events.Event{events.Dispatched{Attempt: 1}}, false},
		{"another claim's answer came", []events.Event{events.Dispatched{Attempt: 7}}, true},
		{"one of two tasks is delivered", []events.Event{good(0, 1, "u")}, true},
		{"both are", []events.Event{good(0, 1, "u"), bad(1, 1)}, false},
		{"one is delivered, the other's slot has ended", []events.Event{failed(1), good(0, 1, "u")}, false},
		{"in this order too", []events.Event{good(0, 1, "u"), failed(1)}, false},
		{"both slots have ended", []events.Event{failed(1), failed(0)}, false},
	} {
		if g := fold(claimed(2), c.evs...); (g.Claim != nil) != c.open {
			t.Errorf("%s: claim is %+v", c.name, g.Claim)
		}
	}
	// A claim for a second try has nothing to say once the first has succeeded
	// after all, and must not keep the other slot from its own second try.
	g := fold(claimed(2), events.Dispatched{Attempt: 1, Accepted: []int{0, 1}}, bad(0, 1), claim(2, 2, 0), good(0, 1, "u"))
	if g.Claim != nil {
		t.Errorf("claim is %+v", g.Claim)
	}
}

func TestApplySharesNoMemoryThatItChanges(t *testing.T) {
	steps := []events.Event{
		claim(1, 1, 0, 1, 2), good(0, 1, "u"),
		events.Dispatched{Attempt: 1, Accepted: []int{1}, Declined: []events.Declined{{Slot: 2, Again: noon}}},
		bad(1, 1), claim(2, 2, 1, 2), filed(2, 1, "key"), succeeded(0), failed(1), succeeded(2),
		events.Completed{},
	}
	g := asked(3)
	var folds []events.Generation
	var texts []string
	for _, e := range steps {
		folds, texts = append(folds, g), append(texts, snapshot(g))
		// Two ways on from the same fold must not meet.
		for _, other := range []events.Event{failed(0), failed(1), failed(2), bad(0, 1), good(1, 1, "other"), claim(9, 5, 0, 1, 2), events.Completed{}} {
			events.Apply(g, other)
		}
		if snapshot(g) != texts[len(texts)-1] {
			t.Fatalf("before %s: the fold has changed", e.Type())
		}
		g = events.Apply(g, e)
	}
	for i := range folds {
		if now := snapshot(folds[i]); now != texts[i] {
			t.Errorf("after %d events the fold was\n%s\nand now is\n%s", i, texts[i], now)
		}
	}
}

func TestFoldOfACommitGivesItsTimeToItsEvents(t *testing.T) {
	c := events.Commit{ID: fox, Version: 1, At: noon.Add(time.Second), Events: examples()[:1]}
	g := events.Fold(events.Generation{}, c)
	if g.ID != fox || g.CreatedAt != c.At || g.At != c.At {
		t.Errorf("fold is %s", snapshot(g))
	}
	g = events.Fold(g, events.Commit{ID: fox, At: noon.Add(time.Minute), Events: []events.Event{failed(0), failed(1), failed(2), events.Completed{Error: &events.Error{Code: "late"}}}})
	if g.CompletedAt != noon.Add(time.Minute) || g.Error.Code != "late" || g.CreatedAt != c.At {
		t.Errorf("fold is %s", snapshot(g))
	}
}

func TestSlotOfFindsEveryTryAndNoOther(t *testing.T) {
	g := fold(claimed(3), bad(1, 1), claim(2, 2, 1), bad(1, 2), claim(3, 3, 1))
	for try := 1; try <= 3; try++ {
		if slot, got, ok := g.SlotOf(events.TaskID(fox, 1, try)); !ok || slot != 1 || got != try {
			t.Errorf("try %d: slot %d, try %d, %v", try, slot, got, ok)
		}
	}
	for _, task := range []string{"", "x", events.TaskID(fox, 1, 4), events.TaskID(fox, 0, 2), events.TaskID(fox, 3, 1)} {
		if _, _, ok := g.SlotOf(task); ok {
			t.Errorf("task %q is found", task)
		}
	}
}

// FuzzApply folds any events in any order: two bytes make one event.
func FuzzApply(f *testing.F) {
	f.Add(uint8(2), []byte{0, 0, 4, 0, 4, 1, 7, 0, 7, 1, 9, 0})
	f.Add(uint8(1), []byte{1, 0x10, 5, 0, 0, 0x10, 4, 0, 9, 0, 7, 0})
	f.Add(uint8(3), []byte{8, 1, 8, 2, 8, 0, 2, 0xff, 3, 0xff})
	f.Fuzz(func(t *testing.T, count uint8, script []byte) {
		n := int(count)%4 + 1
		g := asked(n)
		for i := 0; i+1 < len(script) && i < 200; i += 2 {
			e := fuzzed(script[i], script[i+1])
			before, text := g, snapshot(g)
			g = events.Apply(g, e)
			if snapshot(before) != text {
				t.Fatalf("%s changed the fold before it", e.Type())
			}
			if problem := unsound(before, g, n); problem != "" {
				t.Fatalf("%s made of\n%s\n%s\n%s", e.Type(), text, snapshot(g), problem)
			}
		}
	})
}

func fuzzed(kind, arg byte) events.Event {
	slot, try := int(arg&0x0f)-2, int(arg>>4)-1
	switch kind % 11 {
	case 0:
		return claim(int(arg>>4), try, slot, slot+1)
	case 1:
		return events.Dispatched{Attempt: try, Accepted: []int{slot, slot + 1}}
	case 2:
		return events.Dispatched{Attempt: try, Declined: []events.Declined{{Slot: slot, Again: noon}, {Slot: slot}}}
	case 3:
		return filed(slot, try, "key")
	case 4:
		return good(slot, try, fmt.Sprint("https://a.example/", arg))
	case 5:
		return bad(slot, try)
	case 6:
		return delivered(events.Result{Task: events.TaskID(fox, slot, 1), URL: "u"}, events.Result{Task: events.TaskID(fox, slot, 1), Error: &events.Error{}}, events.Result{})
	case 7:
		return succeeded(slot)
	case 8:
		return failed(slot)
	case 9:
		return events.Completed{Error: &events.Error{Code: "late"}}
	}
	return events.Requested{ExpectedCount: slot, Tasks: make([]string, max(slot, 0))}
}

// unsound is which promise of Apply is broken, if one is.
func unsound(before, after events.Generation, n int) string {
	if len(after.Outputs) != n || after.ExpectedCount != n || !after.Done() && len(after.Slots) != n {
		return "the number of outputs has changed"
	}
	if before.Done() && snapshot(before) != snapshot(after) {
		return "something followed completed"
	}
	for i, o := range before.Outputs {
		switch now := after.Outputs[i]; {
		case (o.Artifact != nil || o.Error != nil) && !reflect.DeepEqual(o, now):
			return fmt.Sprintf("slot %d ended twice", i)
		case now.Artifact != nil && now.Error != nil:
			return fmt.Sprintf("slot %d is good and bad", i)
		case after.Done():
		case after.Slots[i].Ended != (now.Artifact != nil || now.Error != nil):
			return fmt.Sprintf("slot %d: Ended does not say what the output says", i)
		case before.Slots[i].Result != nil && after.Slots[i].Result == nil:
			return fmt.Sprintf("slot %d: a success is lost", i)
		case after.Slots[i].Try < before.Slots[i].Try || after.Slots[i].Try > events.MaxTries:
			return fmt.Sprintf("slot %d: try %d follows try %d", i, after.Slots[i].Try, before.Slots[i].Try)
		}
	}
	return ""
}
