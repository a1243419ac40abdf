package projector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector/catalog"
)

// Run follows the log until ctx ends, then returns nil. A log that cannot be
// reached is waited for, and so is room on a full disk; a catalog that turns out
// damaged, or has another schema, serves as well as it can until a new one is
// built. Any other trouble is returned: ErrDiverged, a failing disk.
func (p *Projector) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var checking sync.WaitGroup
	var unmended error
	checking.Go(func() {
		if unmended = p.inspect(ctx, p.serving()); unmended != nil {
			cancel()
		}
	})
	err := p.retry(ctx)
	cancel() // what inspect does for this run ends with it
	checking.Wait()
	return errors.Join(err, unmended, p.leave())
}

// retry follows the log until ctx ends (then nil) or trying again does not help.
func (p *Projector) retry(ctx context.Context) error {
	for try := 0; ; try++ {
		before := p.Position()
		err := p.follow(ctx)
		if errors.Is(err, catalog.ErrDamaged) {
			err = p.mend(ctx, p.serving(), err)
		}
		switch {
		case errors.As(err, new(final)):
			return err
		case ctx.Err() != nil:
			return nil
		case err == nil:
			continue // mended
		case p.Position() > before:
			try = 0
		}
		p.cfg.Logger.Warn("the catalog does not follow: trying again", "sequence", p.Position(), "error", err)
		p.hold(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(100*time.Millisecond<<min(try, 6), 5*time.Second)):
		}
	}
}

// follow runs until ctx ends (then nil) or something fails.
func (p *Projector) follow(ctx context.Context) error {
	live := p.serving()
	if err := p.check(ctx, live); err != nil {
		return err
	}
	if live.outdated {
		p.cfg.Logger.Info("the catalog has another schema: it serves while a new one is built from the log", "file", live.cat.Path())
		if err := p.replace(ctx, live); err != nil {
			return err
		}
	}
	return p.cfg.Log.Follow(ctx, p.Position(), func(batch []stream.Entry) error {
		p.turn.Lock()
		defer p.turn.Unlock()
		added, err := p.live.apply(ctx, batch, p.park(ctx))
		if err != nil {
			return err
		}
		p.publish(added > 0)
		p.hold(nil)
		if added > 0 && p.cfg.Entered != nil {
			for _, e := range p.live.entered {
				p.cfg.Entered(e.Generation.CreatedAt, e.Generation.CompletedAt)
			}
		}
		return nil
	})
}

// inspect reads the whole file of the build that a run begins with, and has it
// built again if it is damaged. It goes on beside the following, because it takes
// seconds per gigabyte, and most pages are not needed soon.
func (p *Projector) inspect(ctx context.Context, b *build) error {
	err := b.cat.Check(ctx)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, catalog.ErrDamaged) {
		err = p.mend(ctx, b, err)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// mend builds the catalog anew in place of b, which is damaged.
func (p *Projector) mend(ctx context.Context, b *build, cause error) error {
	p.cfg.Logger.Error("the catalog is damaged: it serves what it can while a new one is built from the log", "file", b.cat.Path(), "error", cause)
	p.turn.Lock()
	b.damaged = true
	p.turn.Unlock()
	return p.replace(ctx, b)
}

// serving is the live build, to look at. Only who holds turn may change it.
func (p *Projector) serving() *build {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

// leave writes the position, so that the next start reads nothing again.
func (p *Projector) leave() error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.live.outdated || p.live.damaged {
		return nil
	}
	err := p.live.save(context.Background()) // ctx has ended
	if errors.Is(err, catalog.ErrFull) {
		p.cfg.Logger.Warn("the position was not written: the next start reads a little again", "error", err)
		return nil
	}
	return err
}

// Compare says, wrapping ErrDiverged, that the log is not the one that the catalog
// was built from, or has lost what the catalog has read of it. Run does so too,
// but those who append to the log had better know before.
func (p *Projector) Compare(ctx context.Context) error { return p.check(ctx, p.serving()) }

// check compares the log with what the build has read (I21).
func (p *Projector) check(ctx context.Context, b *build) error {
	log, at := p.cfg.Log, b.at
	diverged := func(format string, args ...any) error {
		return final{fmt.Errorf("%w: %s. If the log was replaced on purpose, delete the folder %s (it is built again from the log); if not, restore the log before anything is written to it",
			ErrDiverged, fmt.Sprintf(format, args...), p.cfg.Dir)}
	}
	if at.Fingerprint != log.Fingerprint() {
		return diverged("the catalog is of stream %s, the log is stream %s", at.Fingerprint, log.Fingerprint())
	}
	if at.Sequence == 0 {
		return nil
	}
	end, err := log.Refresh(ctx)
	if err != nil {
		return err
	}
	if at.Sequence > end {
		return diverged("the catalog has read commit %d, the log ends at %d", at.Sequence, end)
	}
	e, err := p.entryAt(ctx, at.Sequence)
	if errors.Is(err, stream.ErrNotFound) {
		return diverged("the catalog has read commit %d, the log has it no more", at.Sequence)
	}
	if err != nil {
		return err
	}
	if e.Digest != at.Digest {
		return diverged("commit %d is not the one that the catalog has read", at.Sequence)
	}
	return nil
}

// entryAt reads an entry that the leader is known to have. On a cluster a replica
// that lags may answer that there is none, so that answer is asked for a few times.
func (p *Projector) entryAt(ctx context.Context, sequence uint64) (e stream.Entry, err error) {
	for try := range 6 {
		e, err = p.cfg.Log.At(ctx, sequence)
		if !errors.Is(err, stream.ErrNotFound) {
			break
		}
		select {
		case <-ctx.Done():
			return e, ctx.Err()
		case <-time.After(50 * time.Millisecond << try):
		}
	}
	return e, err
}

func (p *Projector) park(ctx context.Context) func(stream.Entry, error) error {
	return func(e stream.Entry, cause error) error {
		if p.cfg.Parked != nil {
			return p.cfg.Parked(ctx, e, cause)
		}
		p.cfg.Logger.Error("a completing commit cannot be read: its generation has no row", "generation", e.ID, "sequence", e.Sequence, "error", cause)
		return nil
	}
}
