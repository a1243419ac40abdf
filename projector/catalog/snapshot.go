package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
)

// Snapshot is the catalog at one position, whatever is inserted meanwhile. As
// long as it is open the write-ahead log cannot shrink, so it is for verification
// and comparison, not for serving.
type Snapshot struct {
	Reader
	tx *sql.Tx
}

// Snapshot opens one. The caller closes it.
func (c *Catalog) Snapshot(ctx context.Context) (*Snapshot, error) {
	tx, err := c.readers.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", damaged(err))
	}
	s := &Snapshot{Reader{tx}, tx}
	if _, err := s.Position(ctx); err != nil { // SQLite's snapshot begins with the first read
		s.Close()
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	return s, nil
}

// Close ends the snapshot.
func (s *Snapshot) Close() { s.tx.Rollback() }

// AllGenerations are all rows in order of ID, until the first error.
func (s *Snapshot) AllGenerations(ctx context.Context) iter.Seq2[Generation, error] {
	return each(ctx, s.tx, newGenerationScan().row, "select "+generationColumns+" from generations g order by g.id")
}

// AllArtifacts are all rows in order of ID, until the first error. Artifacts of
// one generation stand together, in the order of their slots as text.
func (s *Snapshot) AllArtifacts(ctx context.Context) iter.Seq2[Artifact, error] {
	return each(ctx, s.tx, newArtifactScan().row, "select "+artifactColumns+" from artifacts a order by a.id")
}

// AllChanges are all entries in the order of entry, until the first error.
func (s *Snapshot) AllChanges(ctx context.Context) iter.Seq2[Change, error] {
	return each(ctx, s.tx, func(s scanner) (c Change, err error) {
		err = s.Scan(&c.Sequence, &c.ID)
		return c, err
	}, "select sequence, generation_id from entries order by sequence")
}

func each[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := q.QueryContext(ctx, query)
		if err != nil {
			yield(none, fmt.Errorf("read catalog: %w", damaged(err)))
			return
		}
		defer rows.Close()
		for rows.Next() {
			v, err := scan(rows)
			if err != nil {
				yield(none, fmt.Errorf("read catalog: %w", err))
				return
			}
			if !yield(v, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, fmt.Errorf("read catalog: %w", damaged(err)))
		}
	}
}

// dumped are the tables of a dump and their keys. The position is not among
// them: it says how far a build has read, and two builds that say the same may
// differ in it by commits that complete nothing.
var dumped = []struct{ table, columns, key string }{
	{"generations", "id, model, input, artifact_count, created_at, completed_at", "id"},
	{"artifacts", "id, generation_id, model, blob_key, content_type, seed, cost, metadata, created_at", "id"},
	{"entries", "sequence, generation_id", "sequence"},
	{"generation_labels", "key, value, created_at, generation_id", "key, value, created_at, generation_id"},
	{"artifact_labels", "key, value, created_at, artifact_id", "key, value, created_at, artifact_id"},
	{"counters", "generations, failed, artifacts, cost", "one"},
}

// Dump writes everything that the snapshot says as text: a line per row, tables
// and rows in a fixed order, every column by name, text quoted as in Go. Builds
// of the same log up to the same completed generation have the same dump.
func (s *Snapshot) Dump(ctx context.Context, w io.Writer) error {
	for _, t := range dumped {
		names := strings.Split(t.columns, ", ")
		rows := each(ctx, s.tx, func(sc scanner) (string, error) {
			return line(t.table, names, sc)
		}, "select "+t.columns+" from "+t.table+" order by "+t.key)
		for row, err := range rows {
			if err != nil {
				return fmt.Errorf("dump %s: %w", t.table, err)
			}
			if _, err := io.WriteString(w, row); err != nil {
				return fmt.Errorf("dump %s: %w", t.table, err)
			}
		}
	}
	return nil
}

func line(table string, names []string, s scanner) (string, error) {
	values := make([]any, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	if err := s.Scan(into...); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(table)
	for i, v := range values {
		b.WriteString(" " + names[i] + "=")
		switch v := v.(type) {
		case nil:
			b.WriteString("null")
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case string:
			b.WriteString(strconv.Quote(v))
		default:
			return "", fmt.Errorf("%s.%s: unexpected %T", table, names[i], v)
		}
	}
	b.WriteByte('\n')
	return b.String(), nil
}

// Dump is Snapshot.Dump of the catalog as it is now.
func (c *Catalog) Dump(ctx context.Context, w io.Writer) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Dump(ctx, w)
}
