package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector/catalog"
)

type generationsInput struct {
	Model       string    `query:"model" doc:"only of this model"`
	Failed      string    `query:"failed" enum:"true,false" doc:"true: only without an artifact; false: only with one"`
	Label       string    `query:"label" example:"user:42" doc:"only with this label, as key:value"`
	From        time.Time `query:"from" doc:"created at this time or later (RFC 3339)"`
	To          time.Time `query:"to" doc:"created before this time (RFC 3339)"`
	Limit       int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"how many at most"`
	Cursor      string    `query:"cursor" doc:"next of the page before, with the same filters"`
	MinPosition uint64    `query:"min_position" doc:"wait, for at most 10 s, until the catalog has read the log up to this stream sequence"`
}

type artifactsInput struct {
	Model       string    `query:"model" doc:"only of this model"`
	Generation  string    `query:"generation" doc:"only of this generation"`
	Label       string    `query:"label" example:"user:42" doc:"only of generations with this label, as key:value"`
	From        time.Time `query:"from" doc:"created at this time or later (RFC 3339)"`
	To          time.Time `query:"to" doc:"created before this time (RFC 3339)"`
	Limit       int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"how many at most"`
	Cursor      string    `query:"cursor" doc:"next of the page before, with the same filters"`
	MinPosition uint64    `query:"min_position" doc:"wait, for at most 10 s, until the catalog has read the log up to this stream sequence"`
}

type artifactInput struct {
	ID          string `path:"id"`
	MinPosition uint64 `query:"min_position" doc:"wait, for at most 10 s, until the catalog has read the log up to this stream sequence"`
}

type countsInput struct {
	MinPosition uint64 `query:"min_position" doc:"wait, for at most 10 s, until the catalog has read the log up to this stream sequence"`
}

func (a *api) registerLists() {
	page := map[string]string{"Link": `rel="next": the next page`, headerPosition: "how far the catalog has read"}
	one := map[string]string{headerPosition: "how far the catalog has read"}
	ok := func(t reflect.Type, about string, headers map[string]string) map[int]answer {
		return map[int]answer{http.StatusOK: {about: about, headers: headers, content: map[string]reflect.Type{"application/json": t}}}
	}
	register(a, operation{
		id: "list-generations", method: http.MethodGet, path: "/v1/generations",
		summary: "Completed generations, newest first", about: "From the catalog: a generation is here once it is completed, and never changes.",
		answers:  ok(reflect.TypeFor[generationPage](), "One page", page),
		problems: []kind{malformed, invalid, behind},
	}, a.generations)
	register(a, operation{
		id: "list-artifacts", method: http.MethodGet, path: "/v1/artifacts",
		summary: "Artifacts of completed generations, newest first", about: "From the catalog.",
		answers:  ok(reflect.TypeFor[artifactPage](), "One page", page),
		problems: []kind{malformed, invalid, behind},
	}, a.artifacts)
	register(a, operation{
		id: "get-artifact", method: http.MethodGet, path: "/v1/artifacts/{id}",
		summary: "One artifact", about: "From the catalog.",
		answers:  ok(reflect.TypeFor[artifactRow](), "The artifact", one),
		problems: []kind{notFound, invalid, behind},
	}, a.artifact)
	register(a, operation{
		id: "changes", method: http.MethodGet, path: "/v1/changes",
		summary: "Generations in the order in which they completed",
		about: "Keep next, and send it as after: nothing is passed over, whatever restarts in between, and a rebuilt catalog gives the same order. " +
			"With wait, an answer with nothing in it comes only after that time.",
		answers:  ok(reflect.TypeFor[changeList](), "What came after", one),
		problems: []kind{malformed, invalid},
	}, a.changes)
	register(a, operation{
		id: "counts", method: http.MethodGet, path: "/v1/counts",
		summary: "Totals of the catalog", about: "Completed generations, those of them without an artifact, artifacts, and their cost.",
		answers:  ok(reflect.TypeFor[counts](), "The totals", one),
		problems: []kind{invalid, behind},
	}, a.counts)
	register(a, operation{
		id: "open", method: http.MethodGet, path: "/v1/open",
		summary: "Generations that are not completed yet", about: "Known only to a process that also runs the orchestrator; elsewhere the list is empty.",
		answers:  ok(reflect.TypeFor[openList](), "What is in flight", nil),
		problems: []kind{invalid},
	}, a.open)
}

func (a *api) generations(ctx context.Context, in *generationsInput) (*reply, error) {
	f := catalog.GenerationFilter{Model: in.Model, From: in.From, To: in.To, Limit: in.Limit, After: in.Cursor}
	if in.Failed != "" {
		failed := in.Failed == "true"
		f.Failed = &failed
	}
	var err error
	if f.Label, err = labelOf(in.Label); err != nil {
		return nil, err
	}
	c, read, err := a.catalog(ctx, in.MinPosition)
	if err != nil {
		return nil, err
	}
	page, err := c.Generations(ctx, f)
	if err != nil {
		return nil, refused(err)
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		b.WriteString(`{"generations":[`)
		for i, g := range page.Generations {
			if i > 0 {
				b.WriteByte(',')
			}
			appendGeneration(b, g)
		}
		endPage(b, page.Next)
		return nil
	}, pageHeaders(ctx, read, page.Next)...)
}

func (a *api) artifacts(ctx context.Context, in *artifactsInput) (*reply, error) {
	f := catalog.ArtifactFilter{Model: in.Model, From: in.From, To: in.To, Limit: in.Limit, After: in.Cursor}
	var err error
	if f.Label, err = labelOf(in.Label); err != nil {
		return nil, err
	}
	if in.Generation != "" {
		if f.Generation, err = events.ParseID(in.Generation); err != nil {
			return nil, invalid.at("query.generation", "must be a generation's ID")
		}
	}
	c, read, err := a.catalog(ctx, in.MinPosition)
	if err != nil {
		return nil, err
	}
	page, err := c.Artifacts(ctx, f)
	if err != nil {
		return nil, refused(err)
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		b.WriteString(`{"artifacts":[`)
		for i, row := range page.Artifacts {
			if i > 0 {
				b.WriteByte(',')
			}
			appendArtifact(b, row)
		}
		endPage(b, page.Next)
		return nil
	}, pageHeaders(ctx, read, page.Next)...)
}

func (a *api) artifact(ctx context.Context, in *artifactInput) (*reply, error) {
	if _, _, err := events.ParseArtifactID(in.ID); err != nil {
		return nil, invalid.at("path.id", "must be an artifact's ID: a generation's ID, a dash and the slot")
	}
	c, read, err := a.catalog(ctx, in.MinPosition)
	if err != nil {
		return nil, err
	}
	row, err := c.Artifact(ctx, in.ID)
	if err != nil {
		return nil, refused(err)
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		appendArtifact(b, row)
		b.WriteByte('\n')
		return nil
	}, headerPosition, read)
}

func (a *api) counts(ctx context.Context, in *countsInput) (*reply, error) {
	c, read, err := a.catalog(ctx, in.MinPosition)
	if err != nil {
		return nil, err
	}
	n, err := c.Counts(ctx)
	if err != nil {
		return nil, err
	}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error {
		fmt.Fprintf(b, `{"generations":%d,"failed":%d,"artifacts":%d,"cost":%s}`+"\n",
			n.Generations, n.Failed, n.Artifacts, events.Dollars(n.Cost))
		return nil
	}, headerPosition, read)
}

func (a *api) open(_ context.Context, _ *struct{}) (*reply, error) {
	list := struct {
		Generations []events.View `json:"generations"`
	}{Generations: a.inFlight()}
	return jsonReply(http.StatusOK, func(b *bytes.Buffer) error { return encode(b, list) })
}

func (a *api) inFlight() []events.View {
	if a.cfg.Open != nil {
		if open := a.cfg.Open(); open != nil {
			return open
		}
	}
	return []events.View{}
}

// labelOf reads key:value. A key has no colon in it, a value may.
func labelOf(text string) (catalog.Label, error) {
	if text == "" {
		return catalog.Label{}, nil
	}
	key, value, ok := strings.Cut(text, ":")
	if !ok || key == "" {
		return catalog.Label{}, invalid.at("query.label", "must be a key, a colon and a value")
	}
	return catalog.Label{Key: key, Value: value}, nil
}

// refused is what a client is told of the catalog's errors that are his.
func refused(err error) error {
	switch {
	case errors.Is(err, catalog.ErrCursor):
		return invalid.at("query.cursor", "is not the next of a page with these filters")
	case errors.Is(err, catalog.ErrFilter):
		for _, name := range []string{"limit", "label", "from"} {
			if strings.Contains(err.Error(), name+": ") {
				return invalid.at("query."+name, "is out of its bounds")
			}
		}
	case errors.Is(err, catalog.ErrNotFound):
		return notFound.because("the catalog has no artifact with this ID")
	}
	return err
}

func appendGeneration(b *bytes.Buffer, g catalog.Generation) {
	b.WriteString(`{"id":"`)
	b.WriteString(string(g.ID))
	b.WriteString(`","model":`)
	appendString(b, g.Model)
	b.WriteString(`,"input":`)
	b.Write(g.Input)
	b.WriteString(`,"artifact_count":`)
	b.WriteString(strconv.Itoa(g.ArtifactCount))
	appendTime(b, "created_at", g.CreatedAt)
	appendTime(b, "completed_at", g.CompletedAt)
	b.WriteByte('}')
}

func appendArtifact(b *bytes.Buffer, a catalog.Artifact) {
	b.WriteString(`{"id":"`)
	b.WriteString(a.ID)
	b.WriteString(`","generation_id":"`)
	b.WriteString(string(a.GenerationID))
	b.WriteString(`","model":`)
	appendString(b, a.Model)
	b.WriteString(`,"blob_key":`)
	appendString(b, a.BlobKey)
	b.WriteString(`,"content_type":`)
	appendString(b, a.ContentType)
	if a.Seed != "" {
		b.WriteString(`,"seed":`)
		appendString(b, a.Seed)
	}
	if a.Cost != nil {
		b.WriteString(`,"cost":`)
		b.WriteString(events.Dollars(*a.Cost).String())
	}
	if len(a.Metadata) > 0 {
		b.WriteString(`,"metadata":`)
		b.Write(a.Metadata)
	}
	appendTime(b, "created_at", a.CreatedAt)
	b.WriteString(`,"url":"`)
	b.WriteString(events.ContentURL(a.ID))
	b.WriteString(`"}`)
}

func appendTime(b *bytes.Buffer, name string, t time.Time) {
	b.WriteString(`,"`)
	b.WriteString(name)
	b.WriteString(`":"`)
	b.Write(t.UTC().AppendFormat(b.AvailableBuffer(), time.RFC3339Nano))
	b.WriteByte('"')
}

func endPage(b *bytes.Buffer, next string) {
	b.WriteByte(']')
	if next != "" {
		b.WriteString(`,"next":"`)
		b.WriteString(next) // base64url
		b.WriteByte('"')
	}
	b.WriteString("}\n")
}
