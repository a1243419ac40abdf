package orchestrator

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// table is the open table: every open generation with its fold, and a heap by
// the time at which each next needs attention. It is at once the fold cache, the
// timers, the list of what is in flight, and the measure of how much is.
// Losing it loses nothing: it is rebuilt from the log.
type table struct {
	rules Rules

	mu      sync.Mutex
	entries map[events.ID]*entry
	due     dueHeap
	kick    chan struct{} // capacity 1: the earliest time may have changed
}

// entry is one open generation, and its mailbox. Whoever finds active false and
// sets it owns the entry: one goroutine at a time decides on a generation.
type entry struct {
	id events.ID

	// Owned by the goroutine that set active.
	open    Open
	head    stream.Head
	stale   bool   // the log is known to say more than the fold
	parked  uint64 // sequence up to which what cannot be read was parked
	watched bool   // it was looked at since this process started
	most    int    // outcomes that are decided on in one commit; 0 = all there are

	mu      sync.Mutex        // guards the mailbox; never held during I/O
	arrived []stream.Entry    // commits that were read from the log
	inbox   []outcome         // what came of I/O
	until   time.Time         // when what is in it and waits for company is decided on; zero: nothing waits
	works   []stream.Work     // commits taken from the queue and not acknowledged yet
	first   uint64            // sequence of the first commit that was seen
	running int               // I/O under way
	dirty   bool              // something is new since the last decision
	act     bool              // and it is for this process to act on it
	active  bool              // owned
	lined   bool              // waits in its provider's lane
	placed  bool              // has a place in the lane and has not used it yet
	gone    bool              // completed, or never was: no longer in the table
	shown   events.Generation // the fold as of the last decision, for readers
	shownAt uint64            // sequence of its last commit

	at    time.Time // guarded by table.mu: when it needs attention
	index int       // guarded by table.mu: in the heap, -1 = not
}

func newTable(rules Rules) *table {
	return &table{rules: rules, entries: map[events.ID]*entry{}, kick: make(chan struct{}, 1)}
}

// entry is the entry of id, made if there is none.
func (t *table) entry(id events.ID) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[id]
	if e == nil {
		e = &entry{id: id, index: -1}
		e.open.Rules, e.open.Since = t.rules, time.Now()
		t.entries[id] = e
	}
	return e
}

// find is the entry of id, or nil.
func (t *table) find(id events.ID) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[id]
}

// len is how many generations are open.
func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// all is every entry, in no order.
func (t *table) all() []*entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e)
	}
	return all
}

// eldest is every entry, who has waited longest first.
func (t *table) eldest() []*entry {
	all := t.all()
	first := make(map[*entry]uint64, len(all))
	for _, e := range all {
		e.mu.Lock()
		first[e] = e.first
		e.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(first[a], first[b]) })
	return all
}

// drop removes a completed generation.
func (t *table) drop(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[e.id] == e {
		delete(t.entries, e.id)
	}
	if e.index >= 0 {
		heap.Remove(&t.due, e.index)
	}
}

// wakeAt asks for attention at the time; a later call replaces an earlier one.
func (t *table) wakeAt(e *entry, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[e.id] != e {
		return
	}
	t.set(e, at)
}

// wakeBy asks for attention at the time at the latest.
func (t *table) wakeBy(e *entry, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[e.id] == e && (e.index < 0 || at.Before(e.at)) {
		t.set(e, at)
	}
}

// set moves e in the heap. The mutex is held.
func (t *table) set(e *entry, at time.Time) {
	e.at = at
	if e.index < 0 {
		heap.Push(&t.due, e)
	} else {
		heap.Fix(&t.due, e.index)
	}
	if t.due[0] == e {
		select {
		case t.kick <- struct{}{}:
		default:
		}
	}
}

// run calls wake for every entry when its time has come, with that time, until
// ctx ends.
func (t *table) run(ctx context.Context, wake func(*entry, time.Time)) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e, due, wait := t.next(time.Now())
		if e != nil {
			wake(e, due)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-t.kick:
		case <-timer.C:
		}
	}
}

func (t *table) next(now time.Time) (e *entry, due time.Time, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.due) == 0 {
		return nil, due, time.Hour
	}
	if wait := t.due[0].at.Sub(now); wait > 0 {
		return nil, due, wait
	}
	e = heap.Pop(&t.due).(*entry)
	return e, e.at, 0
}

// oldest is the sequence of the first commit of the oldest open generation, 0 if none is open.
func (t *table) oldest() uint64 {
	var least uint64
	for _, e := range t.all() {
		e.mu.Lock()
		if first := e.first; first != 0 && (least == 0 || first < least) {
			least = first
		}
		e.mu.Unlock()
	}
	return least
}

// fold takes a commit into the fold, if it is the next one. It reports false if
// commits in between are missing. Only the owner calls it.
func (e *entry) fold(c events.Commit, head stream.Head) bool {
	switch {
	case c.Version <= e.head.Version:
		return true // known
	case c.Version != e.head.Version+1:
		return false
	}
	before := e.open.Slots
	e.open.Generation, e.head = events.Fold(e.open.Generation, c), head
	for _, ev := range c.Events {
		e.open.remember(ev, c.At)
	}
	for i, s := range e.open.Slots { // a new result is a new download
		if i < len(before) && s.Result != before[i].Result {
			e.open.Fetches[i] = Fetching{Busy: e.open.Fetches[i].Busy}
		}
	}
	return true
}

// remember brings the memory in step with an event: a claim starts the polls
// afresh, its answer ends the doubt about it for whoever asks after that.
func (m *Memory) remember(ev events.Event, at time.Time) {
	switch ev.(type) {
	case events.Dispatching:
		m.Polls, m.PolledAt, m.Believe = 0, at, time.Time{}
	case events.Dispatched:
		m.Believe = at
	}
}

type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
