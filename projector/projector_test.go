package projector_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

func TestCompletedGenerationsAreRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run(projector.Config{Dir: t.TempDir()})
	defer p.stop()
	open, head := w.request(3)
	p.wait(w)
	if _, err := p.Current().Generation(t.Context(), open.ID); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("an open generation: %v, want ErrNotFound (I9)", err)
	}
	g := w.complete(open, head)
	p.wait(w)
	row, artifacts := projector.Rows(g)
	if got, err := p.Current().Generation(t.Context(), g.ID); err != nil || !reflect.DeepEqual(got, row) {
		t.Errorf("row is %+v, %v; want %+v (I8)", got, err, row)
	}
	page, err := p.Current().Artifacts(t.Context(), catalog.ArtifactFilter{Generation: g.ID})
	if err != nil || len(page.Artifacts) != len(artifacts) {
		t.Errorf("artifacts are %+v, %v; want %+v (I7)", page.Artifacts, err, artifacts)
	}
	if seq, err := p.Current().Completed(t.Context(), g.ID); err != nil || seq != 2 {
		t.Errorf("completed at %d, %v; want 2", seq, err)
	}
	if seq, err := p.Current().Completed(t.Context(), "01890000-0000-7000-8000-000000000000"); err != nil || seq != 0 {
		t.Errorf("unknown ID: completed at %d, %v; want 0", seq, err)
	}
	if p.Lag() != 0 || p.Skipped() != 0 || p.Position() != 2 {
		t.Errorf("lag %d, skipped %d, position %d", p.Lag(), p.Skipped(), p.Position())
	}
}

func TestRebuildEqualsLive(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	p := w.run(projector.Config{Dir: dir})
	w.make(40)
	p.stop() // wherever it is
	w.make(40)
	p = w.run(projector.Config{Dir: dir})
	defer p.stop()
	w.make(40)
	p.wait(w)
	live := dump(t, p.Current())
	if n := strings.Count(live, "generations id="); n != 96 {
		t.Fatalf("%d rows, want 96", n)
	}
	if built := w.build(); built != live {
		t.Errorf("live:\n%s\nbuilt:\n%s", live, built)
	}
	var done, total uint64
	check(t, p.Rebuild(t.Context(), func(d, of uint64) { done, total = d, of }))
	if rebuilt := dump(t, p.Current()); rebuilt != live {
		t.Errorf("live:\n%s\nrebuilt:\n%s", live, rebuilt)
	}
	if done != w.end() || total != done {
		t.Errorf("progress ended at %d of %d, the log at %d", done, total, w.end())
	}
	w.make(10) // and goes on from there
	p.wait(w)
	if dump(t, p.Current()) != w.build() {
		t.Error("the rebuilt catalog does not go on")
	}
}

// A kill leaves the files as they are between two system calls. The copy is taken
// while the projector writes; whatever it has of the newest transactions, the
// next life reads on from there, exactly once.
func TestKilledAnywhereIsExactlyOnce(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	p := w.run(projector.Config{Dir: dir})
	w.make(20)
	var wg sync.WaitGroup
	wg.Go(func() { w.make(100) })
	var copies []string
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		check(t, p.Wait(ctx, uint64(50*(i+1))))
		cancel()
		into := t.TempDir()
		for _, name := range []string{"CURRENT", "catalog-1.db", "catalog-1.db-wal"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			check(t, err)
			check(t, os.WriteFile(filepath.Join(into, name), b, 0o600))
		}
		copies = append(copies, into)
	}
	wg.Wait()
	p.stop()
	want := w.build()
	for _, from := range copies {
		next := w.run(projector.Config{Dir: from})
		next.wait(w)
		if got := dump(t, next.Current()); got != want {
			t.Errorf("after a kill:\n%s\nwant:\n%s", got, want)
		}
		next.stop()
	}
}

func TestPositionMovesOverOpenGenerations(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	p := w.run(projector.Config{Dir: dir})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 110 {
				id := streamtest.NewID()
				if _, _, err := w.log.Append(context.Background(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	p.wait(w)
	if at, err := p.Current().Position(t.Context()); err != nil || at.Sequence < 1024 {
		t.Errorf("1,100 commits that complete nothing left the position at %d, %v", at.Sequence, err)
	}
	p.stop()
	c, err := projector.OpenCurrent(t.Context(), dir)
	check(t, err)
	defer c.Close()
	if at, err := c.Position(t.Context()); err != nil || at.Sequence != 1100 || at.Fingerprint != w.log.Fingerprint() || at.Digest == "" {
		t.Errorf("a stopped projector left the position at %+v, %v", at, err)
	}
}

func TestReadersWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.run(projector.Config{Dir: t.TempDir()})
	defer p.stop()
	w.make(3)
	p.wait(w)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Wait(ctx, w.end()+1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for what is not there: %v", err)
	}
	if err := p.Wait(ctx, w.end()); err != nil {
		t.Errorf("wait for what is there: %v", err)
	}
	changed := p.Changed()
	last, err := p.Current().LastEntry(t.Context())
	check(t, err)
	open, head := w.request(1)
	p.wait(w)
	select {
	case <-changed:
		t.Error("a commit that completes nothing is no change")
	default:
	}
	g := w.complete(open, head)
	<-changed
	if page, err := p.Current().Changes(t.Context(), last, 0); err != nil || len(page) != 1 || page[0].ID != g.ID || page[0].Sequence != w.end() {
		t.Errorf("changes are %+v, %v", page, err)
	}
}

func TestPoisonCommitStopsNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before, head := w.request(1)
	w.complete(before, head)
	for _, tc := range []struct{ types, body string }{
		{"completed", "not JSON"},
		{"completed", `{"at":"2026-01-02T03:04:05Z","events":[{"type":"requested"}]}`},
		{"output_failed,completed", `{"at":"2026-01-02T03:04:05Z","events":[{"type":"completed","generation":{"id":"` + string(before.ID) + `","completed_at":"2026-01-02T03:04:05Z"}}]}`},
		{"completed", `{"at":"2026-01-02T03:04:05Z","events":[{"type":"annihilated"}]}`},
	} {
		w.raw(streamtest.NewID(), tc.types, tc.body)
	}
	// Of the right ID and complete, but with somebody else's artifact.
	id := streamtest.NewID()
	w.raw(id, "completed", fmt.Sprintf(`{"at":"2026-01-02T03:04:05Z","events":[{"type":"completed","generation":{"id":%q,"model":"m","input":{},
		"created_at":"2026-01-02T03:04:05Z","completed_at":"2026-01-02T03:04:05Z",
		"outputs":[{"slot":0,"artifact":{"id":%q,"blob_key":"k","content_type":"t","created_at":"2026-01-02T03:04:05Z"}}]}}]}`, id, events.ArtifactID(before.ID, 0)))
	after, head := w.request(1)
	w.complete(after, head)

	var mu sync.Mutex
	var parked []uint64
	refused := false
	p := w.run(projector.Config{Dir: t.TempDir(), Parked: func(_ context.Context, e stream.Entry, cause error) error {
		mu.Lock()
		defer mu.Unlock()
		if !refused {
			refused = true
			return errors.New("not now")
		}
		if !errors.Is(cause, events.ErrMalformed) {
			t.Errorf("parked with %v", cause)
		}
		parked = append(parked, e.Sequence)
		return nil
	}})
	p.wait(w)
	if p.Skipped() != 5 {
		t.Errorf("skipped %d, want 5", p.Skipped())
	}
	page, err := p.Current().Changes(t.Context(), 0, 0)
	if err != nil || len(page) != 2 || page[0].ID != before.ID || page[1].ID != after.ID {
		t.Errorf("changes are %+v, %v", page, err)
	}
	p.stop()
	if fmt.Sprint(parked) != "[3 4 5 6 7]" {
		t.Errorf("parked %v, want each once, though parking failed at first", parked)
	}
}

func TestRebuildWhileReadingAndWriting(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.make(50)
	p := w.run(projector.Config{Dir: dir})
	p.wait(w)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			w.make(5)
		}
	})
	wg.Go(func() { // a reader never goes back in time
		var last int64
		for !stop.Load() {
			counts, err := p.Current().Counts(context.Background())
			if err != nil || counts.Generations < last {
				t.Errorf("%d generations after %d: %v", counts.Generations, last, err)
				return
			}
			last = counts.Generations
		}
	})
	old, err := p.Current().Snapshot(t.Context())
	check(t, err)
	at, err := old.Counts(t.Context())
	check(t, err)
	for range 3 {
		check(t, p.Rebuild(t.Context(), nil))
	}
	if again, err := old.Counts(t.Context()); err != nil || again != at {
		t.Errorf("a reader of the old build finds %+v, %v; before %+v", again, err, at)
	}
	old.Close()
	stop.Store(true)
	wg.Wait()
	p.wait(w)
	if dump(t, p.Current()) != w.build() {
		t.Error("three rebuilds under load gave another catalog")
	}
	if current, err := os.ReadFile(filepath.Join(dir, "CURRENT")); err != nil || string(current) != "catalog-4.db\n" {
		t.Errorf("CURRENT is %q, %v", current, err)
	}
	p.stop()
	if names := files(t, dir); fmt.Sprint(names) != "[CURRENT catalog-4.db]" {
		t.Errorf("left over: %v", names)
	}
}

func TestAbandonedRebuildLeavesNothing(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.make(30)
	p := w.run(projector.Config{Dir: dir})
	p.wait(w)
	before := p.Current()
	ctx, cancel := context.WithCancel(t.Context())
	if err := p.Rebuild(ctx, func(uint64, uint64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("rebuild: %v, want Canceled", err)
	}
	if p.Current() != before {
		t.Error("an abandoned rebuild serves")
	}
	p.stop()
	if names := files(t, dir); fmt.Sprint(names) != "[CURRENT catalog-1.db]" {
		t.Errorf("left over: %v", names)
	}
}
