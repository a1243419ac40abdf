package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector"
	"github.com/genstream/genstream/projector/api"
)

// world is a server with everything under it: NATS, log, bucket, catalog.
type world struct {
	t         testing.TB
	log       *stream.Log
	nats      *natsd.Server
	bucket    *blob.Bucket
	dir       string // of the bucket
	projector *projector.Projector
	server    *httptest.Server
	stop      context.CancelFunc // ends Config.Stopping
}

// newWorld starts one, beside those of other tests; change may alter the
// configuration of its API.
func newWorld(t *testing.T, change ...func(*api.Config)) *world {
	t.Helper()
	t.Parallel()
	return loneWorld(t, change...)
}

// loneWorld is newWorld for a test that looks at the whole process.
func loneWorld(t testing.TB, change ...func(*api.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	var err error
	if w.nats, err = natsd.Start(natsd.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.nats.Close)
	if w.log, err = stream.Open(t.Context(), w.nats.Conn(), stream.Config{Create: true}); err != nil {
		t.Fatal(err)
	}
	if w.bucket, err = blob.Open(t.Context(), w.dir); err != nil {
		t.Fatal(err)
	}
	if w.projector, err = projector.New(t.Context(), projector.Config{Log: w.log, Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.projector.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("projector: %v", err)
		}
		_ = w.projector.Close()
	})
	stopping, stop := context.WithCancel(context.Background())
	w.stop = stop
	cfg := api.Config{Log: w.log, Bucket: w.bucket, Projector: w.projector, NATS: w.nats.Conn(), Stopping: stopping}
	for _, c := range change {
		c(&cfg)
	}
	w.server = httptest.NewServer(api.New(cfg))
	t.Cleanup(func() { stop(); w.server.Close() })
	return w
}

// made is a generation that the log holds, and where its last commit is.
type made struct {
	id       events.ID
	sequence uint64
	head     stream.Head
	now      events.Generation
}

func (w *world) append(m *made, evs ...events.Event) {
	w.t.Helper()
	w.appendAt(m, events.Now(), evs...)
}

func (w *world) appendAt(m *made, at time.Time, evs ...events.Event) {
	w.t.Helper()
	c, head, err := w.log.Append(w.t.Context(), m.id, m.head, at, evs...)
	if err != nil {
		w.t.Fatal(err)
	}
	m.sequence, m.head, m.now = c.Sequence, head, events.Fold(m.now, c)
}

// request begins a generation of so many outputs.
func (w *world) request(count int, change ...func(*events.Requested)) *made {
	m := &made{id: streamtest.NewID()}
	r := streamtest.Request(m.id, count)
	for _, c := range change {
		c(&r)
	}
	w.append(m, r)
	return m
}

// succeed ends a slot with a picture.
func (w *world) succeed(m *made, slot int) events.Artifact {
	w.t.Helper()
	return w.keep(m, slot, picture(slot))
}

// keep ends a slot with a file.
func (w *world) keep(m *made, slot int, content []byte) events.Artifact {
	w.t.Helper()
	f, err := w.bucket.Keep(w.t.Context(), m.id, slot, bytes.NewReader(content), 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	cost := int64(1_300_000)
	a := events.Artifact{
		ID: events.ArtifactID(m.id, slot), File: f, Seed: "18446744073709551615", Cost: &cost,
		Metadata: json.RawMessage(`{"NSFW":false}`), CreatedAt: events.Now(),
	}
	w.append(m, events.OutputSucceeded{Slot: slot, Artifact: a})
	return a
}

// complete ends the generation; outputs that have not ended fail.
func (w *world) complete(m *made) {
	w.t.Helper()
	var evs []events.Event
	g := m.now
	for _, o := range g.Outputs {
		if o.Artifact == nil && o.Error == nil {
			evs = append(evs, events.OutputFailed{Slot: o.Slot, Error: events.Error{Code: "content_filter", Message: "withheld"}})
		}
	}
	for _, e := range evs {
		g = events.Apply(g, e)
	}
	done := events.Completed{}
	if g.ArtifactCount() == 0 {
		done.Error = &events.Error{Code: "content_filter", Message: "withheld"}
	}
	g.At = events.Now()
	done.Generation = events.Apply(g, done)
	w.appendAt(m, g.At, append(evs, done)...)
}

// whole is a completed generation with count artifacts, in the catalog already.
func (w *world) whole(count int, change ...func(*events.Requested)) *made {
	w.t.Helper()
	m := w.request(count, change...)
	for slot := range count {
		w.succeed(m, slot)
	}
	w.complete(m)
	w.caughtUp(m.sequence)
	return m
}

func (w *world) caughtUp(sequence uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	if err := w.projector.Wait(ctx, sequence); err != nil {
		w.t.Fatal(err)
	}
}

// picture is a PNG that differs by seed.
func picture(seed int) []byte {
	m := image.NewNRGBA(image.Rect(0, 0, 48, 48))
	for y := range 48 {
		for x := range 48 {
			m.Set(x, y, color.NRGBA{uint8(x * 5), uint8(y * 5), uint8(seed * 40), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// orchestrator answers creates with what answer returns, until the test ends.
func (w *world) orchestrator(answer func(micro.Request)) {
	w.t.Helper()
	s, err := micro.AddService(w.nats.Conn(), micro.Config{Name: "test", Version: "0.0.1"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Stop() })
	if err := s.AddGroup("genstream.generations").AddEndpoint("create", micro.HandlerFunc(answer)); err != nil {
		w.t.Fatal(err)
	}
}

// answered is an HTTP answer, read to its end.
type answered struct {
	code   int
	header http.Header
	body   string
}

// do sends a request; headers come in pairs. A "Host" pair sets the host.
func (w *world) do(method, path, body string, headers ...string) answered {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: w.server.Client().Transport}
	res, err := client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(b)}
}

func (w *world) get(path string, headers ...string) answered {
	w.t.Helper()
	return w.do(http.MethodGet, path, "", headers...)
}

// decode reads the body into a map.
func (a answered) decode(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// mustBe checks that the answer is the problem, and well formed.
func (a answered) mustBe(t *testing.T, code int, kind string) {
	t.Helper()
	if a.code != code {
		t.Fatalf("answered %d, want %d: %s", a.code, code, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q of a problem", got)
	}
	v := a.decode(t)
	if v["type"] != "urn:genstream:problem:"+kind || v["status"] != float64(code) || v["title"] == "" || v["detail"] == "" {
		t.Errorf("problem is %s, want %s", a.body, kind)
	}
	if code == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "1" {
		t.Errorf("503 without Retry-After: %v", a.header)
	}
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
