package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/fault"
)

// Entry is one completed generation with everything that enters the catalog for it.
type Entry struct {
	Sequence   uint64 // stream sequence of the completing commit
	Generation Generation
	Artifacts  []Artifact // of that generation, with different IDs
	Labels     map[string]string
}

const (
	insertGeneration = "insert into generations (rowid, id, model, input, artifact_count, created_at, completed_at) values (?, ?, ?, ?, ?, ?, ?) on conflict (id) do nothing"
	insertArtifact   = "insert into artifacts (id, generation_id, model, blob_key, content_type, seed, cost, metadata, created_at) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
	insertEntry      = "insert into entries (sequence, generation_id) values (?, ?)"
	insertLabel      = "insert into generation_labels (key, value, created_at, generation_id) values (?, ?, ?, ?)"
	insertArtLabel   = "insert into artifact_labels (key, value, created_at, artifact_id) values (?, ?, ?, ?)"
	updateCounters   = "update counters set generations = ?, failed = ?, artifacts = ?, cost = ?"
	updatePosition   = "update position set sequence = ?, digest = ? where fingerprint = ? and sequence = ?"
)

// Insert adds entries, in the order of their sequences, and moves the position to
// upto, all in one transaction: a restart finds either none of it or all of it.
// Entries at or below the position so far, and generations that have a row, are
// passed over, so repeating an Insert changes nothing. It returns how many
// generations were new. entries may be empty; then only the position moves.
func (c *Catalog) Insert(ctx context.Context, entries []Entry, upto Position) (added int, err error) {
	tx, err := c.writer.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("insert into catalog: %w", damaged(err))
	}
	defer tx.Rollback()
	before := c.totals
	c.totals = nil // until it is known what the file says now
	after, added, err := insert(ctx, tx, before, entries, upto)
	if err != nil {
		return 0, fmt.Errorf("insert into catalog: %w", damaged(err))
	}
	if err := fault.Hit("project.commit"); err != nil {
		return 0, fmt.Errorf("insert into catalog: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("insert into catalog: %w", damaged(err))
	}
	c.totals = after
	return added, nil
}

// totals are what the file says of itself.
type totals struct {
	at     Position
	counts Counts
}

func readTotals(ctx context.Context, r Reader) (*totals, error) {
	at, err := r.Position(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := r.Counts(ctx)
	return &totals{at, counts}, err
}

// insert returns what the file says after it. before is what it says, nil if that
// is to be read: that it still does is seen from the position.
func insert(ctx context.Context, tx *sql.Tx, before *totals, entries []Entry, upto Position) (after *totals, added int, err error) {
	if before == nil {
		if before, err = readTotals(ctx, Reader{tx}); err != nil {
			return nil, 0, err
		}
	}
	at, counts := before.at, before.counts
	if at.Fingerprint != upto.Fingerprint {
		return nil, 0, fmt.Errorf("this build is of stream %s, not of %s", at.Fingerprint, upto.Fingerprint)
	}
	if upto.Sequence <= at.Sequence {
		return before, 0, nil
	}
	moved, err := tx.ExecContext(ctx, updatePosition, int64(upto.Sequence), upto.Digest, at.Fingerprint, int64(at.Sequence))
	if err != nil {
		return nil, 0, err
	}
	switch n, err := moved.RowsAffected(); {
	case err != nil:
		return nil, 0, err
	case n == 0: // before is not what the file says
		return insert(ctx, tx, nil, entries, upto)
	}
	for _, e := range entries {
		if e.Sequence <= at.Sequence {
			continue
		}
		isNew, err := e.insert(ctx, tx)
		if err != nil {
			return nil, 0, fmt.Errorf("generation=%s: %w", e.Generation.ID, err)
		}
		if isNew {
			counts.add(e)
			added++
		}
	}
	if added > 0 {
		_, err = tx.ExecContext(ctx, updateCounters, counts.Generations, counts.Failed, counts.Artifacts, counts.Cost)
	}
	return &totals{upto, counts}, added, err
}

func (e Entry) insert(ctx context.Context, tx *sql.Tx) (isNew bool, err error) {
	result, err := tx.ExecContext(ctx, insertGeneration, append([]any{int64(e.Sequence)}, e.Generation.values()...)...)
	if err != nil {
		return false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, insertEntry, int64(e.Sequence), string(e.Generation.ID)); err != nil {
		return false, err
	}
	for _, a := range e.Artifacts {
		if _, err := tx.ExecContext(ctx, insertArtifact, a.values()...); err != nil {
			return false, err
		}
	}
	for key, value := range e.Labels {
		if _, err := tx.ExecContext(ctx, insertLabel, key, value, e.Generation.CreatedAt.UnixMicro(), string(e.Generation.ID)); err != nil {
			return false, err
		}
		for _, a := range e.Artifacts {
			if _, err := tx.ExecContext(ctx, insertArtLabel, key, value, a.CreatedAt.UnixMicro(), a.ID); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

func (c *Counts) add(e Entry) {
	c.Generations++
	if len(e.Artifacts) == 0 {
		c.Failed++
	}
	for _, a := range e.Artifacts {
		c.Artifacts++
		switch {
		case a.Cost == nil:
		case *a.Cost > 0 && c.Cost > math.MaxInt64-*a.Cost:
			c.Cost = math.MaxInt64
		case *a.Cost < 0 && c.Cost < math.MinInt64-*a.Cost:
			c.Cost = math.MinInt64
		default:
			c.Cost += *a.Cost
		}
	}
}

// Check says what would keep e from being stored, nil if nothing would: a commit
// that was not written by genstream must not stop every commit after it.
func (e Entry) Check() error {
	if len(e.Artifacts) != e.Generation.ArtifactCount {
		return fmt.Errorf("artifact count %d, artifacts %d", e.Generation.ArtifactCount, len(e.Artifacts))
	}
	seen := make(map[string]bool, len(e.Artifacts))
	for _, a := range e.Artifacts {
		id, _, err := events.ParseArtifactID(a.ID)
		switch {
		case err != nil:
			return fmt.Errorf("artifact %q: %w", events.Cut(a.ID, 64), err)
		case id != e.Generation.ID || a.GenerationID != id:
			return fmt.Errorf("artifact %s belongs to another generation", a.ID)
		case seen[a.ID]:
			return fmt.Errorf("artifact %s is there twice", a.ID)
		}
		seen[a.ID] = true
	}
	return nil
}
