package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/events/disk"
)

// Whoever waits is let go only by a sync that began after he came, and many share one.
func TestWaitIsForASyncThatBeganAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began, ended atomic.Int64 // how many syncs
		b := disk.NewBarrier(func() error {
			began.Add(1)
			time.Sleep(10 * time.Millisecond)
			ended.Add(1)
			return nil
		})
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				before := began.Load()
				if err := b.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				if ended.Load() <= before {
					t.Errorf("the wait that began at %d ms ended with a sync that had begun before", i)
				}
			})
		}
		wg.Wait()
		if n := ended.Load(); n > 40 {
			t.Errorf("%d syncs for 200 waits in 200 ms of 10 ms each: they were not shared", n)
		}
	})
}

// A failed sync is final: for those that waited for it, for those that came
// while it ran, and for all that come later.
func TestFailedSyncIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("I/O error")
		syncs := 0
		b := disk.NewBarrier(func() error {
			time.Sleep(10 * time.Millisecond)
			if syncs++; syncs == 1 {
				return broken
			}
			return nil
		})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond)
				if err := b.Wait(t.Context()); !errors.Is(err, broken) {
					t.Errorf("wait at %d ms: %v", i*5, err)
				}
			})
		}
		wg.Wait()
		select {
		case <-b.Broken():
		default:
			t.Error("Broken is open")
		}
		if err := b.Err(); !errors.Is(err, broken) || syncs != 1 {
			t.Errorf("Err: %v after %d syncs", err, syncs)
		}
	})
}

func TestFailStopsABarrierThatNobodyWaitsFor(t *testing.T) {
	b := disk.NewBarrier(func() error { return nil })
	first := errors.New("the first")
	b.Fail(first)
	b.Fail(errors.New("the second"))
	if err := b.Wait(t.Context()); err != first {
		t.Errorf("wait: %v", err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := disk.NewBarrier(func() error { <-release; return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait: %v", err)
		}
		close(release)
		if err := b.Wait(t.Context()); err != nil {
			t.Errorf("wait after it: %v", err)
		}
	})
}

func TestSyncTreeOfNothingFails(t *testing.T) {
	dir := t.TempDir()
	if err := disk.SyncTree(dir); err != nil {
		t.Error(err)
	}
	if err := disk.SyncTree(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func BenchmarkWait(b *testing.B) {
	dir := b.TempDir()
	barrier := disk.NewBarrier(func() error { return disk.SyncTree(dir) })
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := barrier.Wait(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
