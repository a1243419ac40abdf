package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// A picture of over 4 MB in base64 is an artifact, whichever of the three ways
// it comes: by webhook, in the answer to a poll, in the answer to the create call.
func TestLargePictureArrivesInlineByEachWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		for _, c := range []struct{ source, prompt, output string }{
			{events.FromWebhook, "a fox [[heavy 4]]", "base64Data"},
			{events.FromPoll, "a fox [[heavy 4]] [[lose]]", "dataURI"},
			{events.FromCreate, "a fox [[heavy 4]] [[sync]] [[lose]]", "base64Data"},
		} {
			id := streamtest.NewID()
			if err := w.create(id, map[string]any{
				"model": "runware:101@1", "input": map[string]any{"positivePrompt": c.prompt, "width": 64, "height": 64, "outputType": c.output},
			}); err != nil {
				t.Fatal(err)
			}
			w.settle(5 * time.Minute)
			a := w.get(id).Outputs[0].Artifact
			if a == nil {
				t.Errorf("by %s: %+v", c.source, w.get(id).Outputs[0].Error)
				continue
			}
			r, err := w.node.bucket.Read(t.Context(), a.BlobKey)
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			n, err := io.Copy(h, r)
			r.Close()
			made := sim.Ledger(w.journal())[events.TaskID(id, 0, 1)].Output
			if err != nil || n < 4<<20 || n != a.Size || n != made.Size {
				t.Errorf("by %s: %d bytes are there (%v), the artifact says %d, the provider made %d", c.source, n, err, a.Size, made.Size)
			}
			if sum := hex.EncodeToString(h.Sum(nil)); sum != a.SHA256 || sum != made.SHA256 {
				t.Errorf("by %s: sha256 %s, the artifact says %s, the provider made %s", c.source, sum, a.SHA256, made.SHA256)
			}
			if a.ContentType != "image/png" {
				t.Errorf("by %s: type %s", c.source, a.ContentType)
			}
			if ways := w.sources(id); len(ways) != 1 || ways[0] != c.source {
				t.Errorf("by %s: it came by %v", c.source, ways)
			}
		}
		w.verify()
	})
}

// sources are the ways by which a generation's deliveries came.
func (w *world) sources(id events.ID) (ways []string) {
	w.t.Helper()
	history, err := w.node.stream.History(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range history {
		c, err := e.Decode()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, ev := range c.Events {
			if d, ok := ev.(events.Delivered); ok {
				ways = append(ways, d.Source)
			}
		}
	}
	return ways
}
