package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// lines is a log that can be read while it is being written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The secrets that must show up nowhere. They are of the form that each has to be.
var canaries = map[string]string{
	"provider key":            "canary-provider-7f3a9c51",
	"webhook key":             "ca9a51e5ca9a51e5ca9a51e5ca9a51e5ca9a51e5ca9a51e5ca9a51e5ca9a51e5",
	"API key":                 "canary-api-4be1d077aa",
	"NATS admin password":     "canary-admin-90ff1e02",
	"NATS requester password": "canary-requester-55d8c3",
}

// family is one metric with all its children.
type family struct {
	name, kind, help string
	children         []map[string]string // labels
}

// watched is a node that ran the whole demo at debug level, on real sockets, with
// the canaries as its secrets; and what could be seen of it from outside.
type watched struct {
	data     string
	log      lines
	end      uint64 // of the node's log
	families []family
	metrics  string
	answers  string   // of the API
	tokens   []string // in the webhook addresses of the generations
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{data: t.TempDir()}
	write := func(name, text string) string {
		path := filepath.Join(w.data, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("webhook.keys", canaries["webhook key"])
	write("nats-admin.password", canaries["NATS admin password"])
	write("nats-requester.password", canaries["NATS requester password"])
	cfg := config{
		Data: w.data, Listen: "127.0.0.1:0", HooksListen: "127.0.0.1:0", OpsListen: "127.0.0.1:0", NATSListen: "127.0.0.1:0",
		Bucket: "file://" + filepath.Join(w.data, "bucket"), Roles: []string{roleOrchestrator, roleIngress, roleAPI},
		APIKeys:   write("api.keys", "tester "+canaries["API key"]),
		Providers: []providerConfig{{Name: "sim", Kind: "sim", Key: canaries["provider key"]}},
		PollAfter: 500 * time.Millisecond,
		Sim:       sim.Config{Seed: 1, Latency: sim.Range{Min: 50 * time.Millisecond, Max: 200 * time.Millisecond}},
	}
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	n, err := openNode(t.Context(), cfg, wires{}, log)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			n.close()
		}
	}()
	d := demo{node: n, out: io.Discard, client: &client{base: "http://" + n.api.Addr().String(), key: canaries["API key"], http: &http.Client{}}}
	err = d.run(t.Context(), true, func(r demoResult) error { return w.provoke(t.Context(), d, r) })
	if err != nil {
		t.Fatalf("%v\n%s", err, w.log.String())
	}
	n.close()
	closed = true
	return w
}

// provoke does what the demo does not, and looks at everything.
func (w *watched) provoke(ctx context.Context, d demo, r demoResult) error {
	n := d.node
	for _, g := range r.Generations {
		address := n.keys.URL(n.hooksBase, "sim", g.ID)
		w.tokens = append(w.tokens, address[strings.LastIndex(address, "/")+1:])
	}
	forged := n.hooksBase + "/hooks/sim/" + string(r.Generations[0].ID) + "/" + strings.Repeat("0", 32)
	late := n.keys.URL(n.hooksBase, "sim", r.Generations[0].ID)
	for _, address := range []string{forged, late} {
		res, err := http.Post(address, "application/json", strings.NewReader(`{"data":[]}`))
		if err != nil {
			return err
		}
		drain(res.Body)
	}
	for _, user := range []string{"admin", "requester"} {
		nc, err := nats.Connect(n.server.URL(), nats.UserInfo(user, canaries["NATS "+user+" password"]))
		if err != nil {
			return err
		}
		m, err := nc.Request("genstream.generations.create", []byte(`{"model":"no model at all","input":{"positivePrompt":"x"},"count":99}`), 5*time.Second)
		nc.Close()
		if err != nil || m.Header.Get("Nats-Service-Error-Code") == "" {
			return fmt.Errorf("a bad request over NATS: %v %v", m, err)
		}
	}
	if _, err := nats.Connect(n.server.URL(), nats.UserInfo("admin", "wrong"+canaries["NATS admin password"])); err == nil {
		return fmt.Errorf("a wrong password was accepted")
	}
	var err error
	if w.end, err = n.stream.Refresh(ctx); err != nil {
		return err
	}
	gathered, err := n.metrics.Gather()
	if err != nil {
		return err
	}
	for _, g := range gathered {
		f := family{name: g.GetName(), kind: strings.ToLower(g.GetType().String()), help: g.GetHelp()}
		for _, m := range g.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			f.children = append(f.children, labels)
		}
		w.families = append(w.families, f)
	}
	read := func(base, path string) (string, error) {
		c := *d.client
		c.base = base
		res, err := c.do(ctx, http.MethodGet, path, nil)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	if w.metrics, err = read("http://"+n.ops.Addr().String(), "/metrics"); err != nil {
		return err
	}
	id := string(r.Generations[0].ID)
	for _, path := range []string{"/v1/generations", "/v1/artifacts", "/v1/generations/" + id, "/v1/generations/" + id + "/events", "/", "/metrics", "/readyz", "/openapi.json"} {
		body, err := read(d.client.base, path)
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		w.answers += body
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if body, err := read("http://"+n.ops.Addr().String(), path); err != nil || body != "ok\n" {
			return fmt.Errorf("%s says %q, %w", path, body, err)
		}
	}
	if body, err := read("http://"+n.ops.Addr().String(), "/v1/generations"); err == nil {
		return fmt.Errorf("the listener for metrics serves the API: %.80s", body)
	}
	return nil
}

// TestWhatCanBeSeen runs the demo once, and looks at it from every side.
func TestWhatCanBeSeen(t *testing.T) {
	w := watch(t)
	t.Run("metrics are those of the table", w.metricsAreTheTable)
	t.Run("no label holds an ID", w.labelsHoldNoID)
	t.Run("numbers are right", w.numbersAreRight)
	t.Run("each commit is told once", w.commitsAreToldOnce)
	t.Run("no secret is anywhere", w.secretsAreNowhere)
}

// documented is the table of docs/metrics.md: name to type and labels.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(genstream_\\w+)` \\| (\\w+) \\| *([^|]*?) *\\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		labels := strings.Split(strings.ReplaceAll(strings.TrimSpace(row[3]), "`", ""), ", ")
		slices.Sort(labels)
		if table[row[1]] != "" {
			t.Errorf("%s is in the table twice", row[1])
		}
		table[row[1]] = row[2] + " " + strings.Join(labels, ",")
	}
	return table
}

func (w *watched) metricsAreTheTable(t *testing.T) {
	table := documented(t)
	for _, f := range w.families {
		name := f.name
		if !strings.HasPrefix(name, "genstream_") {
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("%s is neither ours nor the Go client's", name)
			}
			continue
		}
		have := f.kind + " " + strings.Join(slices.Sorted(maps.Keys(f.children[0])), ",")
		if want, ok := table[name]; !ok {
			t.Errorf("%s (%s) is not in docs/metrics.md", name, have)
		} else if want != have {
			t.Errorf("%s is %q, docs/metrics.md says %q", name, have, want)
		}
		delete(table, name)
		if f.help == "" {
			t.Errorf("%s has no help", name)
		}
	}
	for name := range table {
		t.Errorf("%s is in docs/metrics.md and nowhere else", name)
	}
}

var idLike = regexp.MustCompile(`(?i)[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{16}`)

func (w *watched) labelsHoldNoID(t *testing.T) {
	seen := 0
	for _, f := range w.families {
		for _, labels := range f.children {
			for name, value := range labels {
				seen++
				if idLike.MatchString(value) || len(value) > 32 && strings.HasPrefix(f.name, "genstream_") {
					t.Errorf("%s: label %s is %q", f.name, name, value)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d labels were seen", seen)
	}
}

// value is one number of the metrics, by its name and labels as they are written.
func (w *watched) value(t *testing.T, name string) float64 {
	t.Helper()
	for line := range strings.Lines(w.metrics) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Errorf("there is no %s", name)
	return 0
}

// The demo's three generations: four outputs, two of three, none.
func (w *watched) numbersAreRight(t *testing.T) {
	for name, want := range map[string]float64{
		"genstream_open_generations":                           0,
		"genstream_oldest_open_seconds":                        0,
		`genstream_completed_total{artifacts="some"}`:          2,
		`genstream_completed_total{artifacts="none"}`:          1,
		`genstream_events_total{type="requested"}`:             3,
		`genstream_events_total{type="output_succeeded"}`:      6,
		`genstream_fetches_total{fate="kept"}`:                 6,
		`genstream_requests_refused_total{problem="invalid"}`:  2,
		`genstream_webhooks_total{fate="forged",provider=""}`:  1,
		`genstream_webhooks_total{fate="late",provider="sim"}`: 1,
		"genstream_request_to_row_seconds_count":               3,
		"genstream_completed_to_row_seconds_count":             3,
		"genstream_durable_lag":                                0,
		"genstream_projection_lag":                             0,
		"genstream_durable_sequence":                           float64(w.end),
		"genstream_commits_total":                              float64(w.end),
	} {
		if have := w.value(t, name); have != want {
			t.Errorf("%s is %v, want %v", name, have, want)
		}
	}
	if n := w.value(t, `genstream_deliveries_total{fate="taken",provider="sim",source="poll"}`); n < 1 {
		t.Error("the lost webhook's result was not found by a poll")
	}
	if free, size := w.value(t, "genstream_disk_free_bytes"), w.value(t, "genstream_disk_bytes"); free <= 0 || size < free {
		t.Errorf("the disk has %v of %v bytes left", free, size)
	}
}

func (w *watched) commitsAreToldOnce(t *testing.T) {
	told := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^.*level=INFO msg=committed generation=(\S+) types=([a-z_,]+) version=\d+ sequence=(\d+).*$`).FindAllStringSubmatch(w.log.String(), -1) {
		if _, err := events.ParseID(m[1]); err != nil {
			t.Errorf("%s: %v", m[0], err)
		}
		told[m[3]]++
	}
	for sequence := range w.end {
		if n := told[fmt.Sprint(sequence+1)]; n != 1 {
			t.Errorf("commit %d is told %d times", sequence+1, n)
		}
	}
	if len(told) != int(w.end) {
		t.Errorf("%d commits are told, the log has %d", len(told), w.end)
	}
	for text, want := range map[string]int{`msg="request refused"`: 2, "fate=forged": 1, "fate=late": 1} {
		if n := strings.Count(w.log.String(), text); n != want {
			t.Errorf("%s is logged %d times, want %d\n%s", text, n, want, w.log.String())
		}
	}
}

// secretsAreNowhere reads everything that the node wrote, said or keeps, except
// the files that hold the secrets, and the provider's own journal: the provider
// was told the webhook addresses, so it has the tokens in them.
func (w *watched) secretsAreNowhere(t *testing.T) {
	places := map[string][]byte{"log": []byte(w.log.String()), "metrics": []byte(w.metrics), "answers": []byte(w.answers)}
	holders := []string{"webhook.keys", "nats-admin.password", "nats-requester.password", "api.keys"}
	err := filepath.WalkDir(w.data, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || slices.Contains(holders, e.Name()) {
			return err
		}
		name, err := filepath.Rel(w.data, path)
		if err == nil {
			places[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(places) < 15 {
		t.Errorf("only %d places were looked at", len(places))
	}
	secrets := map[string]string{}
	for name, secret := range canaries {
		secrets[name] = secret
	}
	for i, token := range w.tokens {
		secrets[fmt.Sprint("webhook token ", i)] = token
	}
	for place, content := range places {
		for name, secret := range secrets {
			if place == journalName && strings.HasPrefix(name, "webhook token") {
				continue
			}
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s holds the %s", place, name)
			}
		}
	}
	if !strings.Contains(string(places[journalName]), w.tokens[0]) {
		t.Error("the provider's journal holds no token: the search finds nothing")
	}
}
