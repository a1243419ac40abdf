package projector_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/genstream/genstream/projector"
)

// Who measures how long generations take must not be told of a rebuild's.
func TestEachGenerationIsToldOnceWhenItEnters(t *testing.T) {
	w := newWorld(t)
	var told, early atomic.Int64
	var p *running
	cfg := projector.Config{Dir: t.TempDir(), Entered: func(created, completed time.Time) {
		told.Add(1)
		if created.IsZero() || completed.Before(created) || time.Since(completed) > time.Minute {
			early.Add(1)
		}
	}}
	w.make(20)
	p = w.run(cfg)
	p.wait(w)
	w.make(20)
	p.wait(w)
	const want = 32 // every fifth stays open
	check(t, p.Rebuild(context.Background(), nil))
	p.stop()
	p = w.run(cfg) // and a restart has read them already
	p.wait(w)
	p.stop()
	if told.Load() != want || early.Load() != 0 {
		t.Errorf("%d were told of %d, %d with times that cannot be", told.Load(), want, early.Load())
	}
}
