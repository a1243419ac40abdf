package orchestrator

import (
	"context"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// ledger is the log as everything that decides, calls and answers uses it. The
// real one is a *stream.Log; the simulation has another that fails in every way
// a log can, under the very code that runs in production.
type ledger interface {
	subjects
	positions
	signals
}

// subjects are the commits, one subject for each generation.
type subjects interface {
	Load(context.Context, events.ID) (events.Generation, stream.Head, error)
	Append(context.Context, events.ID, stream.Head, time.Time, ...events.Event) (events.Commit, stream.Head, error)
	History(context.Context, events.ID) ([]stream.Entry, error)
	Later(ctx context.Context, try int) error
}

// positions are how far the log goes, and from where a new life reads it.
type positions interface {
	Await(ctx context.Context, sequence uint64) error
	Durable() uint64
	Refresh(context.Context) (uint64, error)
	Scan(ctx context.Context, after, upto uint64, handle func([]stream.Entry) error) error
}

// signals are what is told beside the commits.
type signals interface {
	Horizon(context.Context) (uint64, error)
	SetHorizon(ctx context.Context, sequence uint64) error
	Announce(ctx context.Context, id events.ID, sequence uint64) error
	Check(ctx context.Context, id events.ID, due time.Time) error
}

// fetcher downloads the file of an output into the bucket: a *blob.Fetcher.
type fetcher interface {
	Fetch(ctx context.Context, url string, id events.ID, slot int) (events.File, error)
}
