package projector

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector/catalog"
)

// Rows is the border between outputs and artifacts: the one row of a completed
// generation, and a row for each good output, in the order of the slots. It is
// pure. A generation that is not completed has no rows, and asking for them panics.
//
// When it is changed to write something else for the same generation, the
// revision in catalog/schema.sql is raised, so that old builds are built again.
func Rows(g events.Generation) (catalog.Generation, []catalog.Artifact) {
	if !g.Done() {
		panic(fmt.Sprintf("projector: rows of generation=%s, which is not completed", g.ID))
	}
	row := catalog.Generation{
		ID: g.ID, Model: g.Model, Input: g.Input, ArtifactCount: g.ArtifactCount(),
		CreatedAt: stored(g.CreatedAt), CompletedAt: stored(g.CompletedAt),
	}
	var artifacts []catalog.Artifact
	for _, o := range g.Outputs {
		a := o.Artifact
		if a == nil {
			continue
		}
		artifacts = append(artifacts, catalog.Artifact{
			ID: a.ID, GenerationID: g.ID, Model: g.Model, BlobKey: a.BlobKey, ContentType: a.ContentType,
			Seed: a.Seed, Cost: a.Cost, Metadata: orNil(a.Metadata), CreatedAt: stored(a.CreatedAt),
		})
	}
	return row, artifacts
}

// stored is t as it comes back from a row.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// orNil is metadata as it comes back from a row: none is nil.
func orNil(m json.RawMessage) json.RawMessage {
	if len(m) == 0 {
		return nil
	}
	return m
}

// entryOf is what enters the catalog for a completing commit. It trusts nothing
// that would stop the catalog: the commit may have been written by anybody who
// can write to the stream, or by a later version.
func entryOf(e stream.Entry) (catalog.Entry, error) {
	last, err := e.Last()
	if err != nil {
		return catalog.Entry{}, err
	}
	done, ok := last.(events.Completed)
	g := done.Generation
	switch {
	case !ok:
		err = errors.New("the header says that it completes, its events do not")
	case g.ID != e.ID:
		err = fmt.Errorf("it carries generation=%s", g.ID)
	case !g.Done() || g.CreatedAt.IsZero():
		err = errors.New("the generation has no time of creation or completion")
	case len(g.Input) == 0:
		err = errors.New("the generation has no input")
	}
	if err != nil {
		return catalog.Entry{}, fmt.Errorf("commit at %d of generation=%s: %w: %w", e.Sequence, e.ID, events.ErrMalformed, err)
	}
	entry := catalog.Entry{Sequence: e.Sequence, Labels: g.Labels}
	entry.Generation, entry.Artifacts = Rows(g)
	if err := entry.Check(); err != nil {
		return catalog.Entry{}, fmt.Errorf("commit at %d of generation=%s: %w: %w", e.Sequence, e.ID, events.ErrMalformed, err)
	}
	return entry, nil
}
