package catalog

import (
	"database/sql"
	"encoding/json"
	"time"

	"github.com/genstream/genstream/events"
)

// Generation is a row of the table generations.
type Generation struct {
	ID            events.ID
	Model         string
	Input         json.RawMessage // a JSON object
	ArtifactCount int             // 0 = failed
	CreatedAt     time.Time       // UTC, microseconds
	CompletedAt   time.Time       // UTC, microseconds
}

// Artifact is a row of the table artifacts.
type Artifact struct {
	ID           string // events.ArtifactID
	GenerationID events.ID
	Model        string
	BlobKey      string
	ContentType  string
	Seed         string          // decimal; empty = unknown
	Cost         *int64          // billionths of a dollar; nil = unknown
	Metadata     json.RawMessage // nil = none
	CreatedAt    time.Time       // UTC, microseconds
}

// Position is how far a build has read, and of which log.
type Position struct {
	Fingerprint string // of the stream
	Sequence    uint64 // every commit up to it has been read
	Digest      string // of the commit at Sequence; empty at 0
}

// Change is one generation in the order of entry.
type Change struct {
	Sequence uint64 // stream sequence of the completing commit
	ID       events.ID
}

// Counts are the totals of a build.
type Counts struct {
	Generations int64
	Failed      int64 // generations without an artifact
	Artifacts   int64
	Cost        int64 // billionths of a dollar; stays at the largest number there is instead of overflowing
}

const (
	generationColumns = "g.id, g.model, g.input, g.artifact_count, g.created_at, g.completed_at"
	artifactColumns   = "a.id, a.generation_id, a.model, a.blob_key, a.content_type, a.seed, a.cost, a.metadata, a.created_at"
)

// scanner is *sql.Row or *sql.Rows.
type scanner interface{ Scan(...any) error }

// generationScan and artifactScan are where the columns of a row go: one for all
// rows of a list, because each would be allocated, and of types that database/sql
// needs no reflection for.
type generationScan struct {
	id, model, input          string
	count, created, completed int64
	into                      []any
}

func newGenerationScan() *generationScan {
	g := new(generationScan)
	g.into = []any{&g.id, &g.model, &g.input, &g.count, &g.created, &g.completed}
	return g
}

func (g *generationScan) row(s scanner) (Generation, error) {
	err := s.Scan(g.into...)
	return Generation{
		ID: events.ID(g.id), Model: g.model, Input: json.RawMessage(g.input), ArtifactCount: int(g.count),
		CreatedAt: fromMicros(g.created), CompletedAt: fromMicros(g.completed),
	}, err
}

type artifactScan struct {
	id, generation, model, key, contentType string
	seed, metadata                          sql.NullString
	cost                                    sql.NullInt64
	created                                 int64
	into                                    []any
}

func newArtifactScan() *artifactScan {
	a := new(artifactScan)
	a.into = []any{&a.id, &a.generation, &a.model, &a.key, &a.contentType, &a.seed, &a.cost, &a.metadata, &a.created}
	return a
}

func (a *artifactScan) row(s scanner) (Artifact, error) {
	err := s.Scan(a.into...)
	row := Artifact{
		ID: a.id, GenerationID: events.ID(a.generation), Model: a.model, BlobKey: a.key, ContentType: a.contentType,
		Seed: a.seed.String, CreatedAt: fromMicros(a.created),
	}
	if a.cost.Valid {
		cost := a.cost.Int64
		row.Cost = &cost
	}
	if a.metadata.Valid {
		row.Metadata = json.RawMessage(a.metadata.String)
	}
	return row, err
}

func (g Generation) values() []any {
	return []any{string(g.ID), g.Model, string(g.Input), g.ArtifactCount, g.CreatedAt.UnixMicro(), g.CompletedAt.UnixMicro()}
}

func (a Artifact) values() []any {
	var cost any
	if a.Cost != nil {
		cost = *a.Cost
	}
	return []any{
		a.ID, string(a.GenerationID), a.Model, a.BlobKey, a.ContentType,
		orNull(a.Seed), cost, orNull(string(a.Metadata)), a.CreatedAt.UnixMicro(),
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func fromMicros(n int64) time.Time { return time.UnixMicro(n).UTC() }
