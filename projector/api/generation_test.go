package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/genstream/genstream/events"
)

func TestGenerationIsReadFromTheLog(t *testing.T) {
	w := newWorld(t)
	m := w.request(2, func(r *events.Requested) { r.Input = json.RawMessage(`{"positivePrompt":"a <red> fox & co"}`) })
	a := w.get("/v1/generations/" + string(m.id))
	if a.code != http.StatusOK || a.header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("answered %d %v", a.code, a.header)
	}
	if !strings.Contains(a.body, `"input":{"positivePrompt":"a <red> fox & co"}`) || strings.Contains(a.body, "completed_at") {
		t.Errorf("open generation is %s", a.body)
	}
	tag := a.header.Get("ETag")
	if again := w.get("/v1/generations/"+string(m.id), "If-None-Match", `"x", `+tag); again.code != http.StatusNotModified || again.body != "" || again.header.Get("ETag") != tag {
		t.Errorf("not modified: answered %d %v %q", again.code, again.header, again.body)
	}
	art := w.succeed(m, 1)
	w.complete(m)
	a = w.get("/v1/generations/"+string(m.id), "If-None-Match", tag)
	if a.code != http.StatusOK || a.header.Get("ETag") == tag || a.header.Get("Cache-Control") != "private, max-age=3600" {
		t.Errorf("changed: answered %d %v", a.code, a.header)
	}
	want := fmt.Sprintf(`{"slot":0,"error":{"code":"content_filter","message":"withheld"}},{"slot":1,"artifact":{"id":"%s-1","blob_key":"%s","content_type":"image/png","size":%d,"sha256":"%s","seed":"18446744073709551615","cost":0.0013,"url":"/v1/artifacts/%[1]s-1/content"}}`,
		m.id, art.BlobKey, art.Size, art.SHA256)
	if !strings.Contains(a.body, want) {
		t.Errorf("completed generation is %s\nwant in it %s", a.body, want)
	}
}

func TestEventsAreFlatAndInOrder(t *testing.T) {
	w := newWorld(t)
	m := w.whole(2)
	a := w.get("/v1/generations/" + string(m.id) + "/events")
	var got struct {
		Events []struct {
			GenerationID string `json:"generation_id"`
			Sequence     uint64
			Version      uint64
			At           string
			Type         string
			Slot         *int
			Tasks        []string
		}
	}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range got.Events {
		if e.GenerationID != string(m.id) || e.At == "" {
			t.Errorf("event %+v", e)
		}
		lines = append(lines, fmt.Sprintf("%d/%d %s %t %d", e.Sequence, e.Version, e.Type, e.Slot != nil, len(e.Tasks)))
	}
	if want := "[1/1 requested false 2 2/2 output_succeeded true 0 3/3 output_succeeded true 0 4/4 completed false 0]"; fmt.Sprint(lines) != want {
		t.Errorf("events %v, want %v", lines, want)
	}
	if again := w.get("/v1/generations/"+string(m.id)+"/events", "If-None-Match", a.header.Get("ETag")); again.code != http.StatusNotModified {
		t.Errorf("answered %d", again.code)
	}
}

// sse is one server-sent event.
type sse struct{ id, event, data string }

// listen opens a stream; next waits for an event, more=false is its end.
func (w *world) listen(ctx context.Context, path string, headers ...string) (next func() (e sse, more bool)) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := w.server.Client().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("stream answered %d %v", res.StatusCode, res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	return func() (e sse, more bool) {
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case lines.Text() == "" && e.event != "":
				return e, true
			case name == "id":
				e.id = value
			case name == "event":
				e.event = value
			case name == "data":
				e.data = value
			}
		}
		return e, false
	}
}

func TestStreamFollowsAndEndsWithTheGeneration(t *testing.T) {
	w := newWorld(t)
	m := w.request(2)
	path := "/v1/generations/" + string(m.id) + "/events"
	next := w.listen(t.Context(), path)
	if e, _ := next(); e.event != "requested" || e.id != "1" || !strings.Contains(e.data, `"sequence":1`) {
		t.Fatalf("first event %+v", e)
	}
	w.request(1) // somebody else's
	w.succeed(m, 1)
	if e, _ := next(); e.event != "output_succeeded" || e.id != number(m.sequence) {
		t.Fatalf("live event %+v", e)
	}
	before := m.sequence
	w.complete(m) // two events in one commit
	for _, want := range []sse{{"", "output_failed", ""}, {number(m.sequence), "completed", ""}} {
		if e, _ := next(); e.event != want.event || e.id != want.id {
			t.Fatalf("event %+v, want %+v: only the last of a commit has the ID", e, want)
		}
	}
	if e, more := next(); more {
		t.Fatalf("event %+v after completed", e)
	}

	next = w.listen(t.Context(), path, "Last-Event-ID", number(before))
	for _, want := range []string{"output_failed", "completed"} {
		if e, _ := next(); e.event != want {
			t.Errorf("resumed with %+v, want %s", e, want)
		}
	}
	if _, more := next(); more {
		t.Error("the resumed stream goes on after completed")
	}
	if a := w.get(path, "Accept", "text/event-stream", "Last-Event-ID", number(m.sequence)); a.code != http.StatusNoContent {
		t.Errorf("resumed after the end: answered %d, an EventSource would come again for ever", a.code)
	}
}

func TestAllEventsBeginNowOrWhereAsked(t *testing.T) {
	w := newWorld(t)
	first := w.request(1)
	now := w.listen(t.Context(), "/v1/events")
	start := w.listen(t.Context(), "/v1/events?after=0")
	second := w.request(1)
	resumed := w.listen(t.Context(), "/v1/events?after=0", "Last-Event-ID", number(first.sequence))
	for name, next := range map[string]func() (sse, bool){"now": now, "resumed": resumed} {
		if e, _ := next(); e.id != number(second.sequence) || !strings.Contains(e.data, string(second.id)) {
			t.Errorf("%s begins with %+v", name, e)
		}
	}
	if e, _ := start(); e.id != number(first.sequence) {
		t.Errorf("from the beginning: %+v", e)
	}
	if a := w.do(http.MethodHead, "/v1/events", ""); a.code != 200 || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD answered %d %v", a.code, a.header)
	}
	w.get("/v1/events?after=99").mustBe(t, 422, "invalid")
	w.get("/v1/events?after=-1").mustBe(t, 422, "invalid")
	w.get("/v1/events", "Last-Event-ID", "x").mustBe(t, 422, "invalid")
}

func TestStreamsEndWithServerAndClient(t *testing.T) {
	w := loneWorld(t)
	m := w.request(1)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		next := w.listen(ctx, "/v1/events?after=0")
		if e, _ := next(); e.event != "requested" {
			t.Fatalf("event %+v", e)
		}
		cancel()
	}
	next := w.listen(t.Context(), "/v1/generations/"+string(m.id)+"/events")
	next()
	if handlers() == 0 {
		t.Fatal("no handler seen of an open stream: this test cannot fail")
	}
	w.stop()
	if e, more := next(); more {
		t.Errorf("event %+v after the server stopped", e)
	}
	for i := 0; handlers() > 0; i++ {
		if i == 3000 {
			t.Fatalf("%d frames are left in streams", handlers())
		}
		w.get("/healthz") // takes a moment, and shows that the server still answers
	}
}

// handlers is how many frames of goroutines are in the code of streams.
func handlers() int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "projector/api/stream.go:")
}
