package stream

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/genstream/genstream/events/disk"
	"github.com/genstream/genstream/events/fault"
)

// gate is where the durable sequence is known: the one place that whatever leaves
// the process passes.
//
// With a server that syncs before it acknowledges (a cluster, or SyncAlways), all
// that was acknowledged or read is on disk, and the gate only notes it. With a
// server that does not, the gate syncs: appends go in at full speed, and whoever
// must not go on before his is on disk waits for a sync that began after it. Many
// share one, and with them the files of a bucket that is a directory.
type gate struct {
	durable atomic.Uint64 // on disk up to here
	written atomic.Uint64 // in the server's files up to here, at least
	barrier *disk.Barrier
	synced  bool // the server syncs before it acknowledges
}

// newGate makes a gate; sync is nil if the server syncs.
func newGate(sync func() error) *gate {
	g := &gate{synced: sync == nil}
	g.barrier = disk.NewBarrier(func() error {
		upto := g.written.Load() // what is written from here on is for the next round
		if sync == nil {
			return nil
		}
		if err := fault.Around("sync", sync); err != nil {
			return fmt.Errorf("%w: %w", ErrSync, err)
		}
		raise(&g.durable, upto)
		return nil
	})
	return g
}

// wrote notes that the server has the log up to the sequence in its files.
func (g *gate) wrote(sequence uint64) {
	raise(&g.written, sequence)
	if g.synced {
		raise(&g.durable, sequence)
	}
}

// await returns once the log is on disk up to the sequence, which the server must
// have acknowledged or given out. The error wraps ErrSync or is that of ctx.
func (g *gate) await(ctx context.Context, sequence uint64) error {
	g.wrote(sequence)
	for g.durable.Load() < sequence {
		if err := g.barrier.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fail ends the gate for good: a sync beside its own has failed.
func (g *gate) fail(err error) error {
	g.barrier.Fail(fmt.Errorf("%w: %w", ErrSync, err))
	return g.barrier.Err()
}

func raise(a *atomic.Uint64, to uint64) {
	for now := a.Load(); now < to && !a.CompareAndSwap(now, to); now = a.Load() {
	}
}
