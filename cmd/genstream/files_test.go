package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/verify"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

func freshID() events.ID { return streamtest.NewID() }

// noise is a PNG that no compression makes smaller.
func noise(side int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := image.NewNRGBA(image.Rect(0, 0, side, side))
	for i := range m.Pix {
		m.Pix[i] = uint8(rng.Uint32())
	}
	m.Set(0, 0, color.White)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// upload sends a file and returns what an input names it by.
func (w *world) upload(content []byte, want int) string {
	w.t.Helper()
	res, err := w.api.do(context.Background(), http.MethodPost, "/v1/files", content, "Content-Type", "application/octet-stream")
	if err != nil {
		w.t.Fatal(err)
	}
	defer drain(res.Body)
	var kept struct {
		File string `json:"file"`
	}
	if err := json.NewDecoder(res.Body).Decode(&kept); err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if res.StatusCode != want || kept.File != "inputs/"+hex.EncodeToString(sum[:]) {
		w.t.Errorf("upload answered %s %+v, want %d", res.Status, kept, want)
	}
	return kept.File
}

func fileNamed(name string) map[string]any { return map[string]any{"$file": name} }

// refused is the problem with which a request is refused.
func (w *world) refused(request map[string]any) *problemError {
	w.t.Helper()
	var p *problemError
	if err := w.create(freshID(), request); !errors.As(err, &p) {
		w.t.Errorf("%v was not refused: %v", request, err)
		return &problemError{}
	}
	return p
}

func TestUploadedFileReachesTheProvider(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		one, two := noise(40, 1), noise(40, 2)
		first := w.upload(one, http.StatusCreated)
		w.upload(one, http.StatusOK)
		second := w.upload(two, http.StatusCreated)
		id := freshID()
		request := map[string]any{
			"model": "sim:fox@1", "count": 3, "input": map[string]any{
				"positivePrompt": "a fox [[busy]]", "width": 64, "height": 64, "seedImage": fileNamed(first),
				"zz": map[string]any{"list": []any{1.5, fileNamed(second), fileNamed(first)}},
			},
		}
		if err := w.create(id, request); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		g := w.get(id)
		for _, o := range g.Outputs {
			if o.Artifact == nil {
				t.Errorf("output %d: %+v", o.Slot, o.Error)
			}
		}

		hashOf := func(name string) string { return strings.TrimPrefix(name, "inputs/") }
		want := []string{hashOf(first), hashOf(second), hashOf(first)}
		orders := 0
		for _, e := range w.journal() {
			if e.Kind == sim.KindTaken {
				if orders++; !slices.Equal(e.Order.Inputs, want) {
					t.Errorf("task %s was given %v, want %v", e.Task, e.Order.Inputs, want)
				}
			}
		}
		if orders != 3 {
			t.Errorf("%d tasks were taken, want 3", orders)
		}

		// The log has the names, and never the bytes.
		if !strings.Contains(string(g.Input), `{"$file":"`+first+`"}`) {
			t.Errorf("the input became %s", g.Input)
		}
		end, err := w.node.stream.Refresh(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		err = w.node.stream.Scan(context.Background(), 0, end, func(batch []stream.Entry) error {
			for _, e := range batch {
				if bytes.Contains(e.Body, []byte("base64")) || len(e.Body) > 16<<10 {
					t.Errorf("commit %d of %s has %d bytes", e.Version, e.Types, len(e.Body))
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r := w.verify()
		if looked := r.Claim("I11").Looked; looked != 3+2 {
			t.Errorf("verify looked at %d files, want 3 artifacts and 2 inputs", looked)
		}

		// What was accepted once is answered alike, also when its file is gone by now.
		if err := w.node.bucket.Delete(context.Background(), first); err != nil {
			t.Fatal(err)
		}
		if err := w.create(id, request); err != nil {
			t.Errorf("the same request again: %v", err)
		}
	})
}

func TestRequestWithAFileThatCannotBeSentIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		here := w.upload(noise(10, 1), http.StatusCreated)
		large := w.upload(noise(900, 2), http.StatusCreated) // 3.2 MB; four of it are over the limit of a call
		missing := "inputs/" + strings.Repeat("0", 64)
		for name, c := range map[string]struct {
			count int
			input map[string]any
			where string
		}{
			"not there":          {1, map[string]any{"seedImage": fileNamed(missing)}, "body.input.seedImage"},
			"not there, deep":    {1, map[string]any{"a": map[string]any{"b": []any{0, fileNamed(here), fileNamed(missing)}}}, "body.input.a.b[2]"},
			"another folder":     {1, map[string]any{"seedImage": fileNamed("generations/x")}, "body.input.seedImage"},
			"traversal":          {1, map[string]any{"seedImage": fileNamed("inputs/../webhook.keys")}, "body.input.seedImage"},
			"more than the file": {1, map[string]any{"seedImage": map[string]any{"$file": here, "x": 1}}, "body.input.seedImage"},
			"a number":           {1, map[string]any{"seedImage": map[string]any{"$file": 1}}, "body.input.seedImage"},
			"too much":           {4, map[string]any{"seedImage": fileNamed(large)}, "body.input"},
			"the file itself":    {1, fileNamed(here), "body.input"},
		} {
			p := w.refused(map[string]any{"model": "sim:fox@1", "count": c.count, "input": c.input})
			if p.code != 422 || len(p.Errors) != 1 || p.Errors[0].Location != c.where {
				t.Errorf("%s: %d %+v, want it at %s", name, p.code, p, c.where)
			}
		}
		id := freshID()
		if err := w.create(id, map[string]any{"model": "sim:fox@1", "input": map[string]any{"width": 64, "height": 64, "seedImage": fileNamed(large)}}); err != nil {
			t.Fatalf("one of it fits: %v", err)
		}
		w.settle(time.Minute)
		if o := w.get(id).Outputs[0]; o.Artifact == nil {
			t.Errorf("output is %+v", o.Error)
		}
	})
}

// TestFileThatIsGoneWhenTheCallIsMade is refused for good, and not as the fault of
// the provider.
func TestFileThatIsGoneWhenTheCallIsMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		file := w.upload(noise(10, 1), http.StatusCreated)
		id := freshID()
		err := w.create(id, map[string]any{"model": "sim:fox@1", "count": 2, "input": map[string]any{
			"positivePrompt": "a fox [[busy]]", "width": 64, "height": 64, "seedImage": fileNamed(file), // the first call gets a 429
		}})
		if err != nil {
			t.Fatal(err)
		}
		for w.count(sim.KindCreate) == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := w.node.bucket.Delete(context.Background(), file); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		g := w.get(id)
		for _, o := range g.Outputs {
			if o.Error == nil || o.Error.Code != events.CodeInput {
				t.Errorf("output %d: %+v %+v", o.Slot, o.Artifact, o.Error)
			}
		}
		if n := w.count(sim.KindCreate); n != 1 {
			t.Errorf("%d calls were made, want the first one", n)
		}
		if err := w.node.orchestrator.Ready(); err != nil {
			t.Errorf("the provider is blamed: %v", err)
		}
	})
}

// TestFileThatNobodyNamesIsAnOrphan, and one that a request names is not.
func TestFileThatNobodyNamesIsAnOrphan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		named, forgotten := w.upload(noise(10, 1), http.StatusCreated), w.upload(noise(10, 2), http.StatusCreated)
		if err := w.create(freshID(), map[string]any{"model": "sim:fox@1", "input": map[string]any{"width": 64, "height": 64, "seedImage": fileNamed(named)}}); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		check := func(grace time.Duration) *verify.Report {
			r, err := verify.Run(context.Background(), verify.Source{Log: w.node.stream, Bucket: w.node.bucket, Journal: w.journal(), Grace: grace})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := check(time.Hour); r.Violations() != 0 {
			t.Errorf("a file younger than the grace period is an orphan: %+v", r.Claim("I13"))
		}
		// Files have real times and the bubble has not: everything is older than this.
		r := check(-1 << 62)
		if c := r.Claim("I13"); c.Count != 1 || !strings.Contains(c.Broken[0].Detail, forgotten) {
			t.Errorf("orphans are %+v, want %s", c.Broken, forgotten)
		}
		if err := w.node.bucket.Delete(context.Background(), named); err != nil {
			t.Fatal(err)
		}
		if c := check(time.Hour).Claim("I11"); c.Count != 1 || !strings.Contains(c.Broken[0].Detail, named) {
			t.Errorf("a named file is gone, and I11 says %+v", c.Broken)
		}
	})
}

// stalled is a body that begins well and does not go on.
type stalled struct {
	io.Reader
	end chan struct{}
}

func (s stalled) Read(p []byte) (int, error) {
	if n, err := s.Reader.Read(p); n > 0 {
		return n, err
	}
	<-s.end
	return 0, io.EOF
}

func TestUploadsAtOnceAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		content := noise(100, 1)
		var senders sync.WaitGroup
		end := make(chan struct{})
		for range 8 { // as many as there are places
			senders.Go(func() {
				body := io.MultiReader(stalled{bytes.NewReader(content[:20_000]), end}, bytes.NewReader(content[20_000:]))
				req, err := http.NewRequest(http.MethodPost, w.api.base+"/v1/files", body)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := w.tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				drain(res.Body)
				if res.StatusCode/100 != 2 {
					t.Errorf("answered %s", res.Status)
				}
			})
		}
		time.Sleep(time.Second) // all of them have begun, and wait
		if _, err := w.api.do(context.Background(), http.MethodPost, "/v1/files", content); problemCode(err) != http.StatusServiceUnavailable {
			t.Errorf("one more is answered %v", err)
		}
		close(end)
		senders.Wait()
		w.upload(content, http.StatusOK)
	})
}

func TestUploadThatStallsIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		defer w.end()
		w.open()
		end := make(chan struct{})
		defer close(end)
		req, err := http.NewRequest(http.MethodPost, w.api.base+"/v1/files", stalled{bytes.NewReader(noise(100, 1)), end})
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		res, err := w.tr.RoundTrip(req)
		if err == nil {
			drain(res.Body)
			if res.StatusCode != http.StatusRequestTimeout {
				t.Errorf("answered %s", res.Status)
			}
		}
		if took := time.Since(started); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("given up after %s, %v", took, err)
		}
		for o, err := range w.node.bucket.List(context.Background(), "inputs/") {
			t.Errorf("the bucket holds %s, %v", o.Key, err)
		}
	})
}
