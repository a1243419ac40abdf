// Package delivery turns what a provider told us, however it told it, into the
// one event that records it. Webhooks, polls and answers to create calls take
// this way alike.
//
// Inline files go to the bucket first, and are on disk there before the event
// names them: a crash in between leaves a file that no commit names, which gc
// removes, and a delivery that its sender repeats.
package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// ErrAlien is a delivery about a task that is not one of the generation's. It
// changes nothing; HTTP answers 400.
var ErrAlien = errors.New("the delivery is about somebody else's task")

// ErrCrowded is a delivery with more results than a generation can have.
var ErrCrowded = errors.New("the delivery has too many results")

// MaxFile bounds one inline file, in bytes.
const MaxFile = 64 << 20

// SlotOf finds the slot of a task in one generation, and reports false for a task
// that is none of its own. Who has no fold derives it ([Slot]); only the fold knows
// the tasks that a generation has adopted from the one that it rescues.
type SlotOf func(task string) (slot int, ok bool)

// Of is the event for a reply of which results were parsed, about tasks that slotOf
// knows. Errors of the bucket wrap blob.ErrBucket: the delivery is as good as before
// and may come again.
func Of(ctx context.Context, b *blob.Bucket, id events.ID, slotOf SlotOf, source string, reply inline.Reply, results []provider.Result) (events.Delivered, error) {
	d := events.Delivered{Source: source, Digest: reply.Digest}
	if len(results) > events.MaxCount*2 {
		return d, ErrCrowded
	}
	for _, r := range results {
		slot, ok := slotOf(r.Task)
		if !ok {
			return d, ErrAlien
		}
		e := events.Result{Task: r.Task, URL: r.URL, Seed: r.Seed, Cost: r.Cost, Metadata: r.Metadata, Error: r.Error}
		if r.Inline > 0 {
			if r.Inline > len(reply.Files) {
				return d, fmt.Errorf("task %s names a file that the delivery does not hold", r.Task)
			}
			if err := keep(ctx, b, id, slot, reply.Files[r.Inline-1], &e); err != nil {
				return d, err
			}
		}
		d.Results = append(d.Results, events.Fit(e))
	}
	return d, raw(ctx, b, id, reply.Body, &d)
}

// keep writes one inline file to the bucket. A file of a kind that is not kept
// is a failure of the output, not of the delivery.
func keep(ctx context.Context, b *blob.Bucket, id events.ID, slot int, f *inline.File, e *events.Result) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("open inline file: %w", err)
	}
	defer r.Close()
	kept, err := b.Keep(ctx, id, slot, r, MaxFile)
	switch {
	case errors.Is(err, blob.ErrType):
		e.Error = &events.Error{Code: events.CodeFetchType, Message: "the delivered file is of no type that is kept", Class: events.Inference}
	case errors.Is(err, blob.ErrSize):
		e.Error = &events.Error{Code: events.CodeFetchSize, Message: "the delivered file is over the size limit", Class: events.Inference}
	case err != nil:
		return fmt.Errorf("keep inline file: %w", err)
	default:
		e.File = &kept
	}
	return nil
}

func raw(ctx context.Context, b *blob.Bucket, id events.ID, body []byte, d *events.Delivered) error {
	if len(body) == 0 {
		return nil
	}
	var small bytes.Buffer
	if err := json.Compact(&small, body); err == nil && small.Len() <= events.MaxRaw {
		d.Raw = small.Bytes()
		return nil
	}
	key, err := b.KeepRaw(ctx, id, body)
	if err != nil {
		return fmt.Errorf("keep raw delivery: %w", err)
	}
	d.RawKey = key
	return nil
}

// Slot finds the slot of a task by deriving the task IDs of the generation: it
// needs no fold, and a task of another generation is never found.
func Slot(id events.ID, task string) (int, bool) {
	for try := 1; try <= events.MaxTries; try++ {
		for slot := range events.MaxCount {
			if events.TaskID(id, slot, try) == task {
				return slot, true
			}
		}
	}
	return 0, false
}
