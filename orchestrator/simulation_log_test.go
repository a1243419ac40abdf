package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// simLog is a stream in memory, as a server keeps it: it takes the messages that
// the real log would publish, checks the expected sequence that they carry, and
// gives out entries. What fails is what fails with a real one: the append, the
// acknowledgement, the disk behind it, or the process that waits.
type simLog struct {
	s       *simulation
	stored  []storedCommit
	last    map[events.ID]uint64
	durable uint64 // what a power cut leaves

	syncing bool
	syncs   []happening // the ends of the waits for the sync under way, or for the next

	horizon, horizonBefore uint64 // before: as a power cut may leave it

	out time.Time // until then the log takes and gives nothing
}

type storedCommit struct {
	stream.Entry
	commit events.Commit
}

// end is the last sequence.
func (l *simLog) end() uint64 { return uint64(len(l.stored)) }

// of is every commit of one generation, oldest first.
func (l *simLog) of(id events.ID) iter.Seq[*storedCommit] {
	return func(yield func(*storedCommit) bool) {
		for i := range l.stored {
			if c := &l.stored[i]; c.ID == id && !yield(c) {
				return
			}
		}
	}
}

// answers is the way to the log and back: it takes time, and fails with the log.
func (l *simLog) answers(ctx context.Context, most time.Duration) error {
	s := l.s
	d := s.upto(most)
	if wait := l.out.Sub(s.now); wait > 0 {
		d += wait
	}
	if end, ok := over(ctx); ok && s.now.Add(d).After(end) {
		s.sleep(end.Sub(s.now))
		return fmt.Errorf("%w: simulated", stream.ErrUnavailable)
	}
	if d > 0 {
		s.sleep(d)
	}
	return nil
}

// over is when ctx has ended by its deadline: a moment later, or it would be chance
// whether its timer or the simulation came first.
func over(ctx context.Context) (time.Time, bool) {
	end, ok := ctx.Deadline()
	return end.Add(time.Microsecond), ok
}

// Append implements ledger.
func (l *simLog) Append(ctx context.Context, id events.ID, after stream.Head, at time.Time, evs ...events.Event) (events.Commit, stream.Head, error) {
	s, p := l.s, l.s.current.in
	m, head, err := stream.Message(id, after, at, evs...)
	if err != nil {
		return events.Commit{}, stream.Head{}, err
	}
	most := 500 * time.Microsecond
	if s.bad(slowAppend) {
		most = 3 * time.Second
	}
	if err := l.answers(ctx, most); err != nil {
		return events.Commit{}, stream.Head{}, err
	}
	switch {
	case s.bad(diesBeforeAppend):
		s.kill(p)
		s.die()
	case s.bad(appendFails):
		return events.Commit{}, stream.Head{}, fmt.Errorf("%w: simulated, not applied", stream.ErrUnavailable)
	case s.bad(logFull):
		return events.Commit{}, stream.Head{}, fmt.Errorf("%w: simulated", stream.ErrFull)
	}
	if expected := m.Header.Get(jetstream.ExpectedLastSubjSeqHeader); expected != "" && expected != strconv.FormatUint(l.last[id], 10) {
		s.hit(conflict)
		s.note(p, "conflict on %s", s.short(id))
		return events.Commit{}, stream.Head{}, stream.ErrConflict
	}
	head.Sequence = l.end() + 1
	c := events.Commit{ID: id, Version: head.Version, Sequence: head.Sequence, Prev: after.Sequence, At: at, Events: evs}
	l.stored = append(l.stored, storedCommit{stream.EntryOf(m.Subject, head.Sequence, s.now, m.Header, m.Data), c})
	l.last[id] = head.Sequence
	if !s.gated {
		l.durable = head.Sequence
	}
	s.appended(p, c)
	switch {
	case s.gated && s.bad(cutAfterAppend):
		s.cutPower(s.upto(3 * time.Second))
		s.die()
	case s.bad(diesAfterAppend):
		s.kill(p)
		s.die()
	case s.bad(ackLost):
		return events.Commit{}, stream.Head{}, fmt.Errorf("%w: simulated, applied", stream.ErrUnavailable)
	case s.chance(30):
		s.sleep(s.upto(time.Millisecond))
	}
	return c, head, nil
}

// Head implements webhook.Log.
func (l *simLog) Head(ctx context.Context, id events.ID) (stream.Head, error) {
	if err := l.read(ctx); err != nil {
		return stream.Head{}, err
	}
	last := l.last[id]
	if last == 0 {
		return stream.Head{}, stream.ErrNotFound
	}
	return l.stored[last-1].Head(), nil
}

func (l *simLog) read(ctx context.Context) error {
	if l.s.bad(loadFails) {
		return fmt.Errorf("%w: simulated", stream.ErrUnavailable)
	}
	return l.answers(ctx, 300*time.Microsecond)
}

// Load implements ledger.
func (l *simLog) Load(ctx context.Context, id events.ID) (g events.Generation, head stream.Head, err error) {
	if err := l.read(ctx); err != nil {
		return g, head, err
	}
	last := l.last[id]
	if last == 0 {
		return g, head, stream.ErrNotFound
	}
	tail := l.stored[last-1]
	if done, ok := tail.commit.Events[len(tail.commit.Events)-1].(events.Completed); ok {
		g = done.Generation
		g.At = tail.commit.At
		return g, tail.Head(), nil
	}
	for c := range l.of(id) {
		g = events.Fold(g, c.commit)
	}
	return g, tail.Head(), nil
}

// History implements ledger.
func (l *simLog) History(ctx context.Context, id events.ID) ([]stream.Entry, error) {
	if err := l.read(ctx); err != nil {
		return nil, err
	}
	if err := l.Await(ctx, l.last[id]); err != nil {
		return nil, err
	}
	var all []stream.Entry
	for c := range l.of(id) {
		all = append(all, c.Entry)
	}
	if len(all) == 0 {
		return nil, stream.ErrNotFound
	}
	return all, nil
}

// Later implements ledger.
func (l *simLog) Later(ctx context.Context, try int) error {
	d := time.Duration(min(try+1, 10))*5*time.Millisecond + l.s.upto(5*time.Millisecond)
	if end, ok := over(ctx); ok && l.s.now.Add(d).After(end) {
		l.s.sleep(end.Sub(l.s.now))
		return context.DeadlineExceeded
	}
	l.s.sleep(d)
	return nil
}

// Await implements ledger: many share one sync, and it counts for what was
// written before it began.
func (l *simLog) Await(ctx context.Context, sequence uint64) error {
	s := l.s
	for l.durable < sequence {
		end, bounded := over(ctx)
		if bounded && !end.After(s.now) {
			return context.DeadlineExceeded
		}
		t := s.current
		t.waits++
		l.syncs = append(l.syncs, happening{wakes: t, wait: t.waits})
		l.sync()
		if bounded {
			s.wakeAt(t, end)
		}
		s.wait()
	}
	return nil
}

func (l *simLog) sync() {
	s := l.s
	if l.syncing {
		return
	}
	l.syncing = true
	upto := l.end()
	d := s.upto(8 * time.Millisecond)
	if s.bad(slowSync) {
		d = s.upto(2 * time.Second)
	}
	cut := s.cuts
	s.after(d, nil, func() {
		if cut != s.cuts {
			return // that machine is off
		}
		l.syncing = false
		l.durable = max(l.durable, upto)
		l.horizonBefore = l.horizon
		waiting := l.syncs
		l.syncs = nil
		for _, h := range waiting {
			h.at = s.now
			s.push(h)
		}
	})
}

// Durable implements ledger.
func (l *simLog) Durable() uint64 { return l.durable }

// Refresh implements ledger.
func (l *simLog) Refresh(ctx context.Context) (uint64, error) {
	if err := l.read(ctx); err != nil {
		return 0, err
	}
	end := l.end()
	return end, l.Await(ctx, end)
}

// Scan implements ledger.
func (l *simLog) Scan(ctx context.Context, after, upto uint64, handle func([]stream.Entry) error) error {
	if err := l.read(ctx); err != nil {
		return err
	}
	for after < upto {
		n := min(uint64(1+l.s.rng.IntN(8)), upto-after)
		if err := handle(l.entries(after, after+n)); err != nil {
			return err
		}
		after += n
	}
	return nil
}

// entries is what lies above after, up to and including upto.
func (l *simLog) entries(after, upto uint64) []stream.Entry {
	batch := make([]stream.Entry, 0, upto-after)
	for _, c := range l.stored[after:upto] {
		batch = append(batch, c.Entry)
	}
	return batch
}

// Horizon implements ledger.
func (l *simLog) Horizon(ctx context.Context) (uint64, error) {
	if err := l.read(ctx); err != nil {
		return 0, err
	}
	if l.horizon > l.durable {
		return 0, nil
	}
	return l.horizon, nil
}

// SetHorizon implements ledger.
func (l *simLog) SetHorizon(ctx context.Context, sequence uint64) error {
	if err := l.read(ctx); err != nil {
		return err
	}
	l.s.hit(horizonNoted)
	l.horizon = sequence
	if !l.s.gated {
		l.horizonBefore = sequence
	}
	return nil
}

// Announce implements ledger.
func (l *simLog) Announce(ctx context.Context, id events.ID, sequence uint64) error {
	if err := l.Await(ctx, sequence); err != nil {
		return err
	}
	l.s.left("announcement", id, sequence)
	return nil
}

// Check implements ledger: of those who ask for the same look, one is given it.
func (l *simLog) Check(ctx context.Context, id events.ID, due time.Time) error {
	s := l.s
	if err := l.read(ctx); err != nil {
		return err
	}
	key := string(id) + "." + strconv.FormatInt(due.UnixMicro(), 10)
	if s.checks[key] {
		return nil
	}
	s.checks[key] = true
	if s.bad(checkLost) {
		return nil
	}
	s.after(s.upto(2*time.Millisecond), nil, func() {
		if p := s.anyReady(); p != nil {
			p.o.checked(id)
		}
	})
	return nil
}

// cutPower takes what no sync has brought to disk.
func (l *simLog) cutPower() {
	keep := l.durable
	if l.s.chance(50) { // the kernel may have written some of it by itself
		keep += uint64(l.s.rng.IntN(int(l.end()-l.durable) + 1))
	}
	if keep < l.end() {
		l.s.hit(commitsCut)
	}
	l.stored = l.stored[:keep]
	clear(l.last)
	for _, c := range l.stored {
		l.last[c.ID] = c.Sequence
	}
	l.durable, l.syncing, l.syncs = keep, false, nil
	if l.s.chance(50) {
		l.horizon = l.horizonBefore
	}
}

var errBucket = errors.New("simulated: the bucket is down")
