package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever waits is let go only by a sync that began after he came, and many share one.
func TestGateWaitsForASyncThatBeganAfterTheAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began, ended atomic.Int64 // how many syncs
		g := newGate(func() error {
			began.Add(1)
			time.Sleep(10 * time.Millisecond)
			ended.Add(1)
			return nil
		})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				seq := uint64(i + 1)
				before := began.Load()
				if err := g.await(t.Context(), seq); err != nil {
					t.Error(err)
				}
				if ended.Load() <= before {
					t.Errorf("sequence %d passed on a sync that had begun before it was written", seq)
				}
				if g.durable.Load() < seq {
					t.Errorf("durable %d, waited for %d", g.durable.Load(), seq)
				}
			})
		}
		wg.Wait()
		if n := ended.Load(); n > 40 {
			t.Errorf("%d syncs for 200 appends in 200 ms of 10 ms each: they were not shared", n)
		}
	})
}

// The durable sequence never passes what was written when the sync began.
func TestGateDoesNotCoverWhatCameDuringTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func() error { time.Sleep(10 * time.Millisecond); return nil })
		go func() {
			time.Sleep(5 * time.Millisecond)
			g.wrote(9)
		}()
		if err := g.await(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if d := g.durable.Load(); d != 1 {
			t.Errorf("durable %d, want 1", d)
		}
		if err := g.await(t.Context(), 9); err != nil || g.durable.Load() != 9 {
			t.Errorf("durable %d, %v, want 9", g.durable.Load(), err)
		}
	})
}

// A failed sync is final, for those that wait and for all that come.
func TestFailedSyncIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := true
		g := newGate(func() error {
			time.Sleep(time.Millisecond)
			if fails {
				fails = false
				return errors.New("I/O error")
			}
			return nil
		})
		for seq := range uint64(3) {
			if err := g.await(t.Context(), seq+1); !errors.Is(err, ErrSync) {
				t.Errorf("await %d: %v, want ErrSync", seq+1, err)
			}
		}
		if g.durable.Load() != 0 {
			t.Errorf("durable %d after a failed sync", g.durable.Load())
		}
		select {
		case <-g.barrier.Broken():
		default:
			t.Error("broken is not closed")
		}
	})
}

func TestWaitingAtTheGateEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		g := newGate(func() error { <-release; return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.await(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await: %v", err)
		}
		close(release)
		if err := g.await(t.Context(), 1); err != nil {
			t.Errorf("await after it: %v", err)
		}
	})
}

// A server that syncs by itself has on disk what it acknowledges.
func TestGateOfASyncingServerOnlyNotes(t *testing.T) {
	g := newGate(nil)
	if err := g.await(t.Context(), 7); err != nil || g.durable.Load() != 7 {
		t.Errorf("durable %d, %v", g.durable.Load(), err)
	}
}
