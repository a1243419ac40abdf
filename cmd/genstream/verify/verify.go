// Package verify checks what the design promises about stored data: the log, the
// catalog, the bucket, and the simulated provider's journal where there is one,
// against each other.
//
// # What it reads
//
// The whole log once, in order; every row; every file, whole. It changes nothing.
// It reads a snapshot of the catalog and the log up to its own start, so it may
// run beside a working server: what is younger is not looked at.
//
// # What it says
//
// One line an invariant: how many things were looked at and how many are wrong,
// with the IDs and what can be done. An invariant that could not be checked is
// said to be skipped, never counted as good.
package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

// Source is what is verified. Log and Bucket must be set.
type Source struct {
	Log     *stream.Log
	Bucket  *blob.Bucket
	Catalog *catalog.Catalog // nil: there is none yet, and what needs it is skipped
	Journal []sim.Entry      // of the simulated provider; nil: what needs it is skipped
	Grace   time.Duration    // orphan files younger than this are somebody's work in progress
}

// Run verifies. An error means that it could not be finished; violations are in
// the report.
func Run(ctx context.Context, s Source) (*Report, error) {
	v := &verifier{Source: s, Report: newReport()}
	v.log = readLog{Report: v.Report, subjects: map[events.ID]*subject{}, done: v.completed}
	if err := v.openRows(ctx); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer v.closeRows()
	upto, err := s.Log.Refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	err = s.Log.Scan(ctx, 0, upto, func(batch []stream.Entry) error {
		v.log.entries(batch)
		return v.failed
	})
	if errors.Is(err, stream.ErrNotFound) {
		v.broken("I3", "", "restore the stream from a backup", "the last commit, at sequence %d, is missing from the log", upto)
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	for _, check := range []func(context.Context) error{v.rows, v.dump, v.position, v.files, v.journal} {
		if err := check(ctx); err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
	}
	return v.Report, nil
}

// verifier is one run.
type verifier struct {
	Source
	*Report
	log readLog

	snapshot  *catalog.Snapshot
	at        catalog.Position
	rebuilt   *catalog.Catalog // in a temporary directory: what a rebuild gives
	dir       string
	unwritten []catalog.Entry // completed generations on their way into rebuilt
	failed    error           // of a query while the log was read
}

func (v *verifier) openRows(ctx context.Context) (err error) {
	if v.Catalog == nil {
		v.skip("there is no catalog", "I8", "I9", "I10", "I12", "I21")
		return nil
	}
	if v.snapshot, err = v.Catalog.Snapshot(ctx); err != nil {
		return err
	}
	if v.at, err = v.snapshot.Position(ctx); err != nil {
		return err
	}
	if v.dir, err = os.MkdirTemp("", "genstream-verify-*"); err != nil {
		return err
	}
	v.rebuilt, err = catalog.Create(ctx, filepath.Join(v.dir, "rebuilt.db"), v.at.Fingerprint)
	return err
}

func (v *verifier) closeRows() {
	if v.rebuilt != nil {
		v.rebuilt.Close()
	}
	if v.snapshot != nil {
		v.snapshot.Close()
	}
	os.RemoveAll(v.dir)
}

// completed is called with each completion while the log is read: I7 and I8.
func (v *verifier) completed(g events.Generation, sequence uint64) {
	v.looked("I7", 1)
	if v.snapshot == nil || sequence > v.at.Sequence || v.failed != nil {
		return
	}
	row, artifacts := projector.Rows(g)
	v.unwritten = append(v.unwritten, catalog.Entry{Sequence: sequence, Generation: row, Artifacts: artifacts, Labels: g.Labels})
	if len(v.unwritten) >= 500 {
		v.failed = v.flush(context.Background(), catalog.Position{})
	}
	if v.failed == nil {
		v.failed = v.compare(context.Background(), row, artifacts)
	}
}

const rebuildIt = "run `genstream rebuild`, then verify again"

func (v *verifier) compare(ctx context.Context, want catalog.Generation, artifacts []catalog.Artifact) error {
	v.looked("I8", 1+len(artifacts))
	have, err := v.snapshot.Generation(ctx, want.ID)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		v.broken("I8", want.ID, rebuildIt, "is completed and has no row")
		return nil
	case err != nil:
		return err
	case !sameGeneration(have, want):
		v.broken("I8", want.ID, rebuildIt, "the row differs from the fold")
	}
	rows := 0
	for _, a := range artifacts {
		have, err := v.snapshot.Artifact(ctx, a.ID)
		switch {
		case errors.Is(err, catalog.ErrNotFound):
			v.broken("I8", want.ID, rebuildIt, "artifact %s has no row", a.ID)
			continue
		case err != nil:
			return err
		case !sameArtifact(have, a):
			v.broken("I8", want.ID, rebuildIt, "the row of artifact %s differs from the fold", a.ID)
		}
		rows++
	}
	if have.ArtifactCount != rows {
		v.broken("I7", want.ID, rebuildIt, "artifact_count is %d, and %d of its artifacts have rows", have.ArtifactCount, rows)
	}
	return nil
}

func sameGeneration(a, b catalog.Generation) bool {
	return a.ID == b.ID && a.Model == b.Model && bytes.Equal(a.Input, b.Input) && a.ArtifactCount == b.ArtifactCount &&
		a.CreatedAt.Equal(b.CreatedAt) && a.CompletedAt.Equal(b.CompletedAt)
}

func sameArtifact(a, b catalog.Artifact) bool {
	cost := a.Cost == nil && b.Cost == nil || a.Cost != nil && b.Cost != nil && *a.Cost == *b.Cost
	return cost && a.ID == b.ID && a.GenerationID == b.GenerationID && a.Model == b.Model && a.BlobKey == b.BlobKey &&
		a.ContentType == b.ContentType && a.Seed == b.Seed && bytes.Equal(a.Metadata, b.Metadata) && a.CreatedAt.Equal(b.CreatedAt)
}

// flush writes what is unwritten into the rebuilt catalog.
func (v *verifier) flush(ctx context.Context, upto catalog.Position) error {
	if upto.Fingerprint == "" && len(v.unwritten) > 0 {
		upto = catalog.Position{Fingerprint: v.at.Fingerprint, Sequence: v.unwritten[len(v.unwritten)-1].Sequence}
	}
	_, err := v.rebuilt.Insert(ctx, v.unwritten, upto)
	v.unwritten = v.unwritten[:0]
	return err
}

// lostOr is what to do about a row that the log does not account for.
const lostOr = "if I3 or I21 is broken too, restore the log; if not, run `genstream rebuild`"

// rows is I9, and I10: that the guards which keep rows from changing are there.
func (v *verifier) rows(ctx context.Context) error {
	if v.snapshot == nil {
		return nil
	}
	for row, err := range v.snapshot.AllGenerations(ctx) {
		if err != nil {
			return err
		}
		v.looked("I9", 1)
		if s := v.log.subjects[row.ID]; s == nil || s.doneAt == 0 {
			v.broken("I9", row.ID, lostOr, "has a row and is not completed in the log")
		}
	}
	for row, err := range v.snapshot.AllArtifacts(ctx) {
		if err != nil {
			return err
		}
		v.looked("I9", 1)
		s := v.log.subjects[row.GenerationID]
		if s == nil || s.doneAt == 0 {
			v.broken("I9", row.GenerationID, lostOr, "artifact %s has a row and its generation is not completed in the log", row.ID)
		} else if !slices.ContainsFunc(s.artifacts, func(a events.Artifact) bool { return a.ID == row.ID }) {
			v.broken("I7", row.GenerationID, rebuildIt, "artifact %s has a row and is not in the log", row.ID)
		}
	}
	missing, looked, err := v.Catalog.Guards(ctx)
	if err != nil {
		return err
	}
	v.looked("I10", looked)
	for _, name := range missing {
		v.broken("I10", "", rebuildIt, "the catalog's guard %s is missing or altered", name)
	}
	return nil
}

// dump is I12.
func (v *verifier) dump(ctx context.Context) error {
	if v.snapshot == nil || v.Claim("I21").Count > 0 {
		return nil
	}
	if err := v.flush(ctx, v.at); err != nil {
		return err
	}
	have, want := sha256.New(), sha256.New()
	if err := v.snapshot.Dump(ctx, have); err != nil {
		return err
	}
	if err := v.rebuilt.Dump(ctx, want); err != nil {
		return err
	}
	v.looked("I12", 1)
	switch err := v.Catalog.CheckIndexes(ctx); {
	case errors.Is(err, catalog.ErrDamaged):
		v.broken("I12", "", rebuildIt, "%v", err)
	case err != nil:
		return err
	}
	if !bytes.Equal(have.Sum(nil), want.Sum(nil)) {
		v.broken("I12", "", rebuildIt, "the catalog's dump differs from that of a rebuild from the log")
	}
	return nil
}

// position is I21.
func (v *verifier) position(ctx context.Context) error {
	if v.snapshot == nil {
		return nil
	}
	const do = "the stream was replaced or cut off: restore it, or accept it with `genstream rebuild`"
	v.looked("I21", 1)
	if v.at.Fingerprint != v.Log.Fingerprint() {
		v.broken("I21", "", do, "the catalog is of stream %s, the log is stream %s", v.at.Fingerprint, v.Log.Fingerprint())
		return nil
	}
	if v.at.Sequence == 0 {
		return nil
	}
	e, err := v.Log.At(ctx, v.at.Sequence)
	switch {
	case errors.Is(err, stream.ErrNotFound):
		v.broken("I21", "", do, "the catalog has read up to %d, the log ends at %d", v.at.Sequence, v.log.last)
	case err != nil:
		return err
	case e.Digest != v.at.Digest:
		v.broken("I21", e.ID, do, "the commit at %d is not the one that the catalog has read there", v.at.Sequence)
	}
	return nil
}

// files is I11 and I13.
func (v *verifier) files(ctx context.Context) error {
	named := map[string]bool{}
	for _, id := range v.log.order {
		s := v.log.subjects[id]
		for _, hash := range s.inputs {
			key := events.InputKey(hash)
			if named[key] {
				continue // looked at for somebody else
			}
			v.looked("I11", 1)
			if err := v.file(ctx, id, "an input's file", events.File{BlobKey: key, SHA256: hash, Size: -1}); err != nil {
				return err
			}
			named[key] = true
		}
		for _, key := range s.keys {
			named[key] = true
		}
		for _, f := range s.delivered { // what became an artifact is looked at as one
			if slices.ContainsFunc(s.artifacts, func(a events.Artifact) bool { return a.BlobKey == f.BlobKey }) {
				continue
			}
			v.looked("I11", 1)
			if err := v.file(ctx, id, "a delivered file", f); err != nil {
				return err
			}
		}
		for _, a := range s.artifacts {
			v.looked("I11", 1)
			if err := v.file(ctx, id, "artifact "+a.ID, a.File); err != nil {
				return err
			}
		}
	}
	for _, list := range []iter.Seq2[blob.Object, error]{v.Bucket.List(ctx, ""), v.Bucket.Leftovers(ctx, "")} {
		for object, err := range list {
			if err != nil {
				return err
			}
			v.looked("I13", 1)
			if age := time.Since(object.ModTime); !named[object.Key] && age > v.Grace {
				id, _, _, _ := blob.ParseKey(object.Key) // whatever is listed has a key of ours
				v.Orphans = append(v.Orphans, object.Key)
				v.broken("I13", id, "run `genstream gc`", "no commit names %s, which is %s old", object.Key, age.Round(time.Second))
			}
		}
	}
	slices.Sort(v.Orphans)
	return nil
}

// file reads one file, whole. A size of -1 is one that the log does not have.
func (v *verifier) file(ctx context.Context, id events.ID, what string, a events.File) error {
	const do = "restore the file from a backup of the bucket"
	r, err := v.Bucket.Read(ctx, a.BlobKey)
	if errors.Is(err, blob.ErrNotFound) {
		v.broken("I11", id, do, "%s has no file %s", what, a.BlobKey)
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	switch sum := fmt.Sprintf("%x", h.Sum(nil)); {
	case err != nil:
		v.broken("I11", id, do, "%s: its file cannot be read: %v", what, err)
	case n != a.Size && a.Size >= 0:
		v.broken("I11", id, do, "%s: its file has %d bytes, recorded are %d", what, n, a.Size)
	case sum != a.SHA256:
		v.broken("I11", id, do, "%s: its file has another sha256", what)
	}
	return nil
}
