//go:build power

package main

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// With --fsync=100ms a cut takes what was told in that time before it, and in
// that of the sync that was under way; nothing that is older, and what is left is whole.
func TestPowerCutWithAnInterval(t *testing.T) {
	const slack = time.Second // of a sync, on a disk that others use too
	for range cuts(3) {
		p := newPowered(t, os.Args[0], (100 * time.Millisecond).String())
		told := map[events.ID]time.Time{}
		p.start()
		p.healthy()
		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 16 {
			clients.Go(func() {
				for ctx.Err() == nil {
					id := streamtest.NewID()
					p.create(ctx, id, 1)
					p.mu.Lock()
					if p.acked[id] > 0 {
						told[id] = time.Now()
					}
					p.mu.Unlock()
				}
			})
		}
		<-time.After(2 * time.Second)
		at := time.Now()
		p.disk.cut(p.cmd.Process)
		<-p.exited
		cancel()
		clients.Wait()
		p.disk.remount()
		f, err := p.left()
		if err != nil {
			t.Fatal(err)
		}
		old, lost := 0, 0
		for id, when := range told {
			gone := f.requested[p.acked[id]] != id
			if gone {
				lost++
				delete(p.acked, id) // it is not asked for again
			}
			if at.Sub(when) > 100*time.Millisecond+slack {
				if old++; gone {
					t.Errorf("generation=%s was told %s before the cut, and is lost", id, at.Sub(when))
				}
			}
		}
		if old == 0 {
			t.Error("nothing was told early enough: this shows nothing")
		}
		t.Logf("told %d, %d of them over %s before the cut; lost %d", len(told), old, 100*time.Millisecond+slack, lost)
		p.settle()
		p.leave()
	}
}
