package stream_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// owned is an open log of a gated server, and a way to append to it behind its back.
func owned(t *testing.T) (l *stream.Log, behind func()) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30, Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if l, err = stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Sync: s.SyncLog, SyncAll: s.SyncAll}); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	return l, func() {
		id := streamtest.NewID()
		m, _, err := stream.Message(id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
		if err == nil {
			_, err = js.PublishMsg(t.Context(), m)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func one(t *testing.T, l *stream.Log) {
	id := streamtest.NewID()
	if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
		t.Error(err)
	}
}

// errEnough ends a follower.
var errEnough = errors.New("enough")

// checked is a handle that wants every sequence above after, once and in order, each as
// the server has it, and ends its follower with the one at upto.
func checked(l *stream.Log, after, upto uint64, slow time.Duration) func([]stream.Entry) error {
	return func(batch []stream.Entry) error {
		if slow > 0 {
			<-time.After(slow)
		}
		for _, e := range batch {
			if after++; e.Sequence != after {
				return fmt.Errorf("sequence %d, want %d", e.Sequence, after)
			}
			stored, err := l.At(context.Background(), e.Sequence)
			if err != nil {
				return err
			}
			stored.Stored = e.Stored
			if !reflect.DeepEqual(stored, e) {
				return fmt.Errorf("given %+v, stored %+v", e, stored)
			}
			if after == upto {
				return errEnough
			}
		}
		return nil
	}
}

// Whatever is appended by whom, and however far behind a follower is: he is given every
// commit, in order, as the server has it. That most of them come from the process
// itself does not show.
func TestFollowersOfAnOwnLogMissNothing(t *testing.T) {
	t.Parallel()
	l, behind := owned(t)
	const before, authors, each, foreign = 100, 8, 60, 8
	const all = before + authors*each + foreign
	for range before {
		one(t, l)
	}
	var followers, appending sync.WaitGroup
	follow := func(name string, after uint64, slow time.Duration) {
		followers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := l.Follow(ctx, after, checked(l, after, all, slow)); !errors.Is(err, errEnough) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	follow("from the start", 0, 0)
	follow("from the end", before, 0)
	follow("from between", before/2, 0)
	follow("behind for ever", before, 20*time.Millisecond)
	followers.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var fed error
		handle := checked(l, before, all, 0)
		err := l.Feed(ctx, before, func(e stream.Entry) {
			if fed == nil {
				if fed = handle([]stream.Entry{e}); fed != nil {
					cancel()
				}
			}
		})
		if !errors.Is(fed, errEnough) {
			t.Errorf("fed: %v, %v", fed, err)
		}
	})
	for range authors {
		appending.Go(func() {
			for i := range each {
				one(t, l)
				if i%(each*authors/foreign) == 0 {
					behind()
				}
			}
		})
	}
	appending.Wait()
	followers.Wait()
}

// What somebody else appends is noticed even if nothing else happens.
func TestAFollowerOfAQuietLogLooks(t *testing.T) {
	t.Parallel()
	l, behind := owned(t)
	one(t, l)
	ended := make(chan error, 1)
	go func() { ended <- l.Follow(t.Context(), 1, checked(l, 1, 2, 0)) }()
	behind()
	select {
	case err := <-ended:
		if !errors.Is(err, errEnough) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody has told the follower")
	}
}
