package stream

import (
	"testing"

	"github.com/genstream/genstream/events"
)

const oneID events.ID = "01a20f1e-0be1-7f0b-be1c-683ffe253141"

// What is known of an end, after each step of appends that overlap.
func TestHeadsKnowTheLaterEnd(t *testing.T) {
	first, second, done := Head{Sequence: 5, Version: 1}, Head{Sequence: 6, Version: 2}, Head{Sequence: 7, Version: 3, Done: true}
	for name, c := range map[string]struct {
		ends []Head // of appends that all began before the first ended
		want uint64 // sequence of the end that is known, 0 = none
		left int    // entries
	}{
		"one":                              {[]Head{first}, 5, 1},
		"in order":                         {[]Head{first, second}, 6, 1},
		"the later one first":              {[]Head{second, first}, 6, 1},
		"completed":                        {[]Head{first, done}, 0, 0},
		"completed first":                  {[]Head{done, first}, 0, 0},
		"failed":                           {[]Head{{}}, 0, 0},
		"failed after one":                 {[]Head{first, {}}, 0, 0},
		"failed before one, which is late": {[]Head{{}, second}, 6, 1},
	} {
		h := newHeads()
		for range c.ends {
			h.begin(oneID)
		}
		for _, e := range c.ends {
			h.end(oneID, e)
		}
		if head, ok := h.find(oneID); head.Sequence != c.want || ok != (c.want > 0) || len(h.of) != c.left {
			t.Errorf("%s: end at %d, %t, %d entries; want %d, %d entries", name, head.Sequence, ok, len(h.of), c.want, c.left)
		}
	}
	var none *heads
	none.begin(oneID)
	none.end(oneID, first)
	if _, ok := none.find(oneID); ok {
		t.Error("no heads know one")
	}
}
