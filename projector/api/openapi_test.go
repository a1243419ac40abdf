package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/projector/api"
)

// schema is as much of a JSON schema as the document uses.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Properties           map[string]*schema
	Required             []string
	Items                *schema
	AdditionalProperties any
}

type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		Summary     string
		Description string
		Responses   map[string]struct {
			Description string
			Content     map[string]struct{ Schema *schema }
		}
		RequestBody *struct {
			Content map[string]struct{ Schema *schema }
		}
	}
	Components struct{ Schemas map[string]*schema }
}

func (w *world) document() (d document) {
	w.t.Helper()
	a := w.get("/openapi.json")
	if a.code != 200 {
		w.t.Fatalf("answered %d", a.code)
	}
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func TestEveryRouteIsDocumented(t *testing.T) {
	w := newWorld(t, func(c *api.Config) { c.Metrics = http.NotFoundHandler() })
	d := w.document()
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi %q", d.OpenAPI)
	}
	want := []string{
		"get /healthz", "get /metrics", "get /readyz", "get /v1/artifacts", "get /v1/artifacts/{id}", "get /v1/artifacts/{id}/content",
		"get /v1/changes", "get /v1/counts", "get /v1/events", "get /v1/files/{sha256}", "get /v1/generations", "get /v1/generations/{id}", "get /v1/generations/{id}/events",
		"get /v1/open", "post /v1/files", "post /v1/generations", "post /v1/generations/{id}/rescue", "put /v1/generations/{id}",
	}
	var got []string
	told := map[string]bool{}
	for path, methods := range d.Paths {
		for method, op := range methods {
			name := method + " " + path
			got = append(got, name)
			if op.Summary == "" || op.Description == "" || op.OperationID == "" {
				t.Errorf("%s: no summary, description or ID: %+v", name, op)
			}
			problems := 0
			for code, r := range op.Responses {
				if strings.TrimSpace(r.Description) == "" || strings.HasPrefix(r.Description, ";") {
					t.Errorf("%s: answer %s is not described: %q", name, code, r.Description)
				}
				for _, part := range strings.Split(r.Description, "urn:genstream:problem:")[1:] {
					kind, _, _ := strings.Cut(part, ")")
					told[kind] = true
					problems++
				}
				if code >= "400" && r.Content["application/problem+json"].Schema == nil && r.Content["application/json"].Schema == nil {
					t.Errorf("%s: answer %s has no schema", name, code)
				}
			}
			if problems < 2 {
				t.Errorf("%s: %d problems documented", name, problems)
			}
			body := map[string]string{"post /v1/generations": "application/json", "put /v1/generations/{id}": "application/json", "post /v1/files": "*/*"}[name]
			if (op.RequestBody != nil) != (body != "") || body != "" && (op.RequestBody.Content[body].Schema == nil || len(op.RequestBody.Content) != 1) {
				t.Errorf("%s: body %+v", name, op.RequestBody)
			}
		}
	}
	slices.Sort(got)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("documented %v\nwant %v", got, want)
	}
	for _, kind := range []string{
		"malformed", "unauthorized", "cross-origin", "not-found", "slow", "too-large", "media-type", "range", "misdirected", "invalid", "reused",
		"internal", "busy", "no-room", "unavailable", "behind",
	} {
		if !told[kind] {
			t.Errorf("problem %s is documented nowhere", kind)
		}
	}
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		if d.Components.Schemas[name] != nil {
			t.Errorf("schema %s is documented and never answered", name)
		}
	}
	request := d.Components.Schemas["Request"]
	if request == nil || fmt.Sprint(request.Required) != "[model input]" || len(request.Properties) != 6 {
		t.Errorf("request is %+v", request)
	}
}

func TestAnswersAreAsDocumented(t *testing.T) {
	w := newWorld(t, func(c *api.Config) {
		c.Open = func() []events.View {
			return []events.View{{ID: "x", Input: json.RawMessage(`{}`), Outputs: []events.OutputView{}}}
		}
	})
	d := w.document()
	m := w.request(2, labelled("user", "42"))
	w.succeed(m, 0)
	w.complete(m)
	bad := w.request(1)
	w.complete(bad)
	w.caughtUp(bad.sequence)
	id := string(m.id)
	for path, real := range map[string]string{
		"/v1/generations":             "?limit=1",
		"/v1/generations/{id}":        "",
		"/v1/generations/{id}/events": "",
		"/v1/artifacts":               "",
		"/v1/artifacts/{id}":          "-0",
		"/v1/changes":                 "",
		"/v1/counts":                  "",
		"/v1/open":                    "",
		"/healthz":                    "",
	} {
		a := w.get(strings.ReplaceAll(path, "{id}", id) + real)
		if a.code != 200 {
			t.Errorf("%s answered %d", path, a.code)
		}
		d.check(t, path, d.Paths[path]["get"].Responses["200"].Content["application/json"].Schema, a.decode(t))
	}
	failed := w.get("/v1/generations/" + string(bad.id))
	d.check(t, "failed generation", d.Paths["/v1/generations/{id}"]["get"].Responses["200"].Content["application/json"].Schema, failed.decode(t))
	problem := w.get("/v1/generations?limit=0")
	d.check(t, "problem", d.Components.Schemas["Problem"], problem.decode(t))
}

// check reports what in v the schema does not have, and what it misses.
func (d document) check(t *testing.T, where string, s *schema, v any) {
	t.Helper()
	if s == nil {
		t.Errorf("%s: no schema", where)
		return
	}
	if s.Ref != "" {
		s = d.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Properties == nil {
			return // anything
		}
		for _, name := range s.Required {
			if _, there := v[name]; !there {
				t.Errorf("%s: %s is missing", where, name)
			}
		}
		for name, value := range v {
			if p := s.Properties[name]; p != nil {
				d.check(t, where+"."+name, p, value)
			} else if s.AdditionalProperties == false {
				t.Errorf("%s: %s is not documented", where, name)
			}
		}
	case []any:
		if s.Type != "array" {
			t.Errorf("%s: an array, documented as %v", where, s.Type)
			return
		}
		for _, value := range v {
			d.check(t, where+"[]", s.Items, value)
		}
	case string:
		if s.Type != "string" && s.Type != nil {
			t.Errorf("%s: a string, documented as %v", where, s.Type)
		}
	case float64:
		if s.Type != "number" && s.Type != "integer" {
			t.Errorf("%s: a number, documented as %v", where, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			t.Errorf("%s: a boolean, documented as %v", where, s.Type)
		}
	}
}
