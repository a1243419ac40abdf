// Package fill writes a log of completed generations faster than they could be
// made, for measuring what reads it.
//
// # Usage
//
//	ids, err := fill.Fill(ctx, dir, 100_000, func(done int) { … })
//
// # What is written
//
// The commits are those that a node writes for a generation of one output whose file
// comes in the webhook: the request with its claim, the provider's word, and the
// delivery with the output and the completion. There are ten models, and one
// generation in fifty has failed. Files are named and not there.
//
// The stream's server does not sync while it is filled: nobody was promised this log.
package fill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// Fill appends count generations to the log in dir, a JetStream store that nobody else
// has open; streams that are not there are made. They were created 100 ms after each other, the last of
// them now. It returns their IDs, oldest first. progress is told now and then how
// many there are.
func Fill(ctx context.Context, dir string, count int, progress func(done int)) (ids []events.ID, err error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "fill", DontListen: true, JetStream: true, StoreDir: dir,
		NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("fill log: %w", err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(time.Minute) {
		return nil, errors.New("fill log: the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, fmt.Errorf("fill log: %w", err)
	}
	defer nc.Close()
	log, err := stream.Open(ctx, nc, stream.Config{Create: true})
	if err != nil {
		return nil, fmt.Errorf("fill log: %w", err)
	}
	ids = make([]events.ID, count)
	for i := range ids {
		ids[i] = events.ID(uuid.Must(uuid.NewV7()).String())
	}
	return ids, fill(ctx, log, ids, progress)
}

func fill(ctx context.Context, log *stream.Log, ids []events.ID, progress func(done int)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const writers = 64
	first := events.Now().Add(-time.Duration(len(ids)) * 100 * time.Millisecond)
	var next, done atomic.Int64
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(ids) {
					return
				}
				w := writer{log: log, id: ids[i], at: first.Add(time.Duration(i) * 100 * time.Millisecond)}
				if err := w.whole(ctx, i); err != nil {
					cancel(err)
				}
				if n := done.Add(1); n%10_000 == 0 {
					progress(int(n))
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// writer appends one generation.
type writer struct {
	log  *stream.Log
	id   events.ID
	at   time.Time
	head stream.Head
	now  events.Generation
}

func (w *writer) append(ctx context.Context, evs ...events.Event) error {
	c, head, err := w.log.Append(ctx, w.id, w.head, w.at, evs...)
	if err != nil {
		return err
	}
	w.head, w.now = head, events.Fold(w.now, c)
	w.at = w.at.Add(500 * time.Millisecond)
	return nil
}

func (w *writer) whole(ctx context.Context, i int) error {
	task := events.TaskID(w.id, 0, 1)
	requested := events.Requested{
		Model: fmt.Sprintf("runware:%d@1", 100+i%10), Input: []byte(`{"positivePrompt":"a red fox in neon rain, 35mm","width":1024,"height":1024}`),
		ExpectedCount: 1, Provider: "instant", Deadline: w.at.Add(10 * time.Minute), Digest: events.Digest([]byte(w.id)), Tasks: []string{task},
	}
	claim := events.Dispatching{Attempt: 1, By: "fill", Until: w.at.Add(time.Minute), Tasks: []events.Task{{Slot: 0, Try: 1, ID: task}}}
	if err := w.append(ctx, requested, claim); err != nil {
		return err
	}
	if err := w.append(ctx, events.Dispatched{Attempt: 1, Accepted: []int{0}}); err != nil {
		return err
	}
	cost := int64(1_300_000)
	file := events.File{
		BlobKey: "generations/" + string(w.id) + "/0-0123456789abcdef.png", ContentType: "image/png", Size: 8192, SHA256: fmt.Sprintf("%064x", i),
	}
	result := events.Result{Task: task, File: &file, Seed: "4242", Cost: &cost}
	var output events.Event = events.OutputSucceeded{Slot: 0, Artifact: events.Artifact{
		ID: events.ArtifactID(w.id, 0), File: file, Seed: "4242", Cost: &cost, CreatedAt: w.at,
	}}
	done := events.Completed{}
	if i%50 == 0 {
		failure := events.Error{Code: "contentFilter", Message: "withheld", Class: events.Safety}
		result = events.Result{Task: task, Error: &failure}
		output, done.Error = events.OutputFailed{Slot: 0, Error: failure}, &failure
	}
	raw := fmt.Appendf(nil, `{"data":[{"taskType":"imageInference","taskUUID":"%s","seed":4242,"cost":0.0013,"imageBase64Data":"$inline:1"}]}`, task)
	delivered := events.Delivered{Source: events.FromWebhook, Digest: events.Digest(raw), Results: []events.Result{result}, Raw: raw}
	g := w.now
	g.At = w.at
	done.Generation = events.Apply(events.Apply(events.Apply(g, delivered), output), done)
	return w.append(ctx, delivered, output, done)
}
