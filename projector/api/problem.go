package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// problem is why a request was not served, in the form of RFC 9457
// (application/problem+json). It is the whole of what a client is told: never
// what the client sent, never what went wrong inside.
type problem struct {
	Type   string  `json:"type" doc:"urn:genstream:problem: and the kind"`
	Title  string  `json:"title" doc:"the same for every problem of the kind"`
	Code   int     `json:"status" doc:"of HTTP, under the name that RFC 9457 gives it"`
	Detail string  `json:"detail,omitempty" doc:"about this one request, for a person"`
	Errors []field `json:"errors,omitempty" nullable:"false" doc:"the fields that are not acceptable"`
}

// field is one part of the request and what is wrong with it.
type field struct {
	Message  string `json:"message"`
	Location string `json:"location" example:"query.limit" doc:"body, path, query or header, a dot, and the name"`
}

// kind is the last part of a problem's type.
type kind string

const (
	malformed    kind = "malformed"    // 400
	unauthorized kind = "unauthorized" // 401
	foreign      kind = "cross-origin" // 403
	notFound     kind = "not-found"    // 404
	noMethod     kind = "method"       // 405
	slow         kind = "slow"         // 408
	tooLarge     kind = "too-large"    // 413
	mediaType    kind = "media-type"   // 415
	noRange      kind = "range"        // 416
	misdirected  kind = "misdirected"  // 421
	invalid      kind = "invalid"      // 422
	reused       kind = "reused"       // 422
	internal     kind = "internal"     // 500
	busy         kind = "busy"         // 503
	noRoom       kind = "no-room"      // 503
	unavailable  kind = "unavailable"  // 503
	behind       kind = "behind"       // 503
)

const kindURN = "urn:genstream:problem:"

// told is what is the same for every problem of a kind.
type told struct {
	kind  kind
	code  int
	title string
}

// kinds is every kind of problem that this API gives or passes on. Of several
// with one code, the first is what an error of huma's own becomes.
var kinds = []told{
	{malformed, http.StatusBadRequest, "The request cannot be read"},
	{unauthorized, http.StatusUnauthorized, "An API key is needed"},
	{foreign, http.StatusForbidden, "The request comes from another site"},
	{notFound, http.StatusNotFound, "There is no such thing"},
	{noMethod, http.StatusMethodNotAllowed, "The method does not fit this path"},
	{slow, http.StatusRequestTimeout, "The body took too long to arrive"},
	{tooLarge, http.StatusRequestEntityTooLarge, "The request is too large"},
	{mediaType, http.StatusUnsupportedMediaType, "Files of this kind are not kept"},
	{noRange, http.StatusRequestedRangeNotSatisfiable, "The file has no such range"},
	{misdirected, http.StatusMisdirectedRequest, "This server does not answer for that host"},
	{invalid, http.StatusUnprocessableEntity, "A field is not acceptable"},
	{reused, http.StatusUnprocessableEntity, "The ID belongs to another request"},
	{internal, http.StatusInternalServerError, "Something went wrong here"},
	{busy, http.StatusServiceUnavailable, "Too much is under way"},
	{noRoom, http.StatusServiceUnavailable, "There is no room for more"},
	{unavailable, http.StatusServiceUnavailable, "The service cannot answer just now"},
	{behind, http.StatusServiceUnavailable, "The catalog has not read that far yet"},
}

// because is a problem of the kind with what there is to say about this request.
func (k kind) because(detail string) *problem {
	for _, known := range kinds {
		if known.kind == k {
			return &problem{Type: kindURN + string(k), Title: known.title, Code: known.code, Detail: detail}
		}
	}
	panic("api: no such kind of problem: " + string(k))
}

// at is a problem of the kind with one part of the request.
func (k kind) at(location, message string) *problem {
	p := k.because(location + " " + message)
	p.Errors = []field{{Message: message, Location: location}}
	return p
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }

// mark sets the headers that go with the problem.
func (p *problem) mark(h http.Header) {
	switch p.Code {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="genstream"`)
	}
}

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter) {
	p.mark(w.Header())
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Code)
	_, _ = w.Write(body) // the client is gone: nobody to tell
}

// problemOf is an error of a handler as a client is told it. What is no problem
// yet is logged here, once, and told as internal: causes are not for clients.
func (a *api) problemOf(ctx context.Context, operation string, err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case ctx.Err() != nil: // the client is gone
		return unavailable.because("the request was given up")
	case errors.Is(err, stream.ErrNotFound):
		return notFound.because("no generation has this ID")
	case errors.Is(err, stream.ErrFull):
		return noRoom.because("the log has no room")
	case errors.Is(err, stream.ErrUnavailable):
		return unavailable.because("the log does not answer; try again")
	}
	a.log.Error("request failed", "operation", operation, "error", err)
	return internal.because("the cause is in the server's log")
}

// reply is the problem as a handler's answer.
func (p *problem) reply() *reply {
	return &reply{Body: func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		p.write(w)
	}}
}

// plain turns the errors that huma finds itself into ours. It is a transformer of
// one API rather than a replacement of huma.NewError, which would change every
// API of the process.
func plain(_ huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		return fromHuma(m), nil
	}
	return v, nil
}

// fromHuma leaves out the values that huma found wrong: they are what the client sent.
func fromHuma(m *huma.ErrorModel) *problem {
	i := slices.IndexFunc(kinds, func(k told) bool { return k.code == m.Status })
	if i < 0 || m.Status >= 500 {
		return internal.because("the cause is in the server's log")
	}
	p := kinds[i].kind.because(m.Detail)
	for _, d := range m.Errors {
		p.Errors = append(p.Errors, field{
			Message: d.Message, Location: events.Cut(d.Location, 96),
		})
	}
	if len(p.Errors) == 0 && m.Status < 422 { // huma names every part but the body
		p.Errors = []field{{Message: m.Detail, Location: "body"}}
	}
	if len(p.Errors) > 0 {
		p.Detail = p.Errors[0].Location + ": " + p.Errors[0].Message
	}
	return p
}
