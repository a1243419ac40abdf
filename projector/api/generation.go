package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

type generationInput struct {
	ID          string `path:"id"`
	IfNoneMatch string `header:"If-None-Match" doc:"the ETag of an answer that the client holds"`
}

type eventsInput struct {
	ID          string `path:"id"`
	Accept      string `header:"Accept" doc:"text/event-stream: the events as they happen"`
	LastEventID string `header:"Last-Event-ID" doc:"where a stream goes on: only events of later commits"`
	IfNoneMatch string `header:"If-None-Match" doc:"the ETag of an answer that the client holds"`
}

type allEventsInput struct {
	After       string `query:"after" doc:"stream sequence: only events of later commits; now unless said; 0 = from the beginning"`
	LastEventID string `header:"Last-Event-ID" doc:"like after, and goes before it"`
}

func (a *api) registerGeneration() {
	unchanged := answer{about: "The client holds this answer already"}
	tag := map[string]string{"ETag": "changes with every event"}
	register(a, operation{
		id: "get", method: http.MethodGet, path: "/v1/generations/{id}",
		summary: "One generation, from the log",
		about:   "Open ones too: an output without artifact and error is not there yet. completed_at says that it is done, error that there is no artifact.",
		answers: map[int]answer{
			http.StatusOK:          {about: "The generation", content: map[string]reflect.Type{"application/json": reflect.TypeFor[generation]()}, headers: tag},
			http.StatusNotModified: unchanged,
		},
		problems: []kind{notFound, invalid, unavailable},
	}, a.get)
	register(a, operation{
		id: "events", method: http.MethodGet, path: "/v1/generations/{id}/events",
		summary: "The events of one generation, so far or as they happen",
		about: "With Accept: text/event-stream each event is a server-sent event of its type, and the stream ends after completed. " +
			"The last event of each commit carries the stream sequence as its id, so that a client which resumes gets a commit whole; " +
			"after the end it is answered with 204, upon which an EventSource stays away.",
		answers: map[int]answer{
			http.StatusOK: {about: "The events in order", headers: tag, content: map[string]reflect.Type{
				"application/json": reflect.TypeFor[eventList](), "text/event-stream": nil,
			}},
			http.StatusNoContent:   {about: "The stream has ended and the client has all of it"},
			http.StatusNotModified: unchanged,
		},
		problems: []kind{notFound, invalid, busy, unavailable},
	}, a.events)
	register(a, operation{
		id: "follow", method: http.MethodGet, path: "/v1/events",
		summary: "The events of all generations as they happen",
		about:   "Server-sent events without end, in the order of the log. The last event of each commit carries the stream sequence as its id.",
		answers: map[int]answer{
			http.StatusOK: {about: "The events", content: map[string]reflect.Type{"text/event-stream": nil}},
		},
		problems: []kind{invalid, busy, unavailable},
	}, a.allEvents)
}

func (a *api) get(ctx context.Context, in *generationInput) (*reply, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	g, head, err := a.cfg.Log.PeekAt(ctx, id, a.completed(ctx, id))
	if err != nil {
		return nil, err
	}
	tag, caching := tagOf(head)
	if matches(in.IfNoneMatch, tag) {
		return emptyReply(http.StatusNotModified, "ETag", tag, "Cache-Control", caching)
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error { return encode(b, events.Public(g)) },
		"ETag", tag, "Cache-Control", caching)
}

// completed is where the log has the commit that completed a generation, 0 if the
// catalog does not know: then the log is searched, which takes longer.
func (a *api) completed(ctx context.Context, id events.ID) uint64 {
	sequence, _ := a.cfg.Projector.Current().Completed(ctx, id) // a catalog that cannot be read is not missed here
	return sequence
}

// tagOf is the ETag of what is read of a generation, and how long it holds: after
// the last event for ever, but that a later version may show it differently. It
// is weak for the same reason.
func tagOf(head stream.Head) (tag, caching string) {
	if head.Done {
		return `W/"` + head.Digest + `"`, "private, max-age=3600"
	}
	return `W/"` + head.Digest + `"`, "private, no-cache"
}

func (a *api) events(ctx context.Context, in *eventsInput) (*reply, error) {
	id, err := parseID(in.ID)
	if err != nil {
		return nil, err
	}
	history, err := a.cfg.Log.HistoryAt(ctx, id, a.completed(ctx, id))
	if err != nil {
		return nil, err
	}
	head := history[len(history)-1].Head()
	if strings.Contains(in.Accept, "text/event-stream") {
		after, err := sequenceOf("header.Last-Event-ID", in.LastEventID, 0)
		switch {
		case err != nil:
			return nil, err
		case head.Done && after >= head.Sequence:
			return emptyReply(http.StatusNoContent)
		}
		return a.stream(func(ctx context.Context, handle func([]stream.Entry) error) error {
			return a.cfg.Log.Watch(ctx, id, after, handle)
		}, true)
	}
	tag, caching := tagOf(head)
	if matches(in.IfNoneMatch, tag) {
		return emptyReply(http.StatusNotModified, "ETag", tag, "Cache-Control", caching, "Vary", "Accept")
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		b.WriteString(`{"events":[`)
		for i, e := range history {
			flat, err := flatten(e)
			if err != nil {
				return err
			}
			for j, one := range flat {
				if i+j > 0 {
					b.WriteByte(',')
				}
				b.Write(one.data)
			}
		}
		b.WriteString("]}\n")
		return nil
	}, "ETag", tag, "Cache-Control", caching, "Vary", "Accept")
}

func (a *api) allEvents(ctx context.Context, in *allEventsInput) (*reply, error) {
	now, err := a.cfg.Log.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	after, err := sequenceOf("query.after", in.After, now)
	if err == nil && in.LastEventID != "" {
		after, err = sequenceOf("header.Last-Event-ID", in.LastEventID, now)
	}
	if err != nil {
		return nil, err
	}
	if after > now {
		return nil, invalid.at("query.after", "is beyond the end of the log")
	}
	return a.stream(func(ctx context.Context, handle func([]stream.Entry) error) error {
		return a.cfg.Log.Follow(ctx, after, handle)
	}, false)
}

func sequenceOf(location, text string, absent uint64) (uint64, error) {
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, invalid.at(location, "must be a stream sequence")
	}
	return n, nil
}

// flat is one event as readers are shown it.
type flat struct {
	kind string
	data []byte // a JSON object without line breaks
}

// flatten takes a commit apart. The fields of an event are copied as they are
// stored; the commit's own come before them.
func flatten(e stream.Entry) ([]flat, error) {
	var c struct {
		At     time.Time         `json:"at"`
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(e.Body, &c); err != nil {
		return nil, fmt.Errorf("read commit at %d: %w", e.Sequence, err)
	}
	prefix := fmt.Appendf(nil, `{"generation_id":"%s","sequence":%d,"version":%d,"at":"%s",`,
		e.ID, e.Sequence, e.Version, c.At.UTC().Format(time.RFC3339Nano))
	all := make([]flat, len(c.Events))
	for i, raw := range c.Events {
		var head struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &head); err != nil {
			return nil, fmt.Errorf("read commit at %d: %w", e.Sequence, err)
		}
		all[i] = flat{kind: head.Type, data: append(append([]byte{}, prefix...), raw[1:]...)}
	}
	return all, nil
}
