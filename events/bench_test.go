package events_test

import (
	"testing"

	"github.com/genstream/genstream/events"
)

// benchCommits are what a generation of one output commits on its way: what is
// appended most often.
func benchCommits() map[string][]events.Event {
	id, at, cost := events.ID("019aa000-0000-7000-8000-000000000000"), events.Now(), int64(1_300_000)
	task := events.TaskID(id, 0, 1)
	file := events.File{BlobKey: "generations/" + string(id) + "/0-0123456789abcdef.png", ContentType: "image/png", Size: 8192, SHA256: events.Digest(nil)}
	requested := events.Requested{
		Model: "runware:101@1", Input: []byte(`{"height":1024,"positivePrompt":"a red fox in neon rain, 35mm","width":1024}`),
		ExpectedCount: 1, Provider: "runware", Deadline: at, Digest: events.Digest(nil), Tasks: []string{task},
	}
	claim := events.Dispatching{Attempt: 1, By: "life", Until: at, Tasks: []events.Task{{Slot: 0, Try: 1, ID: task}}}
	delivered := events.Delivered{
		Source: events.FromWebhook, Digest: events.Digest(nil), Results: []events.Result{{Task: task, File: &file, Seed: "4242", Cost: &cost}},
		Raw: []byte(`{"data":[{"taskType":"imageInference","taskUUID":"` + task + `","seed":4242,"cost":0.0013,"imageBase64Data":"$inline:1"}]}`),
	}
	succeeded := events.OutputSucceeded{Slot: 0, Artifact: events.Artifact{ID: events.ArtifactID(id, 0), File: file, Seed: "4242", Cost: &cost, CreatedAt: at}}
	g := events.Generation{ID: id}
	for _, e := range []events.Event{requested, claim, delivered, succeeded} {
		g.At = at
		g = events.Apply(g, e)
	}
	return map[string][]events.Event{
		"requested": {requested, claim},
		"delivered": {delivered},
		"completed": {succeeded, events.Completed{Generation: events.Apply(g, events.Completed{})}},
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, evs := range benchCommits() {
		b.Run(name, func(b *testing.B) {
			at := events.Now()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := events.Encode(at, evs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, evs := range benchCommits() {
		body, err := events.Encode(events.Now(), evs)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, _, err := events.Decode(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	evs := benchCommits()
	b.ReportAllocs()
	for b.Loop() {
		var g events.Generation
		g.At = events.Now()
		for _, name := range []string{"requested", "delivered", "completed"} {
			for _, e := range evs[name] {
				g = events.Apply(g, e)
			}
		}
	}
}
