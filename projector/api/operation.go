package api

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// operation is one route: how it is reached, and how it is told about.
type operation struct {
	id, method, path string
	summary, about   string
	answers          map[int]answer
	problems         []kind
	body             reflect.Type // of the documented request body; nil = none
	upload           bool         // the body is a file, which the handler reads itself
}

// answer is a documented answer that is no problem.
type answer struct {
	about   string
	content map[string]reflect.Type // by content type; nil type = bytes
	headers map[string]string       // what each says
}

// reply writes an answer. The handlers write their own instead of leaving it to
// reflection: rows are copied as they are stored, and files are streamed.
type reply struct {
	Body func(huma.Context)
}

// maxBody bounds the body of a request, in bytes. The log's own limit for a
// request is lower and is the orchestrator's to tell.
const maxBody = 1 << 20

// bodyTimeout bounds how long a body may take to arrive.
const bodyTimeout = 10 * time.Second

// humaConfig is huma's, without what it would fetch from elsewhere or add to bodies.
func humaConfig() huma.Config {
	c := huma.DefaultConfig("genstream", "1")
	c.Info.Description = "Generations of media: ask for one, follow it, list what came of it. " +
		"The log holds the truth of each generation (by ID); lists come from the catalog, which follows the log: " +
		"every answer from it says in Gen-Position how far it has read, and min_position waits."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.DocsPath, c.SchemasPath, c.OpenAPIPath = "", "", ""
	c.CreateHooks = nil
	c.Formats = map[string]huma.Format{
		"application/json": huma.DefaultJSONFormat,
		"json":             huma.DefaultJSONFormat, // of application/problem+json
	}
	c.Transformers = []huma.Transformer{plain}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"key": {Type: "http", Scheme: "bearer", Description: "one of the keys in the server's key file; not asked for without one"},
	}
	c.Security = []map[string][]string{{"key": {}}}
	return c
}

// register adds a route to huma, with its documentation as op says it.
func register[In any](a *api, op operation, handle func(context.Context, *In) (*reply, error)) {
	registry := a.huma.OpenAPI().Components.Schemas
	h := huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path,
		Summary: op.summary, Description: op.about, Responses: map[string]*huma.Response{},
		MaxBodyBytes:     maxBody + 1, // huma refuses a body of exactly its limit
		BodyReadTimeout:  bodyTimeout,
		SkipValidateBody: true, // whoever answers it does
	}
	if op.body != nil {
		h.RequestBody = &huma.RequestBody{Required: true}
	}
	if op.upload {
		h.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			"*/*": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}}
	}
	for code, an := range op.answers {
		h.Responses[strconv.Itoa(code)] = an.response(registry)
	}
	for _, k := range op.allProblems() {
		p := k.because("")
		code := strconv.Itoa(p.Code)
		if h.Responses[code] == nil {
			h.Responses[code] = &huma.Response{Content: map[string]*huma.MediaType{
				"application/problem+json": {Schema: registry.Schema(reflect.TypeFor[problem](), true, "Problem")},
			}}
		} else {
			h.Responses[code].Description += "; or "
		}
		h.Responses[code].Description += p.Title + " (" + p.Type + ")"
	}
	huma.Register(a.huma, h, func(ctx context.Context, in *In) (*reply, error) {
		r, err := handle(ctx, in)
		if err != nil {
			return a.problemOf(ctx, op.id, err).reply(), nil
		}
		return r, nil
	})
	if op.body != nil { // huma writes a raw body down as bytes
		h.RequestBody.Content = map[string]*huma.MediaType{
			"application/json": {Schema: registry.Schema(op.body, true, "")},
		}
	}
}

// allProblems adds to an operation's own what the guard and every handler may answer.
func (op operation) allProblems() []kind {
	all := append(slices.Clone(op.problems), misdirected, internal)
	if !open(op.path) {
		all = append(all, unauthorized)
	}
	if op.method != http.MethodGet {
		all = append(all, foreign)
	}
	return all
}

func (an answer) response(registry huma.Registry) *huma.Response {
	r := &huma.Response{Description: an.about}
	for contentType, t := range an.content {
		if r.Content == nil {
			r.Content = map[string]*huma.MediaType{}
		}
		schema := &huma.Schema{Type: huma.TypeString, Format: "binary"}
		if t != nil {
			schema = registry.Schema(t, true, "")
		}
		r.Content[contentType] = &huma.MediaType{Schema: schema}
	}
	for name, about := range an.headers {
		if r.Headers == nil {
			r.Headers = map[string]*huma.Param{}
		}
		r.Headers[name] = &huma.Param{Description: about, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return r
}

// checkQuery refuses what huma would pass over: a parameter that the operation
// does not know (a misspelt filter would list everything), or one given twice.
func (a *api) checkQuery(hc huma.Context, next func(huma.Context)) {
	u := hc.URL()
	if u.RawQuery == "" {
		next(hc)
		return
	}
	_, w := humago.Unwrap(hc)
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		malformed.at("query", "is not well formed").write(w)
		return
	}
	var p *problem
	refuse := func(name, message string) {
		f := invalid.at("query."+cutName(name), message)
		if p == nil {
			p = f
		} else {
			p.Errors = append(p.Errors, f.Errors...)
		}
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names[:min(len(names), 16)] {
		known := slices.ContainsFunc(hc.Operation().Parameters, func(param *huma.Param) bool {
			return param.In == "query" && param.Name == name
		})
		switch {
		case !known:
			refuse(name, "is not a parameter of this operation")
		case len(values[name]) > 1:
			refuse(name, "is given more than once")
		}
	}
	if p != nil {
		p.write(w)
		return
	}
	next(hc)
}

// lasting lifts the deadlines of the connection for an answer that may take d:
// the one set for reading the body would otherwise end the request.
func lasting(ctx context.Context, d time.Duration) {
	x, ok := ctx.Value(exchangeKey{}).(exchange)
	if !ok {
		return
	}
	c := http.NewResponseController(x.w)
	_ = c.SetReadDeadline(time.Time{}) // not supported: then none was set
	_ = c.SetWriteDeadline(time.Now().Add(d + writeTimeout))
}

// exchange is what the guard leaves under exchangeKey for what the handlers'
// typed inputs do not hold.
type exchange struct {
	r *http.Request
	w http.ResponseWriter
}

type exchangeKey struct{}

// writeTimeout bounds an answer, and each part of a stream, to a client that does
// not read.
const writeTimeout = 30 * time.Second
