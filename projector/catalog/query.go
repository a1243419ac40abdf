package catalog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/genstream/genstream/events"
)

// ErrNotFound is an ID without a row: unknown, or not completed and read yet.
var ErrNotFound = errors.New("not in the catalog")

// Reader answers the queries; a Catalog and a Snapshot are Readers.
type Reader struct{ q querier }

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// The fixed queries; the lists are built in filter.go.
const (
	selectGeneration = "select " + generationColumns + " from generations g where g.id = ?"
	selectCompleted  = "select rowid from generations where id = ?"
	selectArtifact   = "select " + artifactColumns + " from artifacts a where a.id = ?"
	selectChanges    = "select sequence, generation_id from entries where sequence > ? order by sequence limit ?"
	selectLastEntry  = "select coalesce(max(sequence), 0) from entries"
	selectCounts     = "select generations, failed, artifacts, cost from counters where one = 1"
	selectPosition   = "select fingerprint, sequence, digest from position where one = 1"
)

// GenerationPage is one page of a list.
type GenerationPage struct {
	Generations []Generation
	Next        string // After of the next page; empty = this is the last one
}

// ArtifactPage is one page of a list.
type ArtifactPage struct {
	Artifacts []Artifact
	Next      string // After of the next page; empty = this is the last one
}

// Generations lists generations, newest first. The error wraps ErrFilter or ErrCursor.
func (r Reader) Generations(ctx context.Context, f GenerationFilter) (GenerationPage, error) {
	l, err := f.list()
	if err != nil {
		return GenerationPage{}, fmt.Errorf("list generations: %w", err)
	}
	rows, err := collect(l.within(ctx), r.q, newGenerationScan().row, l.sql.String(), l.args...)
	if err != nil {
		return GenerationPage{}, fmt.Errorf("list generations: %w", err)
	}
	if len(rows) <= l.limit {
		return GenerationPage{Generations: rows}, nil
	}
	rows = rows[:l.limit]
	last := rows[l.limit-1]
	return GenerationPage{rows, place{last.CreatedAt.UnixMicro(), string(last.ID)}.cursor(l.hash)}, nil
}

// Artifacts lists artifacts, newest first. The error wraps ErrFilter or ErrCursor.
func (r Reader) Artifacts(ctx context.Context, f ArtifactFilter) (ArtifactPage, error) {
	l, err := f.list()
	if err != nil {
		return ArtifactPage{}, fmt.Errorf("list artifacts: %w", err)
	}
	rows, err := collect(l.within(ctx), r.q, newArtifactScan().row, l.sql.String(), l.args...)
	if err != nil {
		return ArtifactPage{}, fmt.Errorf("list artifacts: %w", err)
	}
	if len(rows) <= l.limit {
		return ArtifactPage{Artifacts: rows}, nil
	}
	rows = rows[:l.limit]
	last := rows[l.limit-1]
	return ArtifactPage{rows, place{last.CreatedAt.UnixMicro(), last.ID}.cursor(l.hash)}, nil
}

// Generation is one row by its ID. The error wraps ErrNotFound.
func (r Reader) Generation(ctx context.Context, id events.ID) (Generation, error) {
	g, err := newGenerationScan().row(r.q.QueryRowContext(brief(ctx), selectGeneration, string(id)))
	if err != nil {
		return Generation{}, fmt.Errorf("read generation=%s: %w", id, absent(err))
	}
	return g, nil
}

// Completed is the stream sequence of the commit that completed a generation, 0 if it
// has no row. It is the row's number, which costs nothing to keep, and which VACUUM
// may change: whoever reads the log there has to see whether it is that commit.
func (r Reader) Completed(ctx context.Context, id events.ID) (sequence uint64, err error) {
	err = r.q.QueryRowContext(brief(ctx), selectCompleted, string(id)).Scan(&sequence)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read sequence of generation=%s: %w", id, damaged(err))
	}
	return sequence, nil
}

// Artifact is one row by its ID. The error wraps ErrNotFound.
func (r Reader) Artifact(ctx context.Context, id string) (Artifact, error) {
	a, err := newArtifactScan().row(r.q.QueryRowContext(brief(ctx), selectArtifact, id))
	if err != nil {
		return Artifact{}, fmt.Errorf("read artifact %s: %w", events.Cut(id, 64), absent(err))
	}
	return a, nil
}

// Changes are the generations that entered the catalog after a sequence, in the
// order of entry, at most limit (1 to MaxLimit; 0 = DefaultLimit). The Sequence of
// the last one is where to go on; it stays valid over rebuilds. The error wraps
// ErrFilter.
func (r Reader) Changes(ctx context.Context, after uint64, limit int) ([]Change, error) {
	if limit == 0 {
		limit = DefaultLimit
	}
	if limit < 1 || limit > MaxLimit {
		return nil, fmt.Errorf("list changes: limit: want 1 to %d: %w", MaxLimit, ErrFilter)
	}
	changes, err := collect(brief(ctx), r.q, func(s scanner) (c Change, err error) {
		err = s.Scan(&c.Sequence, &c.ID)
		return c, err
	}, selectChanges, int64(min(after, math.MaxInt64)), limit)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return changes, nil
}

// LastEntry is the sequence of the newest change, 0 if there is none.
func (r Reader) LastEntry(ctx context.Context) (sequence uint64, err error) {
	if err := r.q.QueryRowContext(brief(ctx), selectLastEntry).Scan(&sequence); err != nil {
		return 0, fmt.Errorf("read last entry: %w", err)
	}
	return sequence, nil
}

// Counts are the totals.
func (r Reader) Counts(ctx context.Context) (c Counts, err error) {
	err = r.q.QueryRowContext(brief(ctx), selectCounts).Scan(&c.Generations, &c.Failed, &c.Artifacts, &c.Cost)
	if err != nil {
		return Counts{}, fmt.Errorf("read counts: %w", err)
	}
	return c, nil
}

// Position is how far this build is known to have read. The projector may have
// read further, over commits that complete nothing.
func (r Reader) Position(ctx context.Context) (p Position, err error) {
	err = r.q.QueryRowContext(brief(ctx), selectPosition).Scan(&p.Fingerprint, &p.Sequence, &p.Digest)
	if err != nil {
		return Position{}, fmt.Errorf("read position: %w", err)
	}
	return p, nil
}

// allQueries is the text of every query, in every combination of filters.
func allQueries() []string {
	queries := []string{selectGeneration, selectCompleted, selectArtifact, selectChanges, selectLastEntry, selectCounts, selectPosition}
	yes, no := true, false
	for _, model := range []string{"", "m"} {
		for _, label := range []Label{{}, {Key: "k"}} {
			for _, failed := range []*bool{nil, &yes, &no} {
				queries = append(queries, statement(GenerationFilter{Model: model, Label: label, Failed: failed}))
			}
			for _, id := range []events.ID{"", "x"} {
				queries = append(queries, statement(ArtifactFilter{Model: model, Label: label, Generation: id}))
			}
		}
	}
	return queries
}

// statement is a list's text; From, To and After change only what is bound.
func statement(f interface{ list() (*list, error) }) string {
	l, err := f.list()
	if err != nil {
		panic(fmt.Sprintf("catalog: filter: %v", err))
	}
	return l.sql.String()
}

func collect[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, damaged(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		if all == nil {
			all = make([]T, 0, DefaultLimit+1)
		}
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, damaged(rows.Err())
}

// brief is ctx for a query that reads hardly more than it returns, one row or a page:
// it is over before anybody could end it, and watching whether somebody wants to
// takes a fifth of its time.
func brief(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

func absent(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return damaged(err)
}
