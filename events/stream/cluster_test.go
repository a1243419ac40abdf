package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// What holds on one node holds on three, with the same answers.
func TestCluster(t *testing.T) {
	streamtest.Run(t, natsdtest.Nodes, func(t *testing.T) *nats.Conn { return natsdtest.Start(t).Connect() })
}

// The stream's leader is stopped while many append: what was acknowledged is
// there once, and each author learned what became of his append.
func TestLeaderStopLosesAndDoublesNothing(t *testing.T) {
	c := natsdtest.Start(t)
	l, err := stream.Open(t.Context(), c.Connect(), stream.Config{Replicas: natsdtest.Nodes, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	heads := map[events.ID]stream.Head{}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				id := streamtest.NewID()
				var head stream.Head
				evs := []events.Event{streamtest.Request(id, 4)}
				for slot := range 4 {
					once, cancel := context.WithTimeout(t.Context(), time.Minute)
					_, next, err := l.Append(once, id, head, events.Now(), evs...)
					cancel()
					if err != nil {
						t.Errorf("append %d to generation=%s: %v", slot, id, err)
						return
					}
					head = next
					mu.Lock()
					heads[id] = head
					mu.Unlock()
					evs = []events.Event{events.OutputFailed{Slot: slot, Error: events.Error{Code: "x"}}}
				}
			}
		})
	}
	for range 2 {
		<-time.After(500 * time.Millisecond)
		leader := c.Leader(stream.Name)
		if leader < 0 {
			continue
		}
		c.Stop(leader)
		c.AwaitLeader(stream.Name)
		<-time.After(500 * time.Millisecond)
		c.Restart(leader)
	}
	stop()
	wg.Wait()
	for id, head := range heads {
		history, err := l.History(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if n := uint64(len(history)); n != head.Version || history[n-1].Sequence != head.Sequence {
			t.Errorf("generation=%s has %d commits, acknowledged were %d", id, n, head.Version)
		}
	}
	if len(heads) < 10 {
		t.Errorf("%d generations are too few to show anything", len(heads))
	}
	t.Logf("%d generations", len(heads))
}

// A direct get may be answered by a replica that is behind; a decision must not be.
func TestLoadReadsItsOwnAppends(t *testing.T) {
	c := natsdtest.Start(t)
	l, err := stream.Open(t.Context(), c.Connect(), stream.Config{Replicas: natsdtest.Nodes, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		id := streamtest.NewID()
		if _, _, err := l.Load(t.Context(), id); !errors.Is(err, stream.ErrNotFound) {
			t.Fatalf("load: %v, want ErrNotFound", err)
		}
		_, head, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, loaded, err := l.Load(t.Context(), id); err != nil || loaded != head {
			t.Fatalf("loaded %+v, %v; appended %+v", loaded, err, head)
		}
	}
}

// A replica that lags behind, or is cut off, does not know what there is not: it may
// show an open generation as it was, and must not say that a promised one does not
// exist. (Found by reading back at once what was accepted.)
func TestThatThereIsNoneIsTheLeadersWord(t *testing.T) {
	p := natsdtest.StartProcesses(t)
	openOn(t, p, p.Link().URL())
	leader := p.Leader()
	follower := (leader + 1) % natsdtest.Nodes
	l, cutOff := openOn(t, p, p.Link().To(leader)), openOn(t, p, p.Link().To(follower))
	if _, _, err := cutOff.Peek(t.Context(), streamtest.NewID()); !errors.Is(err, stream.ErrNotFound) {
		t.Errorf("peek at nothing: %v, want ErrNotFound", err)
	}
	p.Isolate(follower)
	id := streamtest.NewID()
	if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cutOff.Peek(t.Context(), id); err == nil || errors.Is(err, stream.ErrNotFound) {
		t.Errorf("peek at what a replica has not got: %v, want that it is not known", err)
	}
	if _, err := cutOff.History(t.Context(), id); err == nil || errors.Is(err, stream.ErrNotFound) {
		t.Errorf("history of what a replica has not got: %v, want that it is not known", err)
	}
}

// Without a majority the server that is left answers with what it has. That is
// not the end of the log: a catalog that is ahead of it would be taken for one of
// another log. (Found by an outage of two servers of three.)
func TestEndOfTheLogIsAMajoritysWord(t *testing.T) {
	c := natsdtest.Start(t)
	l, err := stream.Open(t.Context(), c.Connect(), stream.Config{Replicas: natsdtest.Nodes, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	leader := c.Leader(stream.Name)
	c.Stop(leader)
	c.Stop((leader + 1) % natsdtest.Nodes)
	patience := time.After(30 * time.Second) // until the last one notices
	for err = nil; !errors.Is(err, stream.ErrUnavailable); _, err = l.Refresh(t.Context()) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-patience:
			t.Fatalf("one server of three says where the log ends: %v", err)
		}
	}
}
