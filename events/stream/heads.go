package stream

import (
	"sync"

	"github.com/genstream/genstream/events"
)

// heads are the ends of the generations that this process appends to and that are
// not completed, where nobody else appends: they save a read for each webhook. A
// head that is wrong all the same (an administrator wrote to the log) is refused by
// the stream, and forgotten. They are as many as there are open generations.
//
// The methods take a nil *heads, of which nothing is known.
type heads struct {
	mu sync.Mutex
	of map[events.ID]*known
}

// known is what is known of one end.
type known struct {
	head   Head // the zero Head: nothing
	flying int  // appends under way: the last of them takes a completed one out
}

func newHeads() *heads { return &heads{of: map[events.ID]*known{}} }

// find is a generation's end, if it is known.
func (h *heads) find(id events.ID) (head Head, ok bool) {
	if h == nil {
		return head, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.of[id]; k != nil {
		head = k.head
	}
	return head, head.Sequence > 0
}

// begin notes that an append begins. Each is followed by end.
func (h *heads) begin(id events.ID) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of[id]
	if k == nil {
		k = &known{}
		h.of[id] = k
	}
	k.flying++
}

// end notes the end that an append has made, of two the later one, whoever comes
// first. After a failure (the zero Head) the next reader asks the stream.
func (h *heads) end(id events.ID, head Head) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.of[id]
	k.flying--
	if head.Sequence == 0 || head.Sequence > k.head.Sequence {
		k.head = head
	}
	if k.flying == 0 && (k.head.Sequence == 0 || k.head.Done) {
		delete(h.of, id)
	}
}
