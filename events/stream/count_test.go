package stream_test

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// deaf is a connection that loses, once it is told to, the next thing it hears.
type deaf struct {
	net.Conn
	lose *atomic.Bool
}

func (d deaf) Read(p []byte) (int, error) {
	for {
		n, err := d.Conn.Read(p)
		if err != nil || !d.lose.CompareAndSwap(true, false) {
			return n, err
		}
	}
}

type deafDialer struct{ lose *atomic.Bool }

func (d deafDialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return deaf{c, d.lose}, err
}

func TestAppendsAreCountedByTheirFate(t *testing.T) {
	t.Parallel()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30, Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var lose atomic.Bool
	nc, err := nats.Connect(s.URL(), nats.UserInfo("admin", "a"), nats.SetCustomDialer(deafDialer{&lose}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	l, err := stream.Open(t.Context(), nc, stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() events.ID { return events.ID(uuid.Must(uuid.NewV7()).String()) }
	create := func(id events.ID) error {
		_, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
		return err
	}
	id := fresh()
	if err := create(id); err != nil {
		t.Fatal(err)
	}
	if err := create(id); !errors.Is(err, stream.ErrConflict) {
		t.Fatalf("the same ID again: %v, want ErrConflict", err)
	}
	lose.Store(true) // the acknowledgement; it is asked for again after 5 s
	if err := create(fresh()); err != nil {
		t.Fatalf("an append whose answer is lost: %v", err)
	}
	if want := (stream.Counts{Commits: 2, Conflicts: 1, Found: 1}); l.Counts() != want {
		t.Errorf("counts are %+v, want %+v", l.Counts(), want)
	}
	lose.Store(true) // the refusal
	if err := create(id); !errors.Is(err, stream.ErrConflict) {
		t.Fatalf("the same ID again, the answer lost: %v, want ErrConflict", err)
	}
	nc.Close()
	if err := create(fresh()); !errors.Is(err, stream.ErrUnavailable) {
		t.Fatalf("without a connection: %v, want ErrUnavailable", err)
	}
	if want := (stream.Counts{Commits: 2, Conflicts: 2, Found: 1, Missing: 1, Unknown: 1}); l.Counts() != want {
		t.Errorf("counts are %+v, want %+v", l.Counts(), want)
	}
}
