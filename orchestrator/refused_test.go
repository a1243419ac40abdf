package orchestrator

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// ending is an outcome that ends slot 0.
type ending struct{}

func (ending) apply(o *Open, _ time.Time) []events.Event {
	if o.Slots[0].Ended {
		return nil
	}
	return []events.Event{events.OutputFailed{Slot: 0, Error: events.Error{Code: "test", Class: events.Safety}}}
}

// What came of I/O is kept while the log takes nothing: it is appended when the
// generation is looked at again, and not before the deadline reports it as lost.
func TestOutcomeOutlastsARefusedAppend(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var full atomic.Bool
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Full: func() error {
		if full.Load() {
			return stream.ErrFull
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	id := events.ID(uuid.Must(uuid.NewV7()).String())
	request := streamtest.Request(id, 2)
	if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), request); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if _, _, err := l.Append(t.Context(), id, stream.Head{}, events.Now(), request); !errors.Is(err, stream.ErrFull) {
		t.Fatalf("append: %v, want ErrFull", err)
	}
	o := New(Config{Log: l, Providers: []Instance{{Name: "another", Provider: runware.New(runware.Config{Name: "another"})}}})
	o.background = t.Context()
	e := o.table.entry(id)
	o.spawn(e, func(ctx context.Context) outcome { return ending{} })
	o.wg.Wait()
	full.Store(false)
	o.activate(e)
	o.wg.Wait()
	g, _, err := l.Load(t.Context(), id)
	if err != nil || !g.Slots[0].Ended {
		t.Errorf("slot 0 is %+v, %v: the outcome is lost", g.Slots[0], err)
	}
}
