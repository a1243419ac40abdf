package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// orchestrate runs a real orchestrator with the simulated provider.
func (w *world) orchestrate() {
	w.t.Helper()
	var root string
	s, err := sim.New(sim.Config{Seed: 1, BaseURL: func() string { return root }, Latency: sim.Range{Min: time.Millisecond, Max: 5 * time.Millisecond}})
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(s)
	root = server.URL
	u, err := url.Parse(root)
	if err != nil {
		w.t.Fatal(err)
	}
	o := orchestrator.New(orchestrator.Config{
		Log: w.log, Bucket: w.bucket, Alone: true,
		Fetcher:   blob.NewFetcher(blob.FetchConfig{Bucket: w.bucket, AllowHosts: []string{u.Host}}),
		Providers: []orchestrator.Instance{{Name: "sim", Provider: runware.New(runware.Config{Name: "sim", BaseURL: root + "/v1", SpoolDir: w.t.TempDir()})}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, run := range []func() error{
		func() error { return o.Run(ctx) },
		func() error { return o.Serve(ctx, w.nats.Conn()) },
	} {
		parts.Go(func() {
			if err := run(); err != nil {
				w.t.Errorf("orchestrator: %v", err)
			}
		})
	}
	w.t.Cleanup(func() { cancel(); parts.Wait(); server.Close(); s.Close() })
	for w.do(http.MethodPost, "/v1/generations", `{}`).code == http.StatusServiceUnavailable && w.t.Context().Err() == nil {
	}
}

func TestGenerationGoesTheWholeWay(t *testing.T) {
	w := newWorld(t)
	w.orchestrate()
	const fox = `{"model":"runware:101@1","count":2,"input":{"positivePrompt":"a red fox [[sync]] [[fail:2]]","width":128,"height":128},"labels":{"user":"42"}}`
	a := w.do(http.MethodPost, "/v1/generations", fox, "Idempotency-Key", "k1", "Prefer", "wait=30")
	if a.code != http.StatusOK {
		t.Fatalf("answered %d %s", a.code, a.body)
	}
	g := a.decode(t)
	id := g["id"].(string)
	good := g["outputs"].([]any)[0].(map[string]any)["artifact"].(map[string]any)
	file := w.get(good["url"].(string))
	if sum := sha256.Sum256([]byte(file.body)); hex.EncodeToString(sum[:]) != good["sha256"] || fmt.Sprint(len(file.body)) != fmt.Sprint(good["size"]) {
		t.Errorf("the file at %s is not the one that was recorded", good["url"])
	}
	if again := w.do(http.MethodPost, "/v1/generations", fox, "Idempotency-Key", "k1"); again.code != http.StatusAccepted || again.decode(t)["id"] != id {
		t.Errorf("the same request with the same key: %d %s", again.code, again.body)
	}
	w.do(http.MethodPost, "/v1/generations", strings.Replace(fox, "red", "blue", 1), "Idempotency-Key", "k1").mustBe(t, 422, "reused")

	own := string(streamtest.NewID())
	if put := w.do(http.MethodPut, "/v1/generations/"+own, fox); put.code != http.StatusAccepted || put.decode(t)["id"] != own || put.header.Get("Location") != "/v1/generations/"+own {
		t.Errorf("own ID: %d %s", put.code, put.body)
	}
	w.do(http.MethodPut, "/v1/generations/"+own, strings.Replace(fox, "red", "blue", 1)).mustBe(t, 422, "reused")

	changes := w.get("/v1/changes?wait=30s").decode(t)["generations"].([]any)
	if changes[0].(map[string]any)["id"] != id {
		t.Errorf("changes begin with %v, want %s", changes, id)
	}
	if got := ids(t, w.get("/v1/artifacts?label=user:42&generation="+id), "artifacts"); fmt.Sprint(got) != "["+id+"-0]" {
		t.Errorf("artifacts %v", got)
	}
}

func TestBadRequestsAreToldByTheOrchestrator(t *testing.T) {
	w := newWorld(t)
	w.orchestrate()
	for name, c := range map[string]struct {
		body     string
		code     int
		kind     string
		location string
	}{
		"NotJSON":     {`{`, 400, "malformed", "body"},
		"Array":       {`[]`, 422, "invalid", "body"},
		"Trailing":    {`{"model":"a:1@1","input":{"x":1}} {}`, 400, "malformed", "body"},
		"NoModel":     {`{"input":{"positivePrompt":"x"}}`, 422, "invalid", "body.model"},
		"NoInput":     {`{"model":"runware:101@1"}`, 422, "invalid", "body.input"},
		"InputType":   {`{"model":"runware:101@1","input":"x"}`, 422, "invalid", "body.input"},
		"Unknown":     {`{"model":"runware:101@1","input":{"x":1},"modle":1}`, 422, "invalid", "body.modle"},
		"CountType":   {`{"model":"runware:101@1","input":{"x":1},"count":"4"}`, 422, "invalid", "body.count"},
		"Count0":      {`{"model":"runware:101@1","input":{"x":1},"count":0}`, 422, "invalid", "body.count"},
		"Count21":     {`{"model":"runware:101@1","input":{"x":1},"count":21}`, 422, "invalid", "body.count"},
		"Deadline":    {`{"model":"runware:101@1","input":{"positivePrompt":"x"},"deadline":"25h"}`, 422, "invalid", "body.deadline"},
		"Label":       {`{"model":"runware:101@1","input":{"x":1},"labels":{"User":"1"}}`, 422, "invalid", "body.labels"},
		"Provider":    {`{"model":"runware:101@1","input":{"x":1},"provider":"nobody"}`, 422, "invalid", "body.provider"},
		"Over32KiB":   {`{"model":"runware:101@1","input":{"positivePrompt":"` + strings.Repeat("x", 33<<10) + `"}}`, 413, "too-large", "body"},
		"OverNATS1MB": {strings.Repeat(" ", 1<<20-10), 413, "too-large", "body"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.do(http.MethodPost, "/v1/generations", c.body)
			a.mustBe(t, c.code, c.kind)
			if !strings.Contains(a.body, `"location":"`+c.location+`"`) {
				t.Errorf("does not name %s: %s", c.location, a.body)
			}
		})
	}
	if durable := w.log.Durable(); durable != 0 {
		t.Errorf("the log has %d commits of what was refused", durable)
	}
}
