package stream_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
