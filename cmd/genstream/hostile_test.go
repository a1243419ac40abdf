package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// compressed is text as gzip.
func compressed(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, text)
	z.Close()
	return b.Bytes()
}

// Nothing that a requester sends as a header, of ours or of JetStream's, gets into
// the headers of a commit, and no line break in what he may choose makes one.
func TestHeadersOfARequesterStayHis(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		const value = "42\r\nNats-Rollup: all\r\n\r\n"
		body := []byte(`{"model":"runware:101@1","labels":{"user":"42\r\nNats-Rollup: all\r\n\r\n"},"input":{"positivePrompt":"x\r\nGen-Version: 9","width":64,"height":64}}`)
		header := map[string]string{
			"Nats-Rollup": "all", "Nats-Expected-Last-Sequence": "7", "Nats-Expected-Stream": "OTHER", "Nats-Msg-Id": "a\tb", "Nats-TTL": "1s", "Nats-Schedule": "@every 1s",
			"Gen-Version": "9", "Gen-Prev": "1", "Gen-Commit": "mine", "Gen-Types": "completed", "Gen-Digest": "mine", "Gen-Seen": "mine", "Gen-Requester": "alice",
		}
		js, err := jetstream.New(w.node.conn)
		if err != nil {
			t.Fatal(err)
		}
		log, err := js.Stream(t.Context(), stream.Name)
		if err != nil {
			t.Fatal(err)
		}
		for way, ask := range map[string]func(){
			"NATS": func() {
				if r, answer, err := w.askNATS(body, header); err != nil || r.code != http.StatusAccepted {
					t.Errorf("NATS: %v %s %v", r, answer, err)
				}
			},
			"submit": func() { w.submit(body, header) },
			"POST": func() {
				if r, answer, err := w.askHTTP(http.MethodPost, "/v1/generations", body, header); err != nil || r.code != http.StatusAccepted {
					t.Errorf("POST: %v %s %v", r, answer, err)
				}
			},
		} {
			before := w.last()
			ask()
			w.settle(time.Minute)
			after := w.last()
			if after == before {
				t.Errorf("%s: nothing was stored", way)
			}
			for seq := before + 1; seq <= after; seq++ {
				m, err := log.GetMsg(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				for name, values := range m.Header {
					known := slices.Contains([]string{
						"Gen-Commit", "Gen-Version", "Gen-Prev", "Gen-Types", "Gen-Digest", "Gen-Seen", "Nats-Expected-Last-Subject-Sequence",
						"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", // of the answer, not of the message
					}, name)
					if !known || len(values) != 1 || slices.Contains(values, "mine") || strings.ContainsAny(values[0], "\r\n") {
						t.Errorf("%s: commit %d has the header %s: %q", way, seq, name, values)
					}
				}
				id, err := stream.ParseSubject(m.Subject)
				if err != nil {
					t.Fatal(err)
				}
				if seq == after && w.get(id).Labels["user"] != value {
					t.Errorf("%s: the label became %q", way, w.get(id).Labels["user"])
				}
			}
		}
		w.verify()
	})
}

// A body in gzip is one that is no JSON: nobody inflates it.
func TestCompressedBodiesAreNotInflated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id := w.ghost(1, "1h")
		good := string(delivery(events.TaskID(id, 0, 1), "http://127.0.0.1:9000/x", ""))
		coding := map[string]string{"Content-Encoding": "gzip"}
		before := w.last()
		req, err := http.NewRequest(http.MethodPost, w.node.keys.URL(hooksAt, "sim", id), bytes.NewReader(compressed(good)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Encoding", "gzip")
		res, err := w.api.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		drain(res.Body)
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("webhook: %d, want 400", res.StatusCode)
		}
		for name, text := range map[string]string{"a create": goodBody, "a bomb": goodBody + strings.Repeat(" ", 2<<20)} {
			r, _, err := w.askHTTP(http.MethodPost, "/v1/generations", compressed(text), coding)
			if want := (refusal{400, "malformed", "body"}); err != nil || r != want {
				t.Errorf("%s: %v, %v; want %v", name, r, err, want)
			}
		}
		if after := w.last(); after != before {
			t.Errorf("%d commits were written", after-before)
		}
	})
}

// A webhook whose body is shorter or longer than it says, has no end, or comes a
// byte at a time is refused or given up in time, and leaves nothing.
func TestLyingAndSlowWebhooksLeaveNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id := w.ghost(1, "24h")
		address := strings.TrimPrefix(w.node.keys.URL(hooksAt, "sim", id), hooksAt)
		good := string(delivery(events.TaskID(id, 0, 1), "http://127.0.0.1:9000/x", ""))
		head := func(lines string) string {
			return "POST " + address + " HTTP/1.1\r\nHost: hooks\r\nConnection: close\r\n" + lines + "\r\n"
		}
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10))
		drip := func(c io.Writer) {
			for range 3600 {
				if _, err := io.WriteString(c, " "); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}
		for _, c := range []struct {
			name, send string
			more       func(io.Writer)
			codes      []int         // that may be answered; 0 = none, the connection ends
			within     time.Duration // of fake time
		}{
			{"shorter than it says", head(fmt.Sprintf("Content-Length: %d\r\n", len(good)+10)) + good, nil, []int{0, 400}, 2 * time.Minute},
			{"longer than it says", head(fmt.Sprintf("Content-Length: %d\r\n", len(good)-5)) + good, nil, []int{400}, time.Second},
			{"a length that is none", head("Content-Length: -1\r\n") + good, nil, []int{400}, time.Second},
			{"two lengths", head(fmt.Sprintf("Content-Length: 5\r\nContent-Length: %d\r\n", len(good))) + good, nil, []int{400}, time.Second},
			{"a length and chunks", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", nil, []int{400}, time.Second},
			{"chunks that are compressed", head("Transfer-Encoding: gzip, chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n", nil, []int{501, 400}, time.Second},
			{"broken chunks", head("Transfer-Encoding: chunked\r\n") + "zz\r\n" + good, nil, []int{400}, time.Second},
			{"white space without end", head("Transfer-Encoding: chunked\r\n"), func(c io.Writer) {
				for range 2 << 10 { // 128 MiB, were it read
					if _, err := io.WriteString(c, chunk); err != nil {
						return
					}
				}
			}, []int{0, 413}, time.Second},
			{"a byte a second", head("Content-Length: 3600\r\n"), drip, []int{0, 400}, 2 * time.Minute},
			{"no body at all", head(fmt.Sprintf("Content-Length: %d\r\n", len(good))), nil, []int{0, 400}, 2 * time.Minute},
			{"no end of the head", "POST " + address + " HTTP/1.1\r\nHost: hooks\r\nX: ", drip, []int{0, 408, 400}, time.Minute},
		} {
			before, began := w.last(), time.Now()
			if code := w.raw("127.0.0.1:8081", c.send, c.more); !slices.Contains(c.codes, code) {
				t.Errorf("%s: %d, want one of %v", c.name, code, c.codes)
			}
			if took := time.Since(began); took > c.within {
				t.Errorf("%s: it held its place for %s", c.name, took)
			}
			if after := w.last(); after != before {
				t.Errorf("%s: %d commits were written", c.name, after-before)
			}
		}
		if code := w.hook(http.MethodPost, hooksAt+address, []byte(good)); code != http.StatusNoContent {
			t.Errorf("a good webhook after them: %d", code)
		}
	})
}

// raw writes on a connection of its own and returns the code that is answered, 0
// if the connection ends without one.
func (w *world) raw(address, send string, more func(io.Writer)) int {
	w.t.Helper()
	c, err := w.pipes.dial(w.t.Context(), "", address)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan struct{})
	defer func() {
		c.Close()
		<-done
	}()
	go func() {
		defer close(done)
		if _, err := io.WriteString(c, send); err == nil && more != nil {
			more(c)
		}
	}()
	answer, _ := io.ReadAll(c) // however it ends
	var code int
	_, _ = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &code)
	return code
}

// What is sent under the name of a file that is not its own, by any way out of
// its folder, is not found.
func TestNoWayLeadsOutOfTheBucket(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id := streamtest.NewID()
		if err := w.create(id, map[string]any{"model": "runware:101@1", "input": map[string]any{"positivePrompt": "x", "width": 64, "height": 64}}); err != nil {
			t.Fatal(err)
		}
		w.settle(time.Minute)
		a := w.get(id).Outputs[0].Artifact.ID
		for _, path := range []string{
			"/v1/artifacts/..%2f..%2fwebhook.keys/content", "/v1/artifacts/" + a + "%2f..%2f..%2fwebhook.keys/content", "/v1/artifacts/" + a + "%00/content",
			"/v1/artifacts/" + a + ".png/content", "/v1/artifacts/" + a + "/content/../../../webhook.keys", "/v1/artifacts/" + strings.ToUpper(a) + "/content",
			"/v1/artifacts/" + string(id) + "-00/content", "/v1/artifacts/" + string(id) + "-+0/content", "/v1/artifacts/" + string(id) + "-20/content",
			"/v1/files/..%2fwebhook.keys", "/v1/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/files/inputs%2f" + strings.Repeat("0", 64), "/assets/..%2fwebhook.keys",
			"/assets/../../webhook.keys", "/assets/%2e%2e/%2e%2e/webhook.keys", "/g/..%2f..%2fx", "/v1/generations/*", "/v1/generations/%3e", "/v1/generations/" + string(id) + "%0d%0a", "/v1/generations/" + string(id) + ".x",
		} {
			res, err := w.api.http.Get(w.api.base + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			page := strings.Contains(path, "/g/")
			if err != nil || !page && (res.StatusCode < 400 || res.StatusCode > 499) || bytes.HasPrefix(body, []byte("\x89PNG")) {
				t.Errorf("%s: %d %.100q, %v", path, res.StatusCode, body, err)
			}
			if kind := res.Header.Get("Content-Type"); strings.HasSuffix(kind, "json") && !json.Valid(body) {
				t.Errorf("%s: %q", path, body)
			}
		}
	})
}
