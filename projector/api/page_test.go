package api_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector/api"
)

// logs is a log that can be looked at.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestPageShowsWhatThereIs(t *testing.T) {
	var open []events.View
	w := newWorld(t, func(c *api.Config) {
		c.Simulated = true
		c.Open = func() []events.View { return open }
	})
	if a := w.get("/"); a.code != 200 || !strings.Contains(a.body, "Nothing here yet") || !strings.Contains(a.body, "simulated provider") {
		t.Errorf("empty page: %d %s", a.code, a.body)
	}
	evil := `</script><script>alert(1)</script>" onerror="alert(2)`
	m := w.request(3, func(r *events.Requested) {
		r.Input, _ = json.Marshal(map[string]string{"positivePrompt": evil})
		r.Labels = map[string]string{"user": evil}
	})
	w.succeed(m, 0)
	open = []events.View{events.Public(m.now)}
	a := w.get("/")
	for _, want := range []string{`id="f-` + string(m.id), "1 of 3 outputs there", `data-follow="/v1/events"`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("in flight: no %q in %s", want, a.body)
		}
	}
	open = nil
	w.complete(m)
	bad := w.request(1)
	w.complete(bad)
	a = w.get("/?position=" + number(bad.sequence)) // waits for the catalog
	for _, want := range []string{
		"<b>2</b> generations", "<b>1</b> artifact<", "<b>1</b> failed", "<b>$0.0013</b>",
		`src="/v1/artifacts/` + string(m.id) + `-0/content"`, `loading="lazy"`, "(output 1 of 3)", "seed 18446744073709551615",
		"2 of 3 outputs failed", "<strong>Failed</strong>", "withheld", "/g/" + string(bad.id),
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %q in %s", want, a.body)
		}
	}
	one := w.get("/g/" + string(m.id))
	for _, want := range []string{"requested", "output 1 is there", "output 2 failed", "completed with 1 artifact", m.now.Outputs[0].Artifact.SHA256} {
		if !strings.Contains(one.body, want) {
			t.Errorf("no %q in %s", want, one.body)
		}
	}
	if strings.Contains(one.body, `loading="lazy"`) {
		t.Error("the pictures that the page is about are not loaded with it")
	}
	for _, body := range []string{a.body, one.body} {
		if strings.Contains(body, "<script>") || strings.Contains(body, `" onerror`) || strings.Contains(body, " style=") {
			t.Errorf("what the policy forbids is in %s", body)
		}
	}
}

func TestPageOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	for path, code := range map[string]int{"/g/" + string(streamtest.NewID()): 404, "/g/x": 404, "/?cursor=x": 422} {
		if a := w.get(path); a.code != code || !strings.Contains(a.body, "<h1>") {
			t.Errorf("%s answered %d %s", path, a.code, a.body)
		}
	}
}

func TestOlderGenerationsAreOnTheNextPage(t *testing.T) {
	w := newWorld(t)
	var last *made
	for range 41 {
		last = w.request(1)
		w.complete(last)
	}
	w.caughtUp(last.sequence)
	a := w.get("/")
	_, rest, found := strings.Cut(a.body, `href="/?cursor=`)
	cursor, _, _ := strings.Cut(rest, `"`)
	if !found || strings.Count(a.body, `class="tile`) != 40 {
		t.Fatalf("%d tiles, older %t", strings.Count(a.body, `class="tile`), found)
	}
	a = w.get("/?cursor=" + cursor)
	if strings.Count(a.body, `class="tile`) != 1 || strings.Contains(a.body, "/?cursor=") || !strings.Contains(a.body, "Newest") {
		t.Errorf("second page: %s", a.body)
	}
}
