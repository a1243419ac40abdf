package stream

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// What a tail gives follows without a gap, in whatever order it came, and is never
// another commit than that of the sequence asked for.
func TestTailGivesWhatFollowsWithoutAGap(t *testing.T) {
	give := func(tl *tail, after uint64) string {
		var s string
		for _, e := range tl.after(after, make([]Entry, 0, 4)) {
			s += fmt.Sprint(e.Sequence, " ")
		}
		return s
	}
	tl := newTail(10)
	for _, step := range []struct {
		add   uint64
		after uint64
		want  string
	}{
		{0, 10, ""},
		{12, 10, ""},
		{11, 10, "11 12 "},
		{0, 11, "12 "},
		{14, 12, ""},
		{13, 11, "12 13 14 "},
		{10, 9, ""}, // of before it began
		{15, 10, "11 12 13 14 "},
	} {
		if step.add > 0 {
			tl.add(Entry{Sequence: step.add})
		}
		if got := give(tl, step.after); got != step.want {
			t.Errorf("with %d: after %d it gives %q, want %q", step.add, step.after, got, step.want)
		}
	}
	if tl.reaches(9) || !tl.reaches(10) || !tl.reaches(99) {
		t.Error("it reaches back to 10, where it began")
	}
}

// A tail keeps within its bounds, and what it gave up it does not give.
func TestTailIsBounded(t *testing.T) {
	t.Run("commits", func(t *testing.T) {
		tl := newTail(0)
		for s := range uint64(3 * tailCommits) {
			tl.add(Entry{Sequence: s + 1})
		}
		if tl.reaches(2*tailCommits - 1) {
			t.Error("it reaches further than it holds")
		}
		if n := len(tl.after(2*tailCommits, make([]Entry, 0, 2*tailCommits))); n != tailCommits {
			t.Errorf("it holds %d commits, want %d", n, tailCommits)
		}
		tl.add(Entry{Sequence: tailCommits}) // late: its place is another's
		if tl.has(tailCommits) || !tl.has(3*tailCommits) {
			t.Error("one that came late has taken the place of a newer one")
		}
	})
	t.Run("bytes", func(t *testing.T) {
		tl := newTail(0)
		body := make([]byte, tailBytes/8)
		for s := range uint64(100) {
			tl.add(Entry{Sequence: s + 1, Body: body})
		}
		if n := len(tl.after(tl.lost, make([]Entry, 0, 100))); n != 8 || tl.bytes > tailBytes {
			t.Errorf("%d commits of %d bytes, %d in all", n, len(body), tl.bytes)
		}
	})
	t.Run("a leap", func(t *testing.T) {
		tl := newTail(0)
		tl.add(Entry{Sequence: 1, Body: make([]byte, 100)})
		tl.add(Entry{Sequence: 1 << 40, Body: make([]byte, 10)})
		if tl.has(1) || !tl.has(1<<40) || tl.bytes != 10 {
			t.Errorf("after a leap: %d bytes", tl.bytes)
		}
	})
	t.Run("any order", func(t *testing.T) {
		tl, r := newTail(0), rand.New(rand.NewPCG(1, 2))
		for range 50_000 {
			tl.add(Entry{Sequence: tl.newest + 50 - min(tl.newest, r.Uint64N(200)), Body: make([]byte, r.IntN(50))})
		}
		bytes := 0
		for _, e := range tl.ring {
			bytes += len(e.Body)
			if e.Sequence != 0 && (e.Sequence <= tl.lost || e.Sequence > tl.newest) {
				t.Fatalf("%d is here, between %d and %d", e.Sequence, tl.lost, tl.newest)
			}
		}
		if bytes != tl.bytes {
			t.Errorf("it counts %d bytes and has %d", tl.bytes, bytes)
		}
	})
}
