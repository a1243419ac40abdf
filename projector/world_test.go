package projector_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/catalog"
)

// world is a real log, to which generations are appended without an orchestrator.
type world struct {
	t   testing.TB
	log *stream.Log
	rng *rand.Rand
}

func newWorld(t testing.TB) *world {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30})
	check(t, err)
	t.Cleanup(s.Close)
	log, err := stream.Open(context.Background(), s.Conn(), stream.Config{Create: true})
	check(t, err)
	return &world{t, log, rng()}
}

// request appends an open generation.
func (w *world) request(count int) (events.Generation, stream.Head) {
	w.t.Helper()
	id := streamtest.NewID()
	r := streamtest.Request(id, count)
	r.Labels = map[string]string{"user": fmt.Sprint(w.rng.IntN(3))}
	c, head, err := w.log.Append(context.Background(), id, stream.Head{}, events.Now(), r)
	check(w.t, err)
	return events.Fold(events.Generation{}, c), head
}

// complete ends every slot, some of them badly, and the generation, in one commit.
func (w *world) complete(g events.Generation, head stream.Head) events.Generation {
	w.t.Helper()
	g.At = events.Now()
	var evs []events.Event
	for slot := range g.ExpectedCount {
		if w.rng.IntN(4) == 0 {
			evs = append(evs, events.OutputFailed{Slot: slot, Error: events.Error{Code: "x", Message: "no"}})
			continue
		}
		cost := w.rng.Int64N(1e9)
		evs = append(evs, events.OutputSucceeded{Slot: slot, Artifact: events.Artifact{
			ID: events.ArtifactID(g.ID, slot), File: events.File{BlobKey: "generations/" + string(g.ID), ContentType: "image/png", Size: 1, SHA256: "s"},
			Seed: fmt.Sprint(w.rng.Uint64()), Cost: &cost, CreatedAt: g.At,
		}})
	}
	for _, e := range evs {
		g = events.Apply(g, e)
	}
	done := events.Completed{}
	if g.ArtifactCount() == 0 {
		done.Error = g.Outputs[0].Error
	}
	g = events.Apply(g, done)
	done.Generation = g
	_, _, err := w.log.Append(context.Background(), g.ID, head, g.At, append(evs, done)...)
	check(w.t, err)
	return g
}

// make appends n generations, of which every fifth stays open.
func (w *world) make(n int) {
	w.t.Helper()
	for i := range n {
		g, head := w.request(1 + w.rng.IntN(3))
		if i%5 != 4 {
			w.complete(g, head)
		}
	}
}

// raw writes a message that no Append would write.
func (w *world) raw(id events.ID, types, body string) {
	w.t.Helper()
	m := nats.NewMsg(stream.Subject(id))
	m.Header.Set("Gen-Types", types)
	m.Data = []byte(body)
	_, err := w.log.Conn().RequestMsg(m, 10*time.Second)
	check(w.t, err)
}

// end is the durable sequence.
func (w *world) end() uint64 {
	w.t.Helper()
	end, err := w.log.Refresh(context.Background())
	check(w.t, err)
	return end
}

// running is a projector that runs until it is stopped.
type running struct {
	*projector.Projector
	t      testing.TB
	cancel context.CancelFunc
	ended  context.Context // Run has returned err
	err    error
}

func (w *world) run(cfg projector.Config) *running {
	w.t.Helper()
	cfg.Log = w.log
	p, err := projector.New(context.Background(), cfg)
	check(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended, end := context.WithCancel(context.Background())
	r := &running{Projector: p, t: w.t, cancel: cancel, ended: ended}
	go func() {
		defer end()
		r.err = p.Run(ctx)
	}()
	return r
}

// wait waits until the projector has read everything.
func (r *running) wait(w *world) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ended, time.Minute)
	defer cancel()
	if err := r.Wait(ctx, w.end()); err != nil {
		r.t.Fatalf("%v; run: %v", err, r.trouble())
	}
}

// serves waits until the build of this name serves.
func (r *running) serves(name string) {
	r.t.Helper()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		changed := r.Changed()
		if filepath.Base(r.Current().Path()) == name {
			return
		}
		select {
		case <-changed:
		case <-r.ended.Done():
			r.t.Fatalf("%s does not serve; run: %v", name, r.trouble())
		case <-late.C:
			r.t.Fatalf("%s does not serve after a minute", name)
		}
	}
}

// trouble is what ended Run, if it has ended.
func (r *running) trouble() error {
	if r.ended.Err() == nil {
		return nil
	}
	return r.err
}

func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	<-r.ended.Done()
	check(r.t, r.err)
	check(r.t, r.Close())
}

func dump(t testing.TB, c *catalog.Catalog) string {
	t.Helper()
	var b bytes.Buffer
	check(t, c.Dump(context.Background(), &b))
	return b.String()
}

// build is the dump of a build of the whole log, by nobody's history.
func (w *world) build() string {
	w.t.Helper()
	c, err := projector.Build(context.Background(), w.log, filepath.Join(w.t.TempDir(), "built.db"), w.end())
	check(w.t, err)
	defer c.Close()
	return dump(w.t, c)
}

func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	check(t, err)
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rng() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
