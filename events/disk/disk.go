// Package disk is the one thing that everything durable shares: a sync that many
// wait for together.
//
// # Usage
//
//	b := disk.NewBarrier(func() error { return disk.SyncTree("/var/lib/genstream") })
//	write(...)
//	if err := b.Wait(ctx); err != nil { ... }
//	// what was written before Wait is on disk
//
// # How it adapts
//
// A sync begins as soon as somebody waits and the one before has ended, with
// everything that has come meanwhile. Alone, one waits for one sync; together, all
// that come while one runs share the next. Nothing is delayed in order to be shared.
//
// # Guarantees
//
// Wait returns nil only after a sync that began after it was called has ended
// well. A sync that fails is final: the kernel may have dropped what it could not
// write, and a second try would succeed without it (the PostgreSQL project found
// that out in 2018: https://wiki.postgresql.org/wiki/Fsync_Errors). From then on
// every Wait fails.
package disk

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Barrier is a shared sync. Its methods may be called concurrently.
type Barrier struct {
	sync  func() error
	syncs atomic.Uint64

	mu      sync.Mutex
	running bool          // a goroutine syncs
	next    *round        // what those wait for who come now
	failed  error         // of a sync: final
	broken  chan struct{} // closed when failed is set
}

// round is one sync to come.
type round struct {
	done   chan struct{}
	wanted bool // somebody waits for it
}

// NewBarrier is a barrier of this sync, which is never called twice at a time.
func NewBarrier(sync func() error) *Barrier {
	return &Barrier{sync: sync, next: &round{done: make(chan struct{})}, broken: make(chan struct{})}
}

// Wait returns once a sync has ended that began after the call. The error is that
// of the sync that failed, now or ever, or that of ctx.
func (b *Barrier) Wait(ctx context.Context) error {
	b.mu.Lock()
	if b.failed != nil {
		b.mu.Unlock()
		return b.failed
	}
	r := b.next
	r.wanted = true
	if !b.running {
		b.running = true
		go b.run()
	}
	b.mu.Unlock()
	select {
	case <-r.done:
		return b.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run syncs, round after round, until nobody waits.
func (b *Barrier) run() {
	for {
		b.mu.Lock()
		r := b.next
		b.next = &round{done: make(chan struct{})}
		b.mu.Unlock()

		b.syncs.Add(1)
		if err := b.sync(); err != nil {
			b.Fail(err)
		}
		b.mu.Lock()
		close(r.done)
		more := b.failed == nil && b.next.wanted
		b.running = more
		if b.failed != nil { // who waits for what will not come
			close(b.next.done)
			b.next = &round{done: make(chan struct{})}
		}
		b.mu.Unlock()
		if !more {
			return
		}
	}
}

// Fail makes every Wait fail from now on: a sync has failed, this barrier's or
// another one on the same disk.
func (b *Barrier) Fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = err
		close(b.broken)
	}
}

// Syncs is how many syncs have begun.
func (b *Barrier) Syncs() uint64 { return b.syncs.Load() }

// Broken is closed when a sync has failed.
func (b *Barrier) Broken() <-chan struct{} { return b.broken }

// Err is why Broken is closed, nil while it is not.
func (b *Barrier) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// SyncTree brings everything that was written so far to the file system that dir
// is on to disk: contents, names and folders (syncfs(2); since Linux 5.8 it reports
// what could not be written). One call costs less than a sync of each of a few new
// files and of the folders that lead to them, and waits for neighbours on the
// same file system.
func SyncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync file system: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync file system of %s: %w", dir, err)
	}
	return nil
}
