package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector/catalog"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

func generationID(n int) events.ID { return events.ID(fmt.Sprintf("0190a5c1-7a00-7000-8000-%012x", n)) }

// entry is generation n with its artifacts. Times repeat, so that lists have ties.
func entry(n, artifacts int, model string, labels map[string]string) catalog.Entry {
	id := generationID(n)
	created := epoch.Add(time.Duration(n/3) * time.Second)
	e := catalog.Entry{Sequence: uint64(10 * n), Labels: labels, Generation: catalog.Generation{
		ID: id, Model: model, Input: []byte(`{"positivePrompt":"a fox, \"red\" — 狐"}`), ArtifactCount: artifacts,
		CreatedAt: created, CompletedAt: created.Add(time.Minute),
	}}
	for slot := range artifacts {
		a := catalog.Artifact{
			ID: events.ArtifactID(id, slot), GenerationID: id, Model: model, BlobKey: "generations/" + string(id) + "/0-x.png",
			ContentType: "image/png", CreatedAt: created.Add(time.Duration(slot) * time.Second),
		}
		if slot == 0 {
			cost := int64(1300000 + n)
			a.Seed, a.Cost, a.Metadata = "18446744073709551615", &cost, []byte(`{"nsfw":false}`)
		}
		e.Artifacts = append(e.Artifacts, a)
	}
	return e
}

func upto(sequence uint64) catalog.Position {
	return catalog.Position{Fingerprint: "stream-1", Sequence: sequence, Digest: fmt.Sprint("digest-", sequence)}
}

func create(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Create(context.Background(), filepath.Join(t.TempDir(), "catalog-1.db"), "stream-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func insert(t testing.TB, c *catalog.Catalog, entries ...catalog.Entry) int {
	t.Helper()
	added, err := c.Insert(context.Background(), entries, upto(entries[len(entries)-1].Sequence))
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func dump(t testing.TB, c *catalog.Catalog) string {
	t.Helper()
	var b bytes.Buffer
	if err := c.Dump(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRowsComeBackAsInserted(t *testing.T) {
	c := create(t)
	e := entry(1, 2, "m", map[string]string{"user": "42"})
	insert(t, c, e)
	g, err := c.Generation(t.Context(), e.Generation.ID)
	if err != nil || !reflect.DeepEqual(g, e.Generation) {
		t.Errorf("generation came back as %+v, %v", g, err)
	}
	for _, want := range e.Artifacts {
		a, err := c.Artifact(t.Context(), want.ID)
		if err != nil || !reflect.DeepEqual(a, want) {
			t.Errorf("artifact came back as %+v, %v", a, err)
		}
	}
	if _, err := c.Generation(t.Context(), generationID(2)); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("unknown generation: %v, want ErrNotFound", err)
	}
	if _, err := c.Artifact(t.Context(), "' or 1=1 --"); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("unknown artifact: %v, want ErrNotFound", err)
	}
	if p, err := c.Position(t.Context()); err != nil || p != upto(10) {
		t.Errorf("position is %+v, %v", p, err)
	}
}

// What Insert remembers of the file holds only while nobody else writes to it.
func TestAnotherWriterIsNoticed(t *testing.T) {
	c := create(t)
	insert(t, c, entry(1, 2, "m", nil))
	other, err := catalog.Open(t.Context(), c.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	insert(t, other, entry(2, 0, "m", nil), entry(3, 3, "m", nil))
	if added := insert(t, c, entry(2, 0, "m", nil), entry(3, 3, "m", nil), entry(4, 1, "m", nil)); added != 1 {
		t.Errorf("added %d, want the one that nobody had", added)
	}
	whole := create(t)
	insert(t, whole, entry(1, 2, "m", nil), entry(2, 0, "m", nil), entry(3, 3, "m", nil), entry(4, 1, "m", nil))
	if got, want := dump(t, c), dump(t, whole); got != want {
		t.Errorf("two writers make\n%s\none makes\n%s", got, want)
	}
	if p, err := c.Position(t.Context()); err != nil || p != upto(40) {
		t.Errorf("position is %+v, %v", p, err)
	}
}

func TestReplayChangesNothing(t *testing.T) {
	c := create(t)
	var entries []catalog.Entry
	for n := 1; n <= 6; n++ {
		entries = append(entries, entry(n, n%3, "m", map[string]string{"user": fmt.Sprint(n % 2)}))
	}
	if added := insert(t, c, entries[:4]...); added != 4 {
		t.Fatalf("added %d, want 4", added)
	}
	before := dump(t, c)
	for name, batch := range map[string][]catalog.Entry{"the same batch": entries[:4], "a part": entries[1:3]} {
		if added := insert(t, c, batch...); added != 0 {
			t.Errorf("%s: added %d again", name, added)
		}
		if after := dump(t, c); after != before {
			t.Errorf("%s changed the catalog:\n%s\nbefore:\n%s", name, after, before)
		}
		if p, err := c.Position(t.Context()); err != nil || p != upto(40) {
			t.Errorf("%s moved the position to %+v, %v", name, p, err)
		}
	}
	// What lies below the position was read, and had no row for a reason.
	unknown := entry(9, 1, "m", nil)
	unknown.Sequence = 35
	if added, err := c.Insert(t.Context(), []catalog.Entry{unknown}, upto(45)); err != nil || added != 0 {
		t.Errorf("an entry below the position: added %d, %v", added, err)
	}
	// A batch that begins below the position adds only what is above it.
	if added := insert(t, c, entries...); added != 2 {
		t.Errorf("added %d of an overlapping batch, want 2", added)
	}
	// A second completion of an ID has no place: the first one stands.
	again := entry(1, 2, "other", nil)
	again.Sequence = 1000
	before = dump(t, c)
	if added := insert(t, c, again); added != 0 || dump(t, c) != before {
		t.Errorf("a second completion added %d rows", added)
	}
	if p, _ := c.Position(t.Context()); p.Sequence != 1000 {
		t.Errorf("position %d, want 1000", p.Sequence)
	}
}

func TestBatchesDoNotShowInTheDump(t *testing.T) {
	one, many := create(t), create(t)
	var entries []catalog.Entry
	for n := 1; n <= 20; n++ {
		entries = append(entries, entry(n, n%4, fmt.Sprint("m", n%2), map[string]string{"user": "1", "team": fmt.Sprint(n)}))
		insert(t, one, entries[n-1])
	}
	insert(t, many, entries...)
	a, b := dump(t, one), dump(t, many)
	if a != b {
		t.Errorf("one by one:\n%s\nat once:\n%s", a, b)
	}
	for _, want := range []string{"generations id=", "artifacts id=", "entries sequence=10 ", "generation_labels key=\"team\"", "artifact_labels key=", "counters generations=20 failed=5 artifacts=30 "} {
		if !strings.Contains(a, want) {
			t.Errorf("dump lacks %q:\n%s", want, a)
		}
	}
}

func TestFailedInsertLeavesNothing(t *testing.T) {
	c := create(t)
	insert(t, c, entry(1, 1, "m", nil))
	before := dump(t, c)
	bad := entry(3, 2, "m", nil)
	bad.Artifacts[1].ID = bad.Artifacts[0].ID
	if _, err := c.Insert(t.Context(), []catalog.Entry{entry(2, 1, "m", nil), bad}, upto(30)); err == nil {
		t.Fatal("two artifacts of one ID were inserted")
	}
	if p, _ := c.Position(t.Context()); dump(t, c) != before || p != upto(10) {
		t.Errorf("a failed insert left something, position %+v", p)
	}
	if _, err := c.Insert(t.Context(), nil, catalog.Position{Fingerprint: "stream-2", Sequence: 99}); err == nil {
		t.Error("the position of another stream was taken")
	}
}

func TestCountsAddUp(t *testing.T) {
	c := create(t)
	rich := entry(3, 1, "m", nil)
	most := int64(math.MaxInt64)
	rich.Artifacts[0].Cost = &most
	insert(t, c, entry(1, 0, "m", nil), entry(2, 3, "m", nil))
	if got, err := c.Counts(t.Context()); err != nil || got != (catalog.Counts{Generations: 2, Failed: 1, Artifacts: 3, Cost: 1300002}) {
		t.Errorf("counts %+v, %v", got, err)
	}
	insert(t, c, rich)
	if got, err := c.Counts(t.Context()); err != nil || got.Cost != most {
		t.Errorf("counts %+v, %v: want the largest cost there is", got, err)
	}
}

func TestRowsNeverChange(t *testing.T) {
	c := create(t)
	insert(t, c, entry(1, 1, "m", nil))
	before := dump(t, c)
	for _, statement := range []string{
		"update generations set artifact_count = 0",
		"delete from generations",
		"insert or replace into generations select * from generations",
		"update artifacts set cost = 0",
		"delete from artifacts",
		"insert or replace into artifacts select * from artifacts",
	} {
		_, err := catalog.Exec(c, statement)
		if err == nil || !strings.Contains(err.Error(), "rebuild the catalog") {
			t.Errorf("%s: %v, want a refusal that says what to do", statement, err)
		}
	}
	if dump(t, c) != before {
		t.Error("a refused statement changed a row")
	}
}

func TestChangesAreInOrderOfEntry(t *testing.T) {
	c := create(t)
	// Completed in another order than requested.
	late := entry(1, 1, "m", nil)
	late.Sequence = 35
	insert(t, c, entry(2, 1, "m", nil), entry(3, 0, "m", nil), late, entry(4, 1, "m", nil))
	var got []string
	for after := uint64(0); ; {
		page, err := c.Changes(t.Context(), after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, change := range page {
			got = append(got, fmt.Sprintf("%d:%s", change.Sequence, change.ID[35:]))
			after = change.Sequence
		}
	}
	if fmt.Sprint(got) != "[20:2 30:3 35:1 40:4]" {
		t.Errorf("changes are %v", got)
	}
	if last, err := c.LastEntry(t.Context()); err != nil || last != 40 {
		t.Errorf("last entry %d, %v", last, err)
	}
	if page, err := c.Changes(t.Context(), math.MaxUint64, 0); err != nil || len(page) != 0 {
		t.Errorf("changes after the end of numbers: %v, %v", page, err)
	}
	for _, limit := range []int{-1, 201} {
		if _, err := c.Changes(t.Context(), 0, limit); !errors.Is(err, catalog.ErrFilter) {
			t.Errorf("limit %d: %v, want ErrFilter", limit, err)
		}
	}
}

func TestSnapshotStandsStill(t *testing.T) {
	c := create(t)
	insert(t, c, entry(1, 2, "m", nil), entry(2, 0, "m", nil))
	s, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	insert(t, c, entry(3, 1, "m", nil))
	var generations, artifacts, changes []string
	for g, err := range s.AllGenerations(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		generations = append(generations, string(g.ID)[35:])
	}
	for a, err := range s.AllArtifacts(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		artifacts = append(artifacts, a.ID[35:])
	}
	for change, err := range s.AllChanges(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, fmt.Sprint(change.Sequence))
	}
	if got := fmt.Sprint(generations, artifacts, changes); got != "[1 2] [1-0 1-1] [10 20]" {
		t.Errorf("snapshot has %s", got)
	}
	if p, err := s.Position(t.Context()); err != nil || p != upto(20) {
		t.Errorf("position %+v, %v", p, err)
	}
}

func TestUnsafeBuildIsLikeAnyOtherOnceSettled(t *testing.T) {
	want := create(t)
	insert(t, want, entry(1, 2, "m", map[string]string{"user": "42"}))
	insert(t, want, entry(2, 0, "m", nil))
	c := create(t)
	if err := c.Unsafe(t.Context()); err != nil {
		t.Fatal(err)
	}
	insert(t, c, entry(1, 2, "m", map[string]string{"user": "42"}))
	if _, err := os.Stat(c.Path() + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a write-ahead log: %v", err)
	}
	if err := c.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "1"} {
		if got := catalog.Pragma(t, c, pragma); got != want {
			t.Errorf("%s is %s, want %s", pragma, got, want)
		}
	}
	beside, err := catalog.OpenReader(t.Context(), c.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	insert(t, c, entry(2, 0, "m", nil))
	if got := dump(t, beside); got != dump(t, want) {
		t.Errorf("a reader beside the writer sees\n%s, want\n%s", got, dump(t, want))
	}
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
