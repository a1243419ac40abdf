package stream_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

func connect(t *testing.T) *nats.Conn {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Conn()
}

func TestSingleNode(t *testing.T) { streamtest.Run(t, 1, connect) }

// An asynchronous stream acknowledges before it writes, a rollup or a delete can
// rewrite history: such a stream is refused, not used.
func TestDriftedStreamIsRefused(t *testing.T) {
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"async persistence": func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"deletes allowed":   func(c *jetstream.StreamConfig) { c.DenyDelete = false },
		"rollup allowed":    func(c *jetstream.StreamConfig) { c.AllowRollup = true },
		"memory":            func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"other subjects":    func(c *jetstream.StreamConfig) { c.Subjects = []string{"gen.*", "other"} },
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t)
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			cfg := jetstream.StreamConfig{Name: stream.Name, Subjects: []string{"gen.>"}, DenyDelete: true, Storage: jetstream.FileStorage}
			change(&cfg)
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Open(t.Context(), nc, stream.Config{Create: true}); !errors.Is(err, stream.ErrDrift) {
				t.Errorf("open: %v, want ErrDrift", err)
			}
		})
	}
}

// A follower whose handle fails ends, however much is on its way to it.
func TestFailedFollowerEnds(t *testing.T) {
	t.Parallel()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Sync: s.SyncLog, SyncAll: s.SyncAll})
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		id := streamtest.NewID()
		if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
			t.Fatal(err)
		}
	}
	// Opened again, it has appended nothing itself, and reads from the server.
	if l, err = stream.Open(t.Context(), s.Conn(), stream.Config{Own: true, Sync: s.SyncLog, SyncAll: s.SyncAll}); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("no room")
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(t.Context(), 0, func([]stream.Entry) error {
			<-time.After(200 * time.Millisecond) // the rest arrives meanwhile
			return failed
		})
	}()
	select {
	case err := <-done:
		if !errors.Is(err, failed) {
			t.Errorf("follow: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the follower does not end")
	}
}
