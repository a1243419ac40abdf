package orchestrator

import (
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

func bringing(digest string) brought {
	return brought{delivered: events.Delivered{Source: events.FromWebhook, Digest: digest}, said: make(chan uint64, 1)}
}

// What the log has already is not appended again, and whoever brought it is told
// where it is; of two that are the same at once, one is appended.
func TestDeliveryThatTheLogHasIsNotAppendedAgain(t *testing.T) {
	known, fresh := events.Digest([]byte("known")), events.Digest([]byte("fresh"))
	e := &entry{head: stream.Head{Sequence: 7, Seen: known[:12]}}
	old, first, second := bringing(known), bringing(fresh), bringing(fresh)
	left := e.unseen([]outcome{old, fetched{}, first, second})
	if len(left) != 2 || left[1].(brought).said != first.said {
		t.Fatalf("left: %v", left)
	}
	if at := <-old.said; at != 7 {
		t.Errorf("told of the one that the log has: %d, want 7", at)
	}
	if at := <-second.said; at != 0 {
		t.Errorf("told of the second of two: %d, want 0", at)
	}
	tellAll(left, 9)
	if at := <-first.said; at != 9 {
		t.Errorf("told of the first: %d, want 9", at)
	}
}

// After an append that failed the same outcomes are looked at again, and nobody
// may wait for whoever was told before and has gone.
func TestTellingTwiceDoesNotBlock(t *testing.T) {
	b := bringing(events.Digest(nil))
	b.tell(0)
	b.tell(5)
	if at := <-b.said; at != 0 {
		t.Errorf("told %d, want what was told first", at)
	}
}

// A delivery is recorded whatever it is worth: it was answered.
func TestBroughtDeliveryIsAlwaysAnEvent(t *testing.T) {
	o := &Open{Generation: events.Generation{ExpectedCount: 1, Slots: []events.Slot{{Ended: true}}}}
	b := bringing(events.Digest([]byte("late")))
	b.delivered.Results = []events.Result{{Task: "of nobody"}}
	if evs := b.apply(o, time.Now()); len(evs) != 1 || evs[0].Type() != (events.Delivered{}).Type() {
		t.Errorf("events: %v", evs)
	}
}
