package orchestrator

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// withBucket is an orchestrator that can do nothing but look after files.
func withBucket(t *testing.T, url string) *Orchestrator {
	t.Helper()
	b, err := blob.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &Orchestrator{cfg: Config{Bucket: b}, log: slog.New(slog.DiscardHandler), carrying: make(chan struct{}, maxCarrying)}
}

// keep uploads a PNG of n bytes.
func (o *Orchestrator) keep(t *testing.T, n int) (sha256 string, content []byte) {
	t.Helper()
	content = append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), make([]byte, n-16)...)
	f, _, err := o.cfg.Bucket.KeepInput(t.Context(), bytes.NewReader(content), 1<<26, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return f.SHA256, content
}

func naming(sha256 ...string) json.RawMessage {
	var list []string
	for _, s := range sha256 {
		list = append(list, `{"$file":"inputs/`+s+`"}`)
	}
	return json.RawMessage(`{"n":1.0,"a":[` + strings.Join(list, ",") + `]}`)
}

func tasks(n int) []events.Task { return make([]events.Task, n) }

// sent carries an input into a call, and returns what became of its files.
func (o *Orchestrator) sent(t *testing.T, input json.RawMessage, n int) ([]string, *provider.Error) {
	t.Helper()
	call := provider.Call{Input: input, Tasks: tasks(n), Deadline: time.Now().Add(time.Minute)}
	let, err := o.carry(t.Context(), &call)
	let()
	if err != nil {
		if !bytes.Equal(call.Input, input) {
			t.Errorf("a call that is not sent was given %.80s", call.Input)
		}
		return nil, err
	}
	var got struct {
		N json.RawMessage
		A []string
	}
	if err := json.Unmarshal(call.Input, &got); err != nil || string(got.N) != "1.0" {
		t.Fatalf("the input became %.80s, %v", call.Input, err)
	}
	return got.A, nil
}

func TestFilesGoIntoTheCallAsTheyAre(t *testing.T) {
	o := withBucket(t, t.TempDir())
	one, content := o.keep(t, 1000)
	two, other := o.keep(t, 2000)
	got, err := o.sent(t, naming(one, two, one), 20)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]byte{content, other, content} {
		text, ok := strings.CutPrefix(got[i], "data:image/png;base64,")
		if back, err := base64.StdEncoding.DecodeString(text); !ok || err != nil || !bytes.Equal(back, want) {
			t.Errorf("file %d became %.60s, %v", i, got[i], err)
		}
	}
	if len(o.carrying) != 0 {
		t.Error("the place was not given back")
	}
}

func TestLargeFilesGoByAddressIfTheBucketSignsOne(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	store := s3mem.New()
	if err := store.CreateBucket("things"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(store, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
	t.Cleanup(server.Close)
	o := withBucket(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+server.URL)
	sha, content := o.keep(t, 2<<20)
	request := events.Requested{Input: naming(sha), ExpectedCount: 20}
	if err := o.filesThere(t.Context(), request); err != nil {
		t.Errorf("refused: %v", err)
	}
	got, unsent := o.sent(t, naming(sha), 20)
	if unsent != nil || !strings.HasPrefix(got[0], server.URL+"/things/inputs/"+sha+"?") {
		t.Fatalf("%v, %v; want an address", got, unsent)
	}
	res, err := http.Get(got[0])
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if back, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d bytes are there, %v", len(back), err)
	}
	if got, unsent := o.sent(t, naming(sha), 1); unsent != nil || !strings.HasPrefix(got[0], "data:") {
		t.Errorf("%.60v, %v; what fits goes along", got, unsent)
	}
}

func TestWhatCannotBeSentSaysWhetherItMayPass(t *testing.T) {
	dir := t.TempDir()
	o := withBucket(t, dir)
	sha, _ := o.keep(t, 1000)
	large, _ := o.keep(t, 2<<20)
	damaged, content := o.keep(t, 3000)
	content[2000] = 'x'
	if err := os.WriteFile(filepath.Join(dir, "inputs", damaged), content, 0o600); err != nil {
		t.Fatal(err)
	}
	closed := withBucket(t, "mem://")
	if err := closed.cfg.Bucket.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o     *Orchestrator
		input json.RawMessage
		tasks int
		kind  provider.Kind
		code  string
	}{
		"gone":            {o, naming(strings.Repeat("0", 64)), 1, provider.Refused, events.CodeInput},
		"damaged":         {o, naming(damaged), 1, provider.Refused, events.CodeInput},
		"too large":       {o, naming(large), 20, provider.Refused, events.CodeInput},
		"of another form": {o, json.RawMessage(`{"a":{"$file":"x"}}`), 1, provider.Refused, events.CodeInput},
		"bucket is down":  {closed, naming(sha), 1, provider.Unreachable, "bucket"},
	} {
		got, err := c.o.sent(t, c.input, c.tasks)
		if err == nil || err.Kind != c.kind || err.Err.Code != c.code || err.Err.Message == "" {
			t.Errorf("%s: %.60v, %v; want kind %d, code %s", name, got, err, c.kind, c.code)
		}
		if len(c.o.carrying) != 0 {
			t.Errorf("%s: the place was not given back", name)
		}
	}
	request := events.Requested{Input: naming(sha), ExpectedCount: 1}
	var p *Problem
	if err := closed.filesThere(t.Context(), request); !errors.As(err, &p) || p.Code != http.StatusServiceUnavailable {
		t.Errorf("while the bucket is down a create gets %v, want 503", err)
	}
	request.Input, request.ExpectedCount = naming(large), 20
	if err := o.filesThere(t.Context(), request); !errors.As(err, &p) || p.Code != http.StatusUnprocessableEntity {
		t.Errorf("what could never be sent gets %v, want 422", err)
	}
}

func TestCallsThatCarryFilesAreBounded(t *testing.T) {
	o := withBucket(t, "mem://")
	sha, _ := o.keep(t, 1000)
	for range maxCarrying {
		call := provider.Call{Input: naming(sha), Tasks: tasks(1)}
		let, err := o.carry(t.Context(), &call)
		if err != nil {
			t.Fatal(err)
		}
		defer let()
	}
	if _, err := o.sent(t, json.RawMessage(`{"a":["x"],"n":1.0}`), 1); err != nil {
		t.Errorf("a call without files waits: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as when the call's time is over
	call := provider.Call{Input: naming(sha), Tasks: tasks(1)}
	let, err := o.carry(ctx, &call)
	let()
	if err == nil || err.Kind != provider.Unreachable {
		t.Errorf("one more is given a place: %v", err)
	}
}
