package projector

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/genstream/genstream/events/fault"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector/catalog"
)

// saveEvery is after how many commits that complete nothing the position is
// written for their sake. A restart reads at most so many again.
const saveEvery = 1024

// build is one catalog being written. It has one user at a time: the rebuild
// that fills it, and after that whoever holds Projector.turn.
type build struct {
	cat      *catalog.Catalog
	name     string
	at       catalog.Position // as far as this process has read
	unsaved  int              // commits read since the position was written
	outdated bool             // of another schema: it serves, and takes no rows
	damaged  bool             // found so while it served: it is kept for somebody to look at
	skipped  uint64           // completing commits passed over by this process

	entered []catalog.Entry // by the last apply
}

// final marks an error that trying again does not mend: it is about our own
// files, not about the log.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// own marks an error about our own files as final, unless it is only that the
// disk has no room just now.
func own(err error) error {
	if errors.Is(err, catalog.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return final{err}
}

// createBuild makes an empty build of the log in a file of a new name.
func createBuild(ctx context.Context, dir, fingerprint string) (*build, error) {
	name, err := freshName(dir)
	if err != nil {
		return nil, own(err)
	}
	cat, err := catalog.Create(ctx, filepath.Join(dir, name), fingerprint)
	if err != nil {
		return nil, own(err)
	}
	return &build{cat: cat, name: name, at: catalog.Position{Fingerprint: fingerprint}}, nil
}

// apply reads a batch of the log, in stream order: all generations that it
// completes enter the catalog in one transaction with the position. Commits at or
// below the position are passed over. park is told of completing commits that
// cannot be read; if it fails, nothing of the batch has been read. It returns how
// many generations are new.
func (b *build) apply(ctx context.Context, batch []stream.Entry, park func(stream.Entry, error) error) (added int, err error) {
	return b.enter(ctx, Read(b.at, batch), park)
}

// enter is the only way into a build, live or rebuilt. r was read from where the
// build is.
func (b *build) enter(ctx context.Context, r Reading, park func(stream.Entry, error) error) (added int, err error) {
	for _, u := range r.Unreadable {
		if err := park(u.Entry, u.Cause); err != nil {
			return 0, fmt.Errorf("park commit at %d: %w", u.Entry.Sequence, err)
		}
	}
	b.entered = r.Entries
	if len(r.Entries) > 0 || b.unsaved+r.Commits >= saveEvery {
		// A transaction that has begun is short, and ends even if ctx does.
		err = fault.Around("project", func() (err error) {
			added, err = b.cat.Insert(context.WithoutCancel(ctx), r.Entries, r.Upto)
			return err
		})
		if err != nil {
			return 0, own(err)
		}
		b.unsaved = 0
	} else {
		b.unsaved += r.Commits
	}
	b.at, b.skipped = r.Upto, b.skipped+uint64(len(r.Unreadable))
	return added, nil
}

// Reading is what a batch of the log brings into a catalog, and how far it brings
// it: rows and position belong into one transaction.
type Reading struct {
	Entries    []catalog.Entry  // of the generations that the batch completes
	Upto       catalog.Position // of the last commit of the batch
	Commits    int              // that were read
	Unreadable []Unreadable     // completing commits without a row
}

// add appends the reading of the batch that follows.
func (r *Reading) add(next Reading) {
	r.Entries, r.Unreadable = append(r.Entries, next.Entries...), append(r.Unreadable, next.Unreadable...)
	r.Upto, r.Commits = next.Upto, r.Commits+next.Commits
}

// Unreadable is a completing commit that cannot be read, and why.
type Unreadable struct {
	Entry stream.Entry
	Cause error // wraps events.ErrMalformed
}

// Read reads a batch, in stream order, for a catalog that is at the position. It
// is pure. Commits at or below the position are passed over.
func Read(at catalog.Position, batch []stream.Entry) Reading {
	r := Reading{Upto: at}
	for _, e := range batch {
		if e.Sequence <= at.Sequence {
			continue
		}
		r.Commits++
		r.Upto.Sequence, r.Upto.Digest = e.Sequence, e.Digest
		if !e.Completes() {
			continue
		}
		entry, err := entryOf(e)
		if err != nil {
			r.Unreadable = append(r.Unreadable, Unreadable{e, err})
			continue
		}
		r.Entries = append(r.Entries, entry)
	}
	return r
}

// save writes the position if it lags behind what has been read.
func (b *build) save(ctx context.Context) error {
	if b.unsaved == 0 {
		return nil
	}
	if _, err := b.cat.Insert(ctx, nil, b.at); err != nil {
		return own(err)
	}
	b.unsaved = 0
	return nil
}

// retire closes b, which serves no more, and removes its files or, if they are
// damaged, sets them aside.
func (b *build) retire(dir string) error {
	err := b.cat.Close()
	if b.damaged {
		return errors.Join(err, setAside(dir, b.name))
	}
	return errors.Join(err, removeBuild(dir, b.name))
}

// fillMax is how many generations a fill writes in one transaction at most.
const fillMax = 4096

// fill reads the log into b up to and including a sequence. What comes next is read
// and decoded while the catalog is written.
func (b *build) fill(ctx context.Context, log *stream.Log, upto uint64, park func(stream.Entry, error) error, progress func(done, total uint64)) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	read := make(chan Reading, 8)
	ended := make(chan error, 1)
	go func(at catalog.Position) {
		defer close(read)
		ended <- log.Scan(reading, at.Sequence, upto, func(batch []stream.Entry) error {
			r := Read(at, batch)
			at = r.Upto
			select {
			case read <- r:
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		})
	}(b.at)
	for r := range read {
		for more := true; more && len(r.Entries) < fillMax; {
			select {
			case next, ok := <-read:
				if more = ok; ok {
					r.add(next)
				}
			default:
				more = false
			}
		}
		if _, err := b.enter(ctx, r, park); err != nil {
			stop()
			for range read { // until Scan has ended
			}
			return fmt.Errorf("fill %s: %w", b.name, err)
		}
		progress(b.at.Sequence, upto)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("fill %s: %w", b.name, err)
	}
	return b.save(ctx)
}

// Build makes a catalog of the log up to and including a sequence, in a file of
// its own at path, for a comparison with the one that serves. Completing commits
// that cannot be read are passed over. The caller closes and removes it.
func Build(ctx context.Context, log *stream.Log, path string, upto uint64) (*catalog.Catalog, error) {
	cat, err := catalog.Create(ctx, path, log.Fingerprint())
	if err != nil {
		return nil, fmt.Errorf("build catalog: %w", err)
	}
	b := &build{cat: cat, name: filepath.Base(path), at: catalog.Position{Fingerprint: log.Fingerprint()}}
	pass := func(stream.Entry, error) error { return nil }
	if err = cat.Unsafe(ctx); err == nil {
		err = b.fill(ctx, log, upto, pass, func(uint64, uint64) {})
	}
	if err == nil {
		err = cat.Settle(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("build catalog: %w", errors.Join(err, cat.Close()))
	}
	return cat, nil
}
