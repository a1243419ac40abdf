// Package streamtest is the conformance suite of the log: the same claims hold
// on a single node and on a cluster.
package streamtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// Run runs the suite. connect opens a connection to a server (or cluster) with
// JetStream and no streams; replicas is what the streams are created with.
func Run(t *testing.T, replicas int, connect func(*testing.T) *nats.Conn) {
	open := func(t *testing.T) *stream.Log {
		l, err := stream.Open(t.Context(), connect(t), stream.Config{Replicas: replicas, Create: true})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	t.Run("AppendedIsLoaded", func(t *testing.T) { appendedIsLoaded(t, open(t)) })
	t.Run("StaleAppendIsConflict", func(t *testing.T) { staleAppendIsConflict(t, open(t)) })
	t.Run("OneOfManyWins", func(t *testing.T) { oneOfManyWins(t, open(t)) })
	t.Run("CompletedIsOneRead", func(t *testing.T) { completedIsOneRead(t, open(t)) })
	t.Run("AnIdeaOfTheEndNeedNotBeRight", func(t *testing.T) { anIdeaOfTheEndNeedNotBeRight(t, open(t)) })
	t.Run("FollowIsInOrder", func(t *testing.T) { followIsInOrder(t, open(t)) })
	t.Run("FollowersLeaveNothingBehind", func(t *testing.T) {
		nc := connect(t)
		l, err := stream.Open(t.Context(), nc, stream.Config{Replicas: replicas, Create: true})
		if err != nil {
			t.Fatal(err)
		}
		followersLeaveNothing(t, l, nc)
	})
	t.Run("ScanEnds", func(t *testing.T) { scanEnds(t, open(t)) })
	t.Run("DeliveriesAreSeen", func(t *testing.T) { deliveriesAreSeen(t, open(t)) })
	t.Run("ConsumeComesAgainUntilAcked", func(t *testing.T) { consumeComesAgain(t, open(t)) })
	t.Run("ReopenedIsTheSame", func(t *testing.T) { reopenedIsTheSame(t, connect(t), replicas) })
}

// NewID mints an ID of the present. uuid.NewV7 never goes back in time, which it
// would have to when a test on fake time follows one that is not.
func NewID() events.ID { return events.SubmittedID(uuid.NewString(), 0, time.Now()) }

// Request is a small legal first event for id.
func Request(id events.ID, count int) events.Requested {
	r := events.Requested{
		Model: "runware:101@1", Input: []byte(`{"positivePrompt":"a red fox"}`), ExpectedCount: count,
		Provider: "sim", Deadline: events.Now().Add(10 * time.Minute), Digest: events.Digest([]byte("request")),
	}
	for slot := range count {
		r.Tasks = append(r.Tasks, events.TaskID(id, slot, 1))
	}
	return r
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func create(t *testing.T, l *stream.Log, id events.ID, count int) stream.Head {
	t.Helper()
	_, head, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), Request(id, count))
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func appendedIsLoaded(t *testing.T, l *stream.Log) {
	id := NewID()
	if _, _, err := l.Load(t.Context(), id); !errors.Is(err, stream.ErrNotFound) {
		t.Fatalf("load before the first append: %v, want ErrNotFound", err)
	}
	head := create(t, l, id, 2)
	_, head, err := l.Append(t.Context(), id, head, events.Now(), events.OutputFailed{Slot: 1, Error: events.Error{Code: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	g, loaded, err := l.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if loaded != head || head.Version != 2 {
		t.Errorf("head is %+v, appended %+v", loaded, head)
	}
	if g.ID != id || g.ExpectedCount != 2 || g.Outputs[1].Error == nil || g.Outputs[0].Error != nil {
		t.Errorf("fold is %+v", g)
	}
	if l.Durable() < head.Sequence {
		t.Errorf("durable %d, appended at %d", l.Durable(), head.Sequence)
	}
	history := must[[]stream.Entry](t)(l.History(t.Context(), id))
	digest := ""
	for i, e := range history {
		digest = stream.Chain(digest, id, uint64(i+1), e.Body)
		if e.Version != uint64(i+1) || e.Digest != digest {
			t.Errorf("commit %d: version %d, digest %s, want %s", i, e.Version, e.Digest, digest)
		}
	}
}

// anIdeaOfTheEndNeedNotBeRight: whoever has an idea where the last commit is reads
// what everybody reads.
func anIdeaOfTheEndNeedNotBeRight(t *testing.T, l *stream.Log) {
	open, done := NewID(), NewID()
	opened := create(t, l, open, 1)
	requested := create(t, l, done, 1)
	head := complete(t, l, done, requested)
	for name, c := range map[string]struct {
		id   events.ID
		idea uint64
		want stream.Head
	}{
		"none":                     {done, 0, head},
		"right":                    {done, head.Sequence, head},
		"an earlier commit":        {done, requested.Sequence, head},
		"of another generation":    {done, opened.Sequence, head},
		"beyond the end":           {done, head.Sequence + 1_000_000, head},
		"open, its last commit":    {open, opened.Sequence, opened},
		"open, of a completed one": {open, head.Sequence, opened},
	} {
		g, got, err := l.PeekAt(t.Context(), c.id, c.idea)
		if err != nil || got != c.want || g.ID != c.id {
			t.Errorf("%s: read %s at %+v, %v; want %s at %+v", name, g.ID, got, err, c.id, c.want)
		}
		history, err := l.HistoryAt(t.Context(), c.id, c.idea)
		if err != nil || len(history) != int(c.want.Version) || history[len(history)-1].Head() != c.want {
			t.Errorf("%s: %d commits, %v; want %d", name, len(history), err, c.want.Version)
		}
	}
	if _, _, err := l.PeekAt(t.Context(), NewID(), head.Sequence); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("an ID without commits: %v, want ErrNotFound", err)
	}
}

func staleAppendIsConflict(t *testing.T, l *stream.Log) {
	id := NewID()
	head := create(t, l, id, 1)
	for _, stale := range []stream.Head{{}, {Sequence: head.Sequence + 1000, Version: 9}} {
		if _, _, err := l.Append(t.Context(), id, stale, events.Now(), Request(id, 1)); !errors.Is(err, stream.ErrConflict) {
			t.Errorf("append after %+v: %v, want ErrConflict", stale, err)
		}
	}
	if now := must[stream.Head](t)(l.Head(t.Context(), id)); now != head {
		t.Errorf("a refused append changed the head to %+v", now)
	}
}

func oneOfManyWins(t *testing.T, l *stream.Log) {
	id := NewID()
	head := create(t, l, id, 20)
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for slot := range 16 {
		wg.Go(func() {
			_, _, err := l.Append(t.Context(), id, head, events.Now(), events.OutputFailed{Slot: slot, Error: events.Error{Code: "x"}})
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, stream.ErrConflict):
				lost.Add(1)
			default:
				t.Errorf("append: %v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 15 {
		t.Errorf("%d won and %d lost, want 1 and 15", won.Load(), lost.Load())
	}
	if now := must[stream.Head](t)(l.Head(t.Context(), id)); now.Version != 2 {
		t.Errorf("version %d, want 2", now.Version)
	}
}

// complete appends the end of a generation with one output, which failed.
func complete(t *testing.T, l *stream.Log, id events.ID, head stream.Head) stream.Head {
	t.Helper()
	g, _, err := l.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	g.At = events.Now()
	failed := events.OutputFailed{Slot: 0, Error: events.Error{Code: "x"}}
	g = events.Apply(events.Apply(g, failed), events.Completed{Error: &failed.Error})
	if _, head, err = l.Append(t.Context(), id, head, events.Now(), failed, events.Completed{Error: &failed.Error, Generation: g}); err != nil {
		t.Fatal(err)
	}
	return head
}

func completedIsOneRead(t *testing.T, l *stream.Log) {
	id := NewID()
	head := complete(t, l, id, create(t, l, id, 1))
	got, loaded, err := l.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Done || !got.Done() || got.Error == nil || got.Outputs[0].Error == nil || got.Model == "" {
		t.Errorf("loaded %+v with head %+v", got, loaded)
	}
	e := must[stream.Entry](t)(l.At(t.Context(), head.Sequence))
	if !e.Completes() {
		t.Errorf("types %q do not complete", e.Types)
	}
}

func followIsInOrder(t *testing.T, l *stream.Log) {
	const n = 300
	first := create(t, l, NewID(), 1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				id := NewID()
				if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), Request(id, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	last, got := first.Sequence, 0
	enough := errors.New("enough")
	err := l.Follow(ctx, first.Sequence, func(batch []stream.Entry) error {
		for _, e := range batch {
			if e.Sequence != last+1 {
				return fmt.Errorf("sequence %d after %d", e.Sequence, last)
			}
			last, got = e.Sequence, got+1
		}
		if last > l.Durable() {
			return fmt.Errorf("followed to %d, durable is %d", last, l.Durable())
		}
		if got == n {
			return enough
		}
		return nil
	})
	wg.Wait()
	if !errors.Is(err, enough) {
		t.Fatalf("followed %d of %d: %v", got, n, err)
	}
}

func followersLeaveNothing(t *testing.T, l *stream.Log, nc *nats.Conn) {
	head := create(t, l, NewID(), 1)
	for range 5 {
		if err := l.Scan(t.Context(), 0, head.Sequence, func([]stream.Entry) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	js := must[jetstream.JetStream](t)(jetstream.New(nc))
	s := must[jetstream.Stream](t)(js.Stream(t.Context(), stream.Name))
	if n := s.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("%d consumers are left", n)
	}
}

func scanEnds(t *testing.T, l *stream.Log) {
	for range 5 {
		create(t, l, NewID(), 1)
	}
	var got []uint64
	err := l.Scan(t.Context(), 1, 4, func(batch []stream.Entry) error {
		for _, e := range batch {
			got = append(got, e.Sequence)
		}
		return nil
	})
	if err != nil || fmt.Sprint(got) != "[2 3 4]" {
		t.Errorf("scanned %v, %v", got, err)
	}
	if err := l.Scan(t.Context(), 0, 99, func([]stream.Entry) error { return nil }); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("scan past the end: %v, want ErrNotFound", err)
	}
}

func deliveriesAreSeen(t *testing.T, l *stream.Log) {
	id := NewID()
	head := create(t, l, id, 1)
	for i := range 3 {
		d := events.Digest([]byte{byte(i)})
		if head.HasSeen(d) || head.Deliveries() != i {
			t.Fatalf("delivery %d is known before it came: %+v", i, head)
		}
		var err error
		_, head, err = l.Append(t.Context(), id, head, events.Now(), events.Delivered{Source: events.FromWebhook, Digest: d})
		if err != nil {
			t.Fatal(err)
		}
		loaded := must[stream.Head](t)(l.Head(t.Context(), id))
		if !loaded.HasSeen(d) || loaded != head {
			t.Fatalf("delivery %d is not known after it came: %+v", i, loaded)
		}
	}
}

func consumeComesAgain(t *testing.T, l *stream.Log) {
	head := create(t, l, NewID(), 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var times atomic.Int32
	err := l.Consume(ctx, "test", func(w stream.Work) {
		if w.Sequence != head.Sequence {
			t.Errorf("sequence %d, want %d", w.Sequence, head.Sequence)
		}
		if times.Add(1) == 1 {
			w.Again(0)
			return
		}
		w.Ack()
		cancel()
	})
	if err != nil || times.Load() != 2 {
		t.Errorf("came %d times: %v", times.Load(), err)
	}
}

func reopenedIsTheSame(t *testing.T, nc *nats.Conn, replicas int) {
	if _, err := stream.Open(t.Context(), nc, stream.Config{}); !errors.Is(err, stream.ErrMissing) {
		t.Fatalf("open of nothing: %v, want ErrMissing", err)
	}
	a := must[*stream.Log](t)(stream.Open(t.Context(), nc, stream.Config{Replicas: replicas, Create: true}))
	create(t, a, NewID(), 1)
	b := must[*stream.Log](t)(stream.Open(t.Context(), nc, stream.Config{}))
	if a.Fingerprint() != b.Fingerprint() || a.Fingerprint() == "" || b.Durable() != 1 {
		t.Errorf("fingerprints %q and %q, durable %d", a.Fingerprint(), b.Fingerprint(), b.Durable())
	}
}
