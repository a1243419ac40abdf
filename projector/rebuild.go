package projector

import (
	"context"
	"errors"
	"fmt"
)

// near is how many commits a rebuild may be behind when it takes the turn to read
// the rest: following the log stands still for that long.
const near = 256

// Rebuild builds the catalog again from the whole log, in a new file, and lets it
// serve; Run, if it runs, goes on meanwhile. progress (nil: none) is told, after
// each batch, up to which sequence of how many the log has been read; it may start
// over towards a higher total. Rebuilds run one after the other. After an error, or
// when ctx ends, the old build goes on serving and nothing is left of the new one.
//
// The log is not compared with the old build: a rebuild is the way out of
// ErrDiverged as well.
func (p *Projector) Rebuild(ctx context.Context, progress func(done, total uint64)) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer func() { <-p.rebuilding }()
	return p.rebuild(ctx, progress)
}

// replace is Rebuild, if b still serves when it is its turn.
func (p *Projector) replace(ctx context.Context, b *build) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer func() { <-p.rebuilding }()
	if p.Current() != b.cat {
		return nil // somebody else rebuilt it meanwhile
	}
	return p.rebuild(ctx, nil)
}

// take waits until no rebuild runs and takes the token.
func (p *Projector) take(ctx context.Context) error {
	select {
	case p.rebuilding <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("rebuild catalog: %w", ctx.Err())
	}
}

func (p *Projector) rebuild(ctx context.Context, progress func(done, total uint64)) error {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	b, err := createBuild(ctx, p.cfg.Dir, p.cfg.Log.Fingerprint())
	if err != nil {
		return fmt.Errorf("rebuild catalog: %w", err)
	}
	// A restart before the switch finds a file that CURRENT does not name, and removes it.
	if err = b.cat.Unsafe(ctx); err == nil {
		err = p.catchUp(ctx, b, progress)
	}
	if err == nil {
		err = p.switchTo(ctx, b, progress)
	}
	if err != nil {
		return fmt.Errorf("rebuild catalog: %w", errors.Join(err, b.cat.Close(), removeBuild(p.cfg.Dir, b.name)))
	}
	return nil
}

// catchUp reads the log until its end is near.
func (p *Projector) catchUp(ctx context.Context, b *build, progress func(done, total uint64)) error {
	for {
		end, err := p.cfg.Log.Refresh(ctx)
		if err != nil {
			return err
		}
		if end <= b.at.Sequence+near && b.at.Sequence > 0 || end == 0 {
			return nil
		}
		if err := b.fill(ctx, p.cfg.Log, end, p.park(ctx), progress); err != nil {
			return err
		}
	}
}

// switchTo reads what is missing, so that no reader goes back in time, and lets b
// serve in place of the live build.
func (p *Projector) switchTo(ctx context.Context, b *build, progress func(done, total uint64)) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	end, err := p.cfg.Log.Refresh(ctx)
	if err != nil {
		return err
	}
	// The live position is beyond the end only if the log was replaced or cut.
	if err := b.fill(ctx, p.cfg.Log, min(max(p.live.at.Sequence, b.at.Sequence), end), p.park(ctx), progress); err != nil {
		return err
	}
	// CURRENT must not outlast the rows that it points to.
	if err := b.cat.Settle(ctx); err != nil {
		return own(err)
	}
	if err := writeCurrent(p.cfg.Dir, b.name); err != nil {
		return own(err)
	}
	p.mu.Lock()
	gone := p.before
	p.before, p.live = p.live, b
	p.mu.Unlock()
	p.publish(true)
	if gone == nil {
		return nil
	}
	// b serves already, so trouble with a file that nobody needs is not the
	// rebuild's: the next start removes it.
	if err := gone.retire(p.cfg.Dir); err != nil {
		p.cfg.Logger.Warn("an old build of the catalog was not removed", "file", gone.name, "error", err)
	}
	return nil
}
