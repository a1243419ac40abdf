package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// gate is where the durable sequence is known: the one place that whatever leaves
// the process passes.
//
// With a server that syncs before it acknowledges (a cluster, or SyncAlways), all
// that was acknowledged or read is on disk, and the gate only notes it. With a
// server that does not, the gate syncs: appends go in at full speed, and whoever
// must not go on before his is on disk waits for a sync that began after it. Many
// share one. It adapts by itself: alone, one waits for one sync; together, those
// that come while a sync runs share the next.
type gate struct {
	durable atomic.Uint64 // on disk up to here
	written atomic.Uint64 // in the server's files up to here, at least
	sync    func() error  // nil: the server syncs before it acknowledges

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

func newGate(sync func() error) *gate {
	return &gate{sync: sync, next: &round{done: make(chan struct{})}, broken: make(chan struct{})}
}

// wrote notes that the server has the log up to the sequence in its files.
func (g *gate) wrote(sequence uint64) {
	raise(&g.written, sequence)
	if g.sync == nil {
		raise(&g.durable, sequence)
	}
}

// await returns once the log is on disk up to the sequence, which the server must
// have acknowledged or given out. The error wraps ErrSync or is that of ctx.
func (g *gate) await(ctx context.Context, sequence uint64) error {
	g.wrote(sequence)
	for g.durable.Load() < sequence {
		if err := g.barrier(ctx); err != nil {
			return err
		}
	}
	return nil
}

// barrier returns once a sync has ended that began after the call: whatever the
// server had in its files by then is on disk.
func (g *gate) barrier(ctx context.Context) error {
	if g.sync == nil {
		return nil
	}
	g.mu.Lock()
	if g.failed != nil {
		g.mu.Unlock()
		return g.failed
	}
	r := g.next
	r.wanted = true
	if !g.running {
		g.running = true
		go g.run()
	}
	g.mu.Unlock()
	select {
	case <-r.done:
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run syncs, round after round, until nobody waits.
func (g *gate) run() {
	for {
		g.mu.Lock()
		r := g.next
		g.next = &round{done: make(chan struct{})}
		upto := g.written.Load() // what is written from here on is for the next round
		g.mu.Unlock()

		err := g.sync()
		if err != nil {
			_ = g.fail(err)
		}
		g.mu.Lock()
		if g.failed == nil {
			raise(&g.durable, upto)
		}
		close(r.done)
		more := g.failed == nil && g.next.wanted
		g.running = more
		g.mu.Unlock()
		if !more {
			return
		}
	}
}

// fail notes that a sync has failed, for good: the kernel may have dropped what it
// could not write, and a second try would succeed without it. Only the log on disk
// tells what is there.
func (g *gate) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		g.failed = fmt.Errorf("%w: %w", ErrSync, err)
		close(g.broken)
	}
	return g.failed
}

func raise(a *atomic.Uint64, to uint64) {
	for now := a.Load(); now < to && !a.CompareAndSwap(now, to); now = a.Load() {
	}
}
