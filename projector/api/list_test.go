package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// ids are the IDs of a list, in order.
func ids(t *testing.T, a answered, list string) []string {
	t.Helper()
	if a.code != http.StatusOK {
		t.Fatalf("answered %d %s", a.code, a.body)
	}
	all := []string{}
	for _, row := range a.decode(t)[list].([]any) {
		all = append(all, row.(map[string]any)["id"].(string))
	}
	return all
}

func labelled(key, value string) func(*events.Requested) {
	return func(r *events.Requested) { r.Labels = map[string]string{key: value} }
}

func TestListsFilter(t *testing.T) {
	w := newWorld(t)
	other := func(r *events.Requested) { r.Model = "civitai:1@2" }
	fox := w.whole(2, labelled("user", "42:a"))
	boat := w.whole(1, other)
	failed := w.request(1, labelled("user", "7"))
	w.complete(failed)
	w.caughtUp(failed.sequence)
	open := w.request(1)

	middle := boat.now.CreatedAt.Format(time.RFC3339Nano)
	name := map[string]string{string(fox.id): "fox", string(boat.id): "boat", string(failed.id): "failed", string(open.id): "open"}
	for query, want := range map[string]string{
		"":                                       "[failed boat fox]",
		"?failed=true":                           "[failed]",
		"?failed=false":                          "[boat fox]",
		"?model=civitai:1@2":                     "[boat]",
		"?model=civitai:1@2&failed=true":         "[]",
		"?model=nothing":                         "[]",
		"?label=user:42:a":                       "[fox]",
		"?label=user:43":                         "[]",
		"?from=" + middle:                        "[failed boat]",
		"?to=" + middle:                          "[fox]",
		"?limit=2":                               "[failed boat]",
		"?min_position=" + number(open.sequence): "[failed boat fox]",
	} {
		var got []string
		for _, id := range ids(t, w.get("/v1/generations"+query), "generations") {
			got = append(got, name[id])
		}
		if fmt.Sprint(got) != want {
			t.Errorf("generations%s: %v, want %s", query, got, want)
		}
	}
	for query, want := range map[string]int{
		"": 3, "?model=civitai:1@2": 1, "?generation=" + string(fox.id): 2, "?generation=" + string(open.id): 0,
		"?label=user:42:a": 2, "?label=user:7": 0, "?limit=2": 2, "?to=" + middle: 2,
	} {
		if got := ids(t, w.get("/v1/artifacts"+query), "artifacts"); len(got) != want {
			t.Errorf("artifacts%s: %v, want %d", query, got, want)
		}
	}
	a := w.get("/v1/counts")
	if want := `{"generations":3,"failed":1,"artifacts":3,"cost":0.0039}` + "\n"; a.body != want || a.header.Get("Gen-Position") == "" {
		t.Errorf("counts %s, want %s, position %q", a.body, want, a.header.Get("Gen-Position"))
	}
}

func TestRowsAreCopiedAsTheyAre(t *testing.T) {
	w := newWorld(t)
	input := `{"seed":18446744073709551615,"positivePrompt":"<b> & \u2028 é","cfg":1.50}`
	m := w.whole(1, func(r *events.Requested) { r.Model, r.Input = `a"b<c>`, json.RawMessage(input) })
	a := w.get("/v1/generations")
	want := fmt.Sprintf(`{"generations":[{"id":"%s","model":"a\"b<c>","input":%s,"artifact_count":1,"created_at":"%s","completed_at":"%s"}]}`+"\n",
		m.id, input, m.now.CreatedAt.Format(time.RFC3339Nano), m.now.CompletedAt.Format(time.RFC3339Nano))
	if a.body != want {
		t.Errorf("row  %s\nwant %s", a.body, want)
	}
	art := m.now.Outputs[0].Artifact
	a = w.get("/v1/artifacts/" + art.ID)
	want = fmt.Sprintf(`{"id":"%s","generation_id":"%s","model":"a\"b<c>","blob_key":"%s","content_type":"image/png","seed":"18446744073709551615","cost":0.0013,"metadata":{"NSFW":false},"created_at":"%s","url":"/v1/artifacts/%[1]s/content"}`+"\n",
		art.ID, m.id, art.BlobKey, art.CreatedAt.Format(time.RFC3339Nano))
	if a.body != want {
		t.Errorf("row  %s\nwant %s", a.body, want)
	}
}

func TestCursorsWalkTheWholeList(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 7 {
		m := w.whole(1, labelled("n", fmt.Sprint(i%2)))
		want = append([]string{string(m.id)}, want...)
	}
	var got []string
	path := "/v1/generations?limit=3&min_position=1"
	for path != "" {
		a := w.get(path)
		got = append(got, ids(t, a, "generations")...)
		link, next := a.header.Get("Link"), a.decode(t)["next"]
		if (link == "") != (next == nil) {
			t.Fatalf("Link %q, next %v", link, next)
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if path != "" && (!strings.Contains(path, "limit=3") || strings.Contains(path, "min_position") || !strings.HasSuffix(link, `>; rel="next"`)) {
			t.Fatalf("Link %q", link)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("walked %v, want %v", got, want)
	}
	next := w.get("/v1/generations?limit=3").decode(t)["next"].(string)
	for name, path := range map[string]string{
		"OtherFilter": "/v1/generations?model=x&cursor=" + next,
		"OtherList":   "/v1/artifacts?cursor=" + next,
		"Cut":         "/v1/generations?cursor=" + next[:len(next)-2],
		"Nonsense":    "/v1/generations?cursor=%00%ff'--",
		"Padded":      "/v1/generations?cursor=" + next + "%3D",
	} {
		t.Run(name, func(t *testing.T) {
			a := w.get(path)
			a.mustBe(t, 422, "invalid")
			if !strings.Contains(a.body, "query.cursor") {
				t.Errorf("does not name the cursor: %s", a.body)
			}
		})
	}
	if a := w.get("/v1/generations?limit=5&cursor=" + next); len(ids(t, a, "generations")) != 4 {
		t.Errorf("another limit with the same cursor: %s", a.body)
	}
}

func TestBadInputIsNamed(t *testing.T) {
	w := newWorld(t)
	id := string(streamtest.NewID())
	for _, c := range []struct {
		path string
		code int
		kind string
		has  string
	}{
		{"/v1/generations?limit=0", 422, "invalid", "query.limit"},
		{"/v1/generations?limit=201", 422, "invalid", "query.limit"},
		{"/v1/generations?limit=ten", 422, "invalid", "query.limit"},
		{"/v1/generations?limit=99999999999999999999", 422, "invalid", "query.limit"},
		{"/v1/generations?failed=maybe", 422, "invalid", "query.failed"},
		{"/v1/generations?from=yesterday", 422, "invalid", "query.from"},
		{"/v1/generations?to=2026-13-01T00:00:00Z", 422, "invalid", "query.to"},
		{"/v1/generations?from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", 422, "invalid", "query.from"},
		{"/v1/generations?label=user", 422, "invalid", "query.label"},
		{"/v1/generations?label=:42", 422, "invalid", "query.label"},
		{"/v1/generations?label=User:42", 422, "invalid", "query.label"},
		{"/v1/generations?label=user:" + strings.Repeat("x", 129), 422, "invalid", "query.label"},
		{"/v1/generations?modle=x", 422, "invalid", "query.modle"},
		{"/v1/generations?model=a&model=b", 422, "invalid", "query.model"},
		{"/v1/generations?model=%zz", 400, "malformed", "query"},
		{"/v1/generations?model=a;b=c", 400, "malformed", "query"},
		{"/v1/generations?min_position=-1", 422, "invalid", "query.min_position"},
		{"/v1/generations/" + strings.ToUpper(id), 422, "invalid", "path.id"},
		{"/v1/generations/%2A", 422, "invalid", "path.id"},
		{"/v1/generations/..%2F..%2Fetc", 422, "invalid", "path.id"},
		{"/v1/generations/" + id[:14] + "4" + id[15:], 422, "invalid", "path.id"},
		{"/v1/generations/" + id + "?x=1", 422, "invalid", "query.x"},
		{"/v1/generations/" + id, 404, "not-found", ""},
		{"/v1/generations/x/events", 422, "invalid", "path.id"},
		{"/v1/generations/" + id + "/events", 404, "not-found", ""},
		{"/v1/artifacts?generation=x", 422, "invalid", "query.generation"},
		{"/v1/artifacts?failed=true", 422, "invalid", "query.failed"},
		{"/v1/artifacts/" + id, 422, "invalid", "path.id"},
		{"/v1/artifacts/" + id + "-00", 422, "invalid", "path.id"},
		{"/v1/artifacts/" + id + "-20", 422, "invalid", "path.id"},
		{"/v1/artifacts/" + id + "-0", 404, "not-found", ""},
		{"/v1/artifacts/" + id + "-0/content", 404, "not-found", ""},
		{"/v1/artifacts/..%2f..%2fetc%2fpasswd/content", 422, "invalid", "path.id"},
		{"/v1/changes?after=x", 422, "invalid", "query.after"},
		{"/v1/changes?wait=soon", 422, "invalid", "query.wait"},
		{"/v1/changes?wait=-1s", 422, "invalid", "query.wait"},
		{"/v1/changes?limit=0", 422, "invalid", "query.limit"},
		{"/v1/counts?x", 422, "invalid", "query.x"},
		{"/v1/open?x=1", 422, "invalid", "query.x"},
		{"/v1/nothing", 404, "not-found", ""},
		{"/v2/generations", 404, "not-found", ""},
		{"/assets/page.go", 404, "not-found", ""},
		{"/assets/..%2fpage.go", 404, "not-found", ""},
	} {
		t.Run(c.path, func(t *testing.T) {
			a := w.get(c.path)
			a.mustBe(t, c.code, c.kind)
			if c.has != "" && !strings.Contains(a.body, `"location":"`+c.has+`"`) {
				t.Errorf("does not name %s: %s", c.has, a.body)
			}
			if strings.Contains(a.body, "value") && !strings.Contains(a.body, "key, a colon and a value") && !strings.Contains(a.body, "expected value") {
				t.Errorf("may echo what was sent: %s", a.body)
			}
		})
	}
	a := w.do(http.MethodDelete, "/v1/generations/"+id, "")
	a.mustBe(t, 405, "method")
	if a.header.Get("Allow") != "GET, HEAD, PUT" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
}

func TestProblemsNeverRepeatValues(t *testing.T) {
	w := newWorld(t)
	const canary = "canary-7c1f"
	for _, path := range []string{
		"/v1/generations?limit=" + canary, "/v1/generations?failed=" + canary, "/v1/generations?from=" + canary,
		"/v1/generations?cursor=" + canary, "/v1/generations?label=" + canary, "/v1/generations/" + canary,
		"/v1/artifacts?generation=" + canary, "/v1/artifacts/" + canary, "/v1/changes?after=" + canary, "/v1/changes?wait=" + canary,
		"/v1/events?after=" + canary, "/" + canary,
	} {
		if a := w.get(path); a.code < 400 || strings.Contains(a.body, canary) {
			t.Errorf("%s answered %d %s", path, a.code, a.body)
		}
	}
}

func TestChangesIsALongPoll(t *testing.T) {
	w := newWorld(t)
	if a := w.get("/v1/changes?after=7"); a.body != `{"generations":[],"next":7}`+"\n" {
		t.Errorf("nothing new: %s", a.body)
	}
	answers := make(chan answered, 1)
	go func() { answers <- w.get("/v1/changes?after=0&wait=60s") }()
	one := w.whole(1)
	a := <-answers
	if want := fmt.Sprintf(`{"generations":[{"id":"%s"}],"next":%d}`+"\n", one.id, one.sequence); a.body != want {
		t.Errorf("long poll: %s, want %s", a.body, want)
	}
	w.request(1)
	two := w.whole(1)
	three := w.whole(1)
	a = w.get("/v1/changes?limit=2")
	if want := fmt.Sprintf(`{"generations":[{"id":"%s"},{"id":"%s"}],"next":%d}`+"\n", one.id, two.id, two.sequence); a.body != want {
		t.Errorf("first two: %s, want %s", a.body, want)
	}
	a = w.get("/v1/changes?wait=60s&after=" + number(two.sequence))
	if want := fmt.Sprintf(`{"generations":[{"id":"%s"}],"next":%d}`+"\n", three.id, three.sequence); a.body != want {
		t.Errorf("the rest: %s, want %s", a.body, want)
	}
	if a := w.get("/v1/changes?wait=10ms&after=" + number(three.sequence)); a.body != fmt.Sprintf(`{"generations":[],"next":%d}`+"\n", three.sequence) {
		t.Errorf("after a wait for nothing: %s", a.body)
	}
	go func() { answers <- w.get("/v1/changes?wait=60s&after=99999") }()
	w.get("/healthz")
	start := time.Now()
	w.stop()
	if a := <-answers; a.code != http.StatusOK || time.Since(start) > 10*time.Second {
		t.Errorf("when the server stops: %d after %s", a.code, time.Since(start))
	}
}

func TestReaderWaitsForAPosition(t *testing.T) {
	w := newWorld(t)
	m := w.request(1)
	answers := make(chan answered, 1)
	go func() { answers <- w.get("/v1/generations?min_position=" + number(m.sequence+2)) }()
	w.succeed(m, 0)
	w.complete(m)
	if got := ids(t, <-answers, "generations"); len(got) != 1 {
		t.Errorf("listed %v", got)
	}
	for _, path := range []string{"/v1/generations", "/v1/artifacts", "/v1/counts", "/v1/artifacts/" + events.ArtifactID(m.id, 0)} {
		if a := w.get(path + "?min_position=" + number(m.sequence)); a.code != http.StatusOK || a.header.Get("Gen-Position") != number(m.sequence) {
			t.Errorf("%s answered %d, position %q", path, a.code, a.header.Get("Gen-Position"))
		}
	}
	go func() { answers <- w.get("/v1/generations?min_position=99999") }()
	w.get("/healthz")
	w.stop() // cuts the wait of ten seconds short
	a := <-answers
	a.mustBe(t, 503, "behind")
}
