package projector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector/catalog"
)

// ErrDiverged is a log that is not the one that the catalog was built from: it
// was replaced, or it lost commits that the catalog has read. The text says what to do.
var ErrDiverged = errors.New("the catalog and the log disagree")

// Config says what is followed and where the catalog is kept.
type Config struct {
	Log    *stream.Log
	Dir    string       // of the catalog alone, and of one projector at a time; created if missing
	Logger *slog.Logger // nil: nothing is logged

	// Parked is told of each completing commit that cannot be read, once per
	// reading of it, so a rebuild tells again. If it fails, the commit is read
	// again later. nil: the commit is logged.
	Parked func(context.Context, stream.Entry, error) error

	// Entered is told, once the catalog shows it, when each generation was
	// requested and completed. A rebuild tells nothing. nil: nobody is told.
	Entered func(created, completed time.Time)
}

// Projector keeps the catalog. Its methods may be called concurrently; Run once at a time.
type Projector struct {
	cfg Config

	turn       sync.Mutex    // held while a batch is applied, and while builds are switched
	rebuilding chan struct{} // holds one token while a rebuild runs

	mu       sync.Mutex // guards what follows, for moments only
	live     *build     // serves; its fields belong to the holder of turn
	before   *build     // served before: it stays open for readers who still have it
	position uint64     // live has read so far
	skipped  uint64     // of live
	held     error      // why the log is not being followed
	advanced chan struct{}
	changed  chan struct{}
}

// New opens the folder's current build, or begins the first one. A build that
// cannot be opened is set aside and begun again; one of another schema goes on
// serving, if it can answer, until Run has built its successor. Run also checks the
// whole file, and compares the log with it.
func New(ctx context.Context, cfg Config) (*Projector, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	p := &Projector{cfg: cfg, rebuilding: make(chan struct{}, 1), advanced: make(chan struct{}), changed: make(chan struct{})}
	var err error
	if p.live, err = p.open(ctx); err != nil {
		return nil, err
	}
	p.position = p.live.at.Sequence
	if err := sweep(cfg.Dir, p.live.name); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close closes the catalog; Run and Rebuild have returned before.
func (p *Projector) Close() error {
	err := p.live.cat.Close()
	if p.before != nil {
		err = errors.Join(err, p.before.retire(p.cfg.Dir))
	}
	return err
}

// Current is the build that serves. Take it anew for every request: after a
// rebuild it stays readable until the rebuild after that.
func (p *Projector) Current() *catalog.Catalog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live.cat
}

// Position is the sequence up to which the log has been read: every generation
// that was completed by then is in Current, or parked.
func (p *Projector) Position() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

// Lag is how many durable commits, as far as this process knows of them, have
// not been read.
func (p *Projector) Lag() uint64 {
	position := p.Position()
	return max(p.cfg.Log.Durable(), position) - position
}

// Skipped is how many completing commits could not be read and have no row, in
// the life of this process and of the present build.
func (p *Projector) Skipped() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.skipped
}

// Held is why the catalog does not follow the log just now, nil if it does. What
// it has read before is served all the same.
func (p *Projector) Held() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		return nil
	}
	return fmt.Errorf("the catalog has stopped at commit %d and tries again: %w", p.position, p.held)
}

func (p *Projector) hold(cause error) {
	p.mu.Lock()
	p.held = cause
	p.mu.Unlock()
}

// Wait returns once the log has been read up to the sequence. The error is that
// of ctx.
func (p *Projector) Wait(ctx context.Context, sequence uint64) error {
	for {
		p.mu.Lock()
		position, advanced := p.position, p.advanced
		p.mu.Unlock()
		if position >= sequence {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for sequence %d: the catalog is at %d: %w", sequence, position, ctx.Err())
		}
	}
}

// Changed is closed at the next entry into the catalog, and after a rebuild. Take
// it first, then query, then wait on it: nothing is missed, and it costs nothing
// to walk away.
func (p *Projector) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// publish shows readers how far the live build is. The caller holds turn.
func (p *Projector) publish(changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.position, p.skipped = p.live.at.Sequence, p.live.skipped
	close(p.advanced)
	p.advanced = make(chan struct{})
	if changed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func (p *Projector) open(ctx context.Context) (*build, error) {
	name, err := readCurrent(p.cfg.Dir)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return p.begin(ctx)
	}
	path := filepath.Join(p.cfg.Dir, name)
	b := &build{name: name}
	b.cat, err = catalog.Open(ctx, path)
	if errors.Is(err, catalog.ErrSchema) {
		b.outdated = true
		b.cat, err = catalog.OpenReader(ctx, path)
	}
	switch {
	case err == nil:
		if b.at, err = b.cat.Position(ctx); err != nil {
			return nil, errors.Join(err, b.cat.Close())
		}
		return b, nil
	case errors.Is(err, catalog.ErrDamaged):
		p.cfg.Logger.Error("the catalog is damaged: it is set aside and built again from the log", "file", path, "error", err)
		if err := setAside(p.cfg.Dir, name); err != nil {
			return nil, err
		}
		// A restart here finds a CURRENT that names no file.
		return p.begin(ctx)
	case errors.Is(err, catalog.ErrSchema), errors.Is(err, fs.ErrNotExist):
		p.cfg.Logger.Warn("the catalog cannot be used: it is built again from the log", "file", path, "error", err)
		return p.begin(ctx)
	}
	return nil, err
}

// begin makes an empty build and lets it serve: there is nothing better, and
// readers see from the position how far it is.
func (p *Projector) begin(ctx context.Context) (*build, error) {
	b, err := createBuild(ctx, p.cfg.Dir, p.cfg.Log.Fingerprint())
	if err != nil {
		return nil, err
	}
	if err := writeCurrent(p.cfg.Dir, b.name); err != nil {
		return nil, errors.Join(err, b.cat.Close())
	}
	return b, nil
}
