package doctor_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/cmd/genstream/doctor"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/natsd/natsdtest"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
	"github.com/genstream/genstream/orchestrator/webhook"
)

// want is a finding: its check, its level, and words of what was seen.
type want struct {
	check string
	level doctor.Level
	seen  string
}

// expect compares findings with what is wanted, one by one. What is not ok says
// what to do.
func expect(t *testing.T, have []doctor.Finding, wants ...want) {
	t.Helper()
	if len(have) != len(wants) {
		t.Errorf("%d findings, want %d: %+v", len(have), len(wants), have)
		return
	}
	for i, f := range have {
		w := wants[i]
		if f.Check != w.check || f.Level != w.level || !strings.Contains(f.Seen, w.seen) {
			t.Errorf("found %s %s: %s\nwant %s %s: %s", f.Check, f.Level, f.Seen, w.check, w.level, w.seen)
		}
		if (f.Do == "") != (f.Level == doctor.OK) {
			t.Errorf("%s %s: to do is %q", f.Check, f.Level, f.Do)
		}
	}
}

func embedded(t *testing.T) *nats.Conn {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), MaxStore: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.Conn()
}

// bare runs a server with the options as they are.
func bare(t *testing.T, opts server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	if opts.JetStream {
		opts.StoreDir = t.TempDir()
	}
	s, err := server.NewServer(&opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

func dial(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestLogIsFoundAsItIs(t *testing.T) {
	nc := embedded(t)
	expect(t, doctor.NATS(t.Context(), nc, false, false), want{"NATS", "ok", "version"}, want{"log", "warning", "not there yet"})
	expect(t, doctor.NATS(t.Context(), nc, true, false), want{"NATS", "ok", ""}, want{"log", "broken", "missing"})
	l, err := stream.Open(t.Context(), nc, stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.NATS(t.Context(), nc, true, false), want{"NATS", "ok", ""}, want{"log", "ok", "0 commits"}, want{"clock", "ok", "agrees"})
	if _, err := l.Park(t.Context(), "submit", stream.Requests, 1, "for the test", nil); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.NATS(t.Context(), nc, true, false), want{"NATS", "ok", ""}, want{"log", "ok", ""}, want{"parked", "warning", "1 messages"}, want{"clock", "ok", ""})
}

func TestDriftedStreamIsFound(t *testing.T) {
	nc := embedded(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream.Name, Subjects: []string{"gen.>"}, MaxAge: time.Hour, DenyDelete: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.NATS(t.Context(), nc, true, false), want{"NATS", "ok", ""}, want{"log", "broken", "max_age is 1h"})
}

func TestServerWithoutJetStreamIsFound(t *testing.T) {
	nc := dial(t, bare(t, server.Options{}).ClientURL())
	expect(t, doctor.NATS(t.Context(), nc, false, false), want{"NATS", "ok", ""}, want{"log", "broken", "JetStream does not answer"})
	nc.Close()
	expect(t, doctor.NATS(t.Context(), nc, false, false), want{"NATS", "broken", "does not answer"})
}

func TestOneReplicaOnAClusterIsFound(t *testing.T) {
	c := natsdtest.Start(t)
	nc := c.Connect()
	if _, err := stream.Open(t.Context(), nc, stream.Config{Replicas: 1, Create: true}); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.NATS(t.Context(), nc, true, false), want{"NATS", "ok", "cluster test"}, want{"log", "warning", "1 replica on a cluster"}, want{"clock", "ok", ""})
}

func TestRefusedConnectionIsTold(t *testing.T) {
	expect(t, []doctor.Finding{
		doctor.Unreachable("nats://a", nats.ErrNoServers),
		doctor.Unreachable("nats://a", nats.ErrAuthorization),
	}, want{"NATS", "broken", "no servers"}, want{"NATS", "broken", "authorization"})
	if do := doctor.Unreachable("nats://a", nats.ErrAuthorization).Do; !strings.Contains(do, "password") {
		t.Errorf("to do is %q", do)
	}
}

func TestSyncIsSeenAtTheMonitoringAddress(t *testing.T) {
	base := func(opts server.Options) string {
		opts.HTTPHost, opts.HTTPPort = "127.0.0.1", server.RANDOM_PORT
		return "http://" + bare(t, opts).MonitorAddr().String()
	}
	down := httptest.NewServer(nil)
	down.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }))
	t.Cleanup(other.Close)
	expect(t, doctor.Sync(t.Context(), nil), want{"sync", "warning", "cannot be seen"})
	expect(t, doctor.Sync(t.Context(), []string{
		base(server.Options{ServerName: "good", JetStream: true, SyncAlways: true}),
		base(server.Options{ServerName: "lax", JetStream: true}),
		base(server.Options{ServerName: "plain"}),
		down.URL, other.URL,
	}), want{"sync", "ok", "good syncs before"}, want{"sync", "broken", "lax acknowledges before it syncs (every 2m0s)"},
		want{"sync", "broken", "plain runs without JetStream"}, want{"sync", "broken", "refused"}, want{"sync", "broken", "not that of a NATS server"})
	expect(t, []doctor.Finding{doctor.Embedded()}, want{"sync", "ok", ""})
}

func TestClocksAreCompared(t *testing.T) {
	for _, c := range []struct {
		ahead, took time.Duration
		level       doctor.Level
	}{
		{0, time.Millisecond, doctor.OK},
		{500 * time.Millisecond, time.Millisecond, doctor.OK},
		{4 * time.Second, 4 * time.Second, doctor.OK}, // may all be the answer's way
		{3 * time.Second, time.Millisecond, doctor.Warning},
		{-3 * time.Second, time.Millisecond, doctor.Warning},
		{2 * time.Minute, time.Millisecond, doctor.Broken},
		{-time.Hour, time.Second, doctor.Broken},
	} {
		if f := doctor.Clock(c.ahead, c.took); f.Level != c.level || f.Check != "clock" {
			t.Errorf("%s ahead, asked for %s: %+v, want %s", c.ahead, c.took, f, c.level)
		}
	}
}

func TestBucketIsProbed(t *testing.T) {
	b, err := blob.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	expect(t, []doctor.Finding{doctor.Bucket(t.Context(), "here", b, nil)}, want{"bucket", "ok", "here: written in"})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, []doctor.Finding{
		doctor.Bucket(t.Context(), "here", b, nil),
		doctor.Bucket(t.Context(), "there", nil, errors.New("no such driver")),
	}, want{"bucket", "broken", "write"}, want{"bucket", "broken", "no such driver"})
}

func TestDiskIsMeasured(t *testing.T) {
	dir := t.TempDir()
	const mib = 1 << 20
	for free, level := range map[int64]doctor.Level{500 * mib: doctor.OK, 150 * mib: doctor.Warning, 99 * mib: doctor.Broken} {
		expect(t, doctor.Disk(dir, free, 1000*mib, 100*mib), want{"disk", level, "MiB are left"}, want{"fsync", "ok", "a sync takes"})
	}
	expect(t, doctor.Disk(filepath.Join(dir, "not", "there"), 500*mib, 1000*mib, 100*mib), want{"disk", "ok", ""})
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.Disk(file, 500*mib, 1000*mib, 100*mib), want{"disk", "ok", ""}, want{"fsync", "broken", "not a directory"})
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOpenSecretFileIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	expect(t, doctor.SecretFile(path))
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.SecretFile(path))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, doctor.SecretFile(path), want{"secrets", "warning", "mode 0644"})
}

func TestWebhookAddressMustEndAtTheIngress(t *testing.T) {
	nc := embedded(t)
	l, err := stream.Open(t.Context(), nc, stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	b, err := blob.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	keys, others := webhook.Keys{bytes.Repeat([]byte{7}, 32)}, webhook.Keys{bytes.Repeat([]byte{8}, 32)}
	ingress := serve(webhook.New(webhook.Config{
		Log: l, Bucket: b, Logger: slog.New(slog.DiscardHandler), Keys: keys,
		Providers: map[string]provider.Provider{"sim": runware.New(runware.Config{Name: "sim"})},
	}).ServeHTTP)
	signed := func(k webhook.Keys, base string) func(events.ID) string {
		return func(id events.ID) string { return k.URL(base, "sim", id) }
	}
	expect(t, doctor.Webhook(t.Context(), ingress+"/", "sim", nil), want{"webhook", "ok", "answers as it should"})
	expect(t, doctor.Webhook(t.Context(), ingress, "sim", signed(keys, ingress)), want{"webhook", "ok", ""}, want{"webhook", "ok", "the same webhook keys"})
	expect(t, doctor.Webhook(t.Context(), ingress, "sim", signed(others, ingress)), want{"webhook", "ok", ""}, want{"webhook", "broken", "other webhook keys"})
	lost := ingress + "/a/path/that/the/proxy/keeps" // the ingress says 404 to every path but its own
	expect(t, doctor.Webhook(t.Context(), lost, "sim", signed(keys, lost)), want{"webhook", "ok", ""}, want{"webhook", "broken", "the whole path"})
	down := httptest.NewServer(nil)
	down.Close()
	for name, c := range map[string]struct {
		base string
		want want
	}{
		"a redirect": {serve(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://www.example.com"+r.URL.Path, http.StatusMovedPermanently)
		}), want{"webhook", "broken", "answers 301, and leads to https://www.example.com"}},
		"a page":        {serve(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }), want{"webhook", "broken", "answers 200"}},
		"a login":       {serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }), want{"webhook", "broken", "answers 401"}},
		"another's 404": {serve(http.NotFound), want{"webhook", "broken", "not the ingress"}},
		"nobody":        {down.URL, want{"webhook", "broken", "refused"}},
		"no URL":        {"hooks.example.com", want{"webhook", "broken", "not the URL"}},
		"no web":        {"ftp://hooks.example.com", want{"webhook", "broken", "not the URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			have := doctor.Webhook(t.Context(), c.base, "sim", signed(keys, c.base))
			expect(t, have, c.want)
			if strings.Contains(have[0].Seen, "/hooks/") {
				t.Errorf("a token's place is told: %s", have[0].Seen)
			}
		})
	}
	expect(t, doctor.Webhook(t.Context(), "http://hooks.invalid", "sim", nil), want{"webhook", "broken", ""}, want{"webhook", "warning", "not encrypted"})
}

func TestProviderKeyIsTried(t *testing.T) {
	ask := func(base string) doctor.Finding {
		return doctor.Provider(t.Context(), "there", runware.New(runware.Config{Name: "there", BaseURL: base, Key: "canary", SpoolDir: t.TempDir()}))
	}
	var base string
	s, err := sim.New(sim.Config{Seed: 1, BaseURL: func() string { return base }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	front := httptest.NewServer(s)
	t.Cleanup(front.Close)
	base = front.URL
	expect(t, []doctor.Finding{ask(front.URL + "/v1")}, want{"provider", "ok", "there takes the key"})

	says := func(code int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			w.Write([]byte(body))
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	down := httptest.NewServer(nil)
	down.Close()
	expect(t, []doctor.Finding{
		ask(says(401, `{"errors":[{"code":"invalidApiKey","message":"Invalid API key"}]}`)),
		ask(says(429, `{"errors":[{"code":"rateLimitExceeded","message":"too many"}]}`)),
		ask(says(502, `oops`)),
		ask(down.URL),
	}, want{"provider", "broken", "invalidApiKey"}, want{"provider", "warning", "rateLimitExceeded"}, want{"provider", "warning", ""}, want{"provider", "broken", ""})
}

func TestReportIsALineEach(t *testing.T) {
	var r doctor.Report
	r.Add(doctor.Embedded(), doctor.Unreachable("nats://a", errors.New("two\nlines")))
	var b bytes.Buffer
	r.Print(&b)
	const text = "  ok       sync       nothing leaves the embedded server's process before what it rests on is on disk\n" +
		"  broken   NATS       nats://a: two lines → is it up, and is --nats-url its address?\n"
	if b.String() != text {
		t.Errorf("printed\n%swant\n%s", b.String(), text)
	}
	if r.Broken() != 1 {
		t.Errorf("%d are broken, want 1", r.Broken())
	}
}
