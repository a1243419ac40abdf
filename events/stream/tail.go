package stream

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
)

// tail is what this process has appended last, for followers in the same process:
// where nobody else appends, the server has nothing to tell one who is up to date
// that is not known here already.
//
// Nothing rests on its being complete. A follower is given the commit whose sequence
// is one above his own, then the next, for as long as they are here. At the first
// that is not, whatever the cause (he is behind, somebody else has appended, an answer
// was lost), he reads on from the server, until the tail has what comes after that.
//
// The methods take a nil *tail, of which nothing is known.
type tail struct {
	mu     sync.Mutex
	ring   [tailCommits]Entry // the commit of sequence s is at s % tailCommits
	newest uint64             // highest sequence that was added
	lost   uint64             // what is at or below is not here, and will not be
	bytes  int                // of the bodies
	news   map[chan struct{}]struct{}
}

// The bounds of a tail. They are for a follower who falls behind for a moment: what
// is in flight at once is far less.
const (
	tailCommits = 2048
	tailBytes   = 4 << 20
)

// newTail is the tail of a log that ends at a sequence.
func newTail(end uint64) *tail {
	return &tail{newest: end, lost: end, news: map[chan struct{}]struct{}{}}
}

// add takes a commit that is in the log. They come in any order.
func (t *tail) add(e Entry) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Sequence <= t.lost {
		return // others came in between that have taken its place
	}
	t.newest = max(t.newest, e.Sequence)
	if t.newest-t.lost > 2*tailCommits { // a leap: nothing that is here is of use
		clear(t.ring[:])
		t.bytes, t.lost = 0, t.newest-tailCommits
	}
	for t.newest-t.lost > tailCommits {
		t.drop()
	}
	if e.Sequence <= t.lost {
		return
	}
	place := &t.ring[e.Sequence%tailCommits]
	t.bytes += len(e.Body) - len(place.Body)
	for *place = e; t.bytes > tailBytes; {
		t.drop()
	}
	t.tell()
}

// unsure has followers look soon: something may be in the log that this process
// does not know to be.
func (t *tail) unsure() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell()
}

// tell wakes all who follow. The mutex is held.
func (t *tail) tell() {
	for news := range t.news {
		select {
		case news <- struct{}{}:
		default: // he has not looked yet
		}
	}
}

// drop gives up the oldest. The mutex is held.
func (t *tail) drop() {
	t.lost++
	e := &t.ring[t.lost%tailCommits]
	t.bytes -= len(e.Body)
	*e = Entry{}
}

// after appends to batch, up to its capacity, the commits that follow a sequence
// without a gap.
func (t *tail) after(sequence uint64, batch []Entry) []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(batch) < cap(batch) {
		sequence++
		e := t.ring[sequence%tailCommits]
		if e.Sequence != sequence {
			break
		}
		batch = append(batch, e)
	}
	return batch
}

// reaches says whether what follows a sequence is here, or can still come.
func (t *tail) reaches(sequence uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return sequence >= t.lost
}

// has says whether the commit at a sequence is here.
func (t *tail) has(sequence uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ring[sequence%tailCommits].Sequence == sequence
}

// join is told, by a message in the channel, when something was added. leave ends it.
func (t *tail) join() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := make(chan struct{}, 1)
	t.news[news] = struct{}{}
	return news
}

func (t *tail) leave(news chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.news, news)
}

const (
	// patience is how long a commit that is known to be in the log is waited for: the
	// goroutine that appended it may not have had its turn yet.
	patience = 100 * time.Millisecond

	// firstLook to lastLook is how long a follower of the tail goes without news before
	// he asks the server whether there is more: only somebody else can have appended it.
	firstLook = time.Second
	lastLook  = 16 * time.Second
)

// followTail is read for everything, from the tail where that has what comes next,
// and from the server where it has not.
func (l *Log) followTail(ctx context.Context, after uint64, durable bool, handle func([]Entry) error) error {
	at := after
	noting := func(batch []Entry) error {
		at = batch[len(batch)-1].Sequence
		return handle(batch)
	}
	news := l.tail.join()
	defer l.tail.leave(news)
	for ctx.Err() == nil {
		if err := l.fromTail(ctx, news, &at, durable, noting); err != nil || ctx.Err() != nil {
			return unlessEnded(ctx, err)
		}
		err := l.read(ctx, at, pattern, durable, noting, func() bool {
			return l.tail.has(at+1) || l.tail.reaches(at) && at >= l.gate.written.Load()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fromTail returns nil when ctx has ended, or the tail does not have what follows *at
// and the server has. *at is moved by handle.
func (l *Log) fromTail(ctx context.Context, news <-chan struct{}, at *uint64, durable bool, handle func([]Entry) error) error {
	batch := make([]Entry, 0, batchMax)
	look := firstLook
	var missing time.Time // since when what follows is known to be missing; zero: it is not
	timer := time.NewTimer(look)
	defer timer.Stop()
	for {
		if batch = l.tail.after(*at, batch[:0]); len(batch) > 0 {
			if err := Hand(ctx, l.Await, batch, durable, handle); err != nil {
				return err
			}
			look, missing = firstLook, time.Time{}
			continue
		}
		wait := look
		if l.gate.written.Load() > *at {
			if missing.IsZero() {
				missing = time.Now()
			}
			wait = patience - time.Since(missing)
			if !l.tail.reaches(*at) || wait <= 0 {
				return nil
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-news:
			look = firstLook
		case <-timer.C:
			if missing.IsZero() {
				l.lookForMore(ctx)
				look = min(2*look, lastLook)
			}
		}
	}
}

// lookForMore notes how far the server's log goes. One that does not answer is asked again.
func (l *Log) lookForMore(ctx context.Context) {
	once, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if info, err := l.stream.Info(once); err == nil {
		l.gate.wrote(info.State.LastSeq)
	}
}

// appended is the entry of a message that was appended after before, which made it
// head. The server's own time of it is about that of the decision.
func appended(id events.ID, m *nats.Msg, before, head Head, at time.Time) Entry {
	return Entry{
		ID: id, Subject: m.Subject, Sequence: head.Sequence, Version: head.Version, Prev: before.Sequence,
		CommitID: m.Header.Get(headerCommit), Types: m.Header.Get(headerTypes), Digest: head.Digest, Seen: head.Seen,
		Stored: at, Body: m.Data,
	}
}
