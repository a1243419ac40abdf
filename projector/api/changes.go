package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/genstream/genstream/projector/catalog"
)

// headerPosition says how far the catalog had read when it answered.
const headerPosition = "Gen-Position"

// catalogWait bounds how long a reader may have the catalog catch up.
const catalogWait = 10 * time.Second

// maxPoll bounds wait of a long poll.
const maxPoll = 60 * time.Second

type changesInput struct {
	After uint64 `query:"after" default:"0" doc:"next of the answer before; 0 = from the beginning"`
	Wait  string `query:"wait" example:"10s" doc:"how long to wait for something new, at most 60s"`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"how many at most"`
}

// catalog is the catalog as it serves now, once it has read up to least, and how
// far it has read: what it is asked from here on is at least that new.
func (a *api) catalog(ctx context.Context, least uint64) (*catalog.Catalog, string, error) {
	if least > a.cfg.Projector.Position() {
		lasting(ctx, catalogWait)
		ctx, cancel := a.untilStopping(ctx)
		defer cancel()
		ctx, cancelWait := context.WithTimeout(ctx, catalogWait)
		defer cancelWait()
		if err := a.cfg.Projector.Wait(ctx, least); err != nil {
			if ctx.Err() == nil {
				return nil, "", fmt.Errorf("wait for catalog: %w", err)
			}
			return nil, "", behind.because("it is at " + strconv.FormatUint(a.cfg.Projector.Position(), 10))
		}
	}
	read := strconv.FormatUint(a.cfg.Projector.Position(), 10)
	return a.cfg.Projector.Current(), read, nil
}

// changes is a long poll: it answers when there is something, when the time is
// over, or when the server stops.
func (a *api) changes(ctx context.Context, in *changesInput) (*reply, error) {
	wait, err := pollWait(in.Wait)
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		lasting(ctx, wait)
	}
	waiting, cancel := a.untilStopping(ctx)
	defer cancel()
	waiting, cancelWait := context.WithTimeout(waiting, wait)
	defer cancelWait()
	for {
		changed := a.cfg.Projector.Changed() // before the query, so that nothing falls in between
		c, read, err := a.catalog(ctx, 0)
		if err != nil {
			return nil, err
		}
		found, err := c.Changes(ctx, in.After, in.Limit)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 || waiting.Err() != nil {
			return changesReply(found, in.After, read)
		}
		select {
		case <-changed:
		case <-waiting.Done():
		}
	}
}

func pollWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil || wait < 0 {
		return 0, invalid.at("query.wait", `must be a duration such as "10s"`)
	}
	return min(wait, maxPoll), nil
}

func changesReply(found []catalog.Change, after uint64, read string) (*reply, error) {
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		b.WriteString(`{"generations":[`)
		for i, c := range found {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(b, `{"id":"%s"}`, c.ID)
			after = c.Sequence
		}
		fmt.Fprintf(b, `],"next":%d}`+"\n", after)
		return nil
	}, headerPosition, read)
}

// pageHeaders are the headers of a page: how far the catalog had read, and where
// the next page is.
func pageHeaders(ctx context.Context, read, next string) []string {
	headers := []string{headerPosition, read}
	x, ok := ctx.Value(exchangeKey{}).(exchange)
	if next == "" || !ok {
		return headers
	}
	query := x.r.URL.Query()
	query.Set("cursor", next)
	query.Del("min_position")
	return append(headers, "Link", "<"+x.r.URL.Path+"?"+query.Encode()+`>; rel="next"`)
}
