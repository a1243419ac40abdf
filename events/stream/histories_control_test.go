package stream_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// A leader that is cut off answers its own clients for a while as if it still led.
// What rests on that is refused: reads are old, and nothing worse.
func TestHistoriesOfALeaderThatIsCutOff(t *testing.T) {
	if os.Getenv("GENSTREAM_FOR") == "" {
		t.Skip("SKIPPED: it takes 20 s: GENSTREAM_FOR=1s go test -run Histories has it")
	}
	p := natsdtest.StartProcesses(t)
	openOn(t, p, p.Link().URL())
	leader := p.Leader()
	cutOff, l := openOn(t, p, p.Link().To(leader)), openOn(t, p, p.Link().To((leader+1)%natsdtest.Nodes))
	h := newHistorian(t, func(client int) *stream.Log {
		if client == 0 {
			return cutOff
		}
		return l
	})
	h.each, h.patience = 1000, [2]time.Duration{time.Second, 2 * time.Second}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var all []*history
	p.Isolate(leader)
	for r := rand.New(rand.NewPCG(1, 1)); ctx.Err() == nil; {
		one, end := context.WithTimeout(ctx, 3*time.Second)
		all = append(all, h.write(one, r))
		end()
	}
	if !p.Heal(t.Context(), time.Minute) {
		t.Fatal("the nodes are not of one mind")
	}
	for _, one := range all {
		h.check(one, func(int) *stream.Log { return l })
	}
	t.Logf("%d operations, %d of %d histories with reads of what was", h.operations.Load(), h.old.Load(), len(all))
	if h.broken.Load() > 0 {
		t.Errorf("%d histories cannot have happened", h.broken.Load())
	}
}

// Histories that must be judged impossible are, by the same judge: without the
// expected sequence two clients both replace the same value.
func TestHistoriesOfBlindAppendsAreImpossible(t *testing.T) {
	nc := connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	l, err := stream.Open(t.Context(), nc, stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	h := newHistorian(t, func(int) *stream.Log { return l })
	h.append = func(ctx context.Context, _ *stream.Log, id events.ID, after stream.Head, at time.Time, ev events.Event) (stream.Head, error) {
		m, head, err := stream.Message(id, after, at, ev)
		if err != nil {
			return head, err
		}
		m.Header.Del(jetstream.ExpectedLastSubjSeqHeader)
		ack, err := js.PublishMsg(ctx, m)
		if err == nil {
			head.Sequence = ack.Sequence
		}
		return head, err
	}
	one := h.write(t.Context(), rand.New(rand.NewPCG(1, 1)))
	if h.check(one, h.log); h.broken.Load() != 1 {
		t.Error("appends that expect nothing pass for conditional ones")
	}
}

// A follower that is cut off goes on answering direct gets, with what it has: they
// are for readers only.
func TestHistoriesOfStaleReadsAreImpossible(t *testing.T) {
	p := natsdtest.StartProcesses(t)
	openOn(t, p, p.Link().URL())
	leader := p.Leader()
	follower := (leader + 1) % natsdtest.Nodes
	l, cutOff := openOn(t, p, p.Link().To(leader)), openOn(t, p, p.Link().To(follower))
	h := newHistorian(t, func(client int) *stream.Log {
		if client == 0 {
			return cutOff
		}
		return l
	})
	h.head = func(ctx context.Context, l *stream.Log, id events.ID) (stream.Head, error) {
		m, err := l.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream.Name+"."+stream.Subject(id), nil)
		if err != nil {
			return stream.Head{}, err
		}
		sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return stream.Head{}, stream.ErrNotFound
		}
		return stream.EntryOf(stream.Subject(id), sequence, time.Time{}, m.Header, m.Data).Head(), nil
	}
	h.patience = [2]time.Duration{10 * time.Second, 20 * time.Second}
	one, r := &history{id: streamtest.NewID()}, rand.New(rand.NewPCG(1, 1))
	head := h.commit(one, 1, 0, stream.Head{}, r)
	p.Heal(t.Context(), time.Minute) // the follower has it
	p.Isolate(follower)
	h.commit(one, 1, 1, head, r)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); len(one.ops) < 3 && time.Now().Before(end); <-tick.C {
		h.read(one, 0, stream.Head{}, r) // a follower begins to answer a little after the stream was made
	}
	if len(one.ops) != 3 || len(one.odd) > 0 {
		t.Fatalf("%d answers and %d without, want 3", len(one.ops), len(one.odd))
	}
	at := func(int) *stream.Log { return l }
	if h.check(one, at); h.old.Load() != 1 {
		t.Error("what a follower answered that was cut off passes for the present")
	}
}
