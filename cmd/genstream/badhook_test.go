package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

const hooksAt = "http://127.0.0.1:8081"

// hook sends a webhook and returns the HTTP code of the answer.
func (w *world) hook(method, address string, body []byte) int {
	w.t.Helper()
	req, err := http.NewRequest(method, address, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.api.http.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	drain(res.Body)
	return res.StatusCode
}

// delivery is a webhook's body that says a task has succeeded.
func delivery(task, address string, more string) []byte {
	return []byte(`{"data":[{"taskType":"imageInference","taskUUID":"` + task + `","imageUUID":"` + task + `","imageURL":"` + address + `","cost":0.0013` + more + `}]}`)
}

// ghost is an open generation of which the provider says nothing.
func (w *world) ghost(count int, deadline string) events.ID {
	w.t.Helper()
	id := streamtest.NewID()
	if err := w.create(id, map[string]any{
		"model": "runware:101@1", "count": count, "deadline": deadline,
		"input": map[string]any{"positivePrompt": "a ghost [[never]]", "width": 64, "height": 64},
	}); err != nil {
		w.t.Fatal(err)
	}
	task := events.TaskID(id, 0, 1)
	w.eventually("the provider has it", func() bool {
		g, _, err := w.node.stream.Load(w.t.Context(), id)
		return err == nil && g.Slots[0].Accepted && sim.Ledger(w.journal())[task].Taken == 1
	})
	return id
}

// A webhook that is forged, unknown or malformed is refused, and so little is
// written that the log does not move.
func TestBadWebhookIsRefusedAndLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id, unknown := w.ghost(2, "24h"), streamtest.NewID()
		other := w.ghost(1, "24h")
		url := func(provider string, id events.ID) string { return w.node.keys.URL(hooksAt, provider, id) }
		at := url("sim", id)
		token := at[strings.LastIndexByte(at, '/')+1:]
		flipped := "0" + token[1:]
		if flipped == token {
			flipped = "1" + token[1:]
		}
		task := events.TaskID(id, 0, 1)
		good := delivery(task, "http://127.0.0.1:9000/files/x.png", "")
		for _, c := range []struct {
			name, method, address string
			body                  string
			want                  int
		}{
			{"another token", "POST", strings.Replace(at, token, flipped, 1), string(good), 404},
			{"a short token", "POST", at[:len(at)-1], string(good), 404},
			{"no token", "POST", strings.TrimSuffix(at, token), string(good), 404},
			{"an upper-case token", "POST", strings.Replace(at, token, strings.ToUpper(token), 1), string(good), 404},
			{"the token of another generation", "POST", strings.Replace(url("sim", other), string(other), string(id), 1), string(good), 404},
			{"an unknown provider", "POST", url("other", id), string(good), 404},
			{"an ID that is none", "POST", url("sim", "gen.>"), string(good), 404},
			{"an upper-case ID", "POST", url("sim", events.ID(strings.ToUpper(string(id)))), string(good), 404},
			{"a path too long", "POST", at + "/x", string(good), 404},
			{"no path", "POST", hooksAt + "/", string(good), 404},
			{"a path that is not clean", "POST", strings.Replace(at, "/hooks/", "//hooks/", 1), string(good), 404},
			{"a path with a detour", "POST", strings.Replace(at, "/hooks/", "/x/../hooks/", 1), string(good), 404},
			{"a slash at the end", "POST", at + "/", string(good), 404},
			{"the probes' path", "GET", hooksAt + "/healthz", "", 404},
			{"the metrics' path", "GET", hooksAt + "/metrics", "", 404},
			{"the page", "GET", hooksAt + "/", "", 404},
			{"the profiler", "GET", hooksAt + "/debug/pprof/", "", 404},
			{"a PUT", "PUT", at, string(good), 404},
			{"an OPTIONS", "OPTIONS", at, "", 404},
			{"the API's path", "POST", hooksAt + "/v1/generations", goodBody, 404},
			{"a GET", "GET", at, "", 404},
			{"a generation that the log does not know", "POST", url("sim", unknown), string(delivery(events.TaskID(unknown, 0, 1), "http://127.0.0.1:9000/x", "")), 503},
			{"nothing", "POST", at, "", 400},
			{"no JSON", "POST", at, "taskUUID=" + task, 400},
			{"cut JSON", "POST", at, string(good[:len(good)-3]), 400},
			{"two bodies", "POST", at, string(good) + string(good), 400},
			{"a text", "POST", at, `"` + task + `"`, 400},
			{"another service's JSON", "POST", at, `{"event":"ping"}`, 400},
			{"a task that nobody asked for", "POST", at, string(delivery("8c5b2f3e-9f7c-4e0a-8c58-0f7a8f1f3b11", "http://127.0.0.1:9000/x", "")), 400},
			{"another generation's task", "POST", at, string(delivery(events.TaskID(other, 0, 1), "http://127.0.0.1:9000/x", "")), 400},
			{"one of its tasks and another's", "POST", at, `[` + string(good) + `,` + string(delivery(events.TaskID(other, 0, 1), "http://127.0.0.1:9000/x", "")) + `]`, 400},
			{"only progress", "POST", at, `{"data":[{"taskType":"imageInference","taskUUID":"` + task + `","status":"processing"}]}`, 204},
		} {
			before := w.last()
			if got := w.hook(c.method, c.address, []byte(c.body)); got != c.want {
				t.Errorf("%s: %d, want %d", c.name, got, c.want)
			}
			if after := w.last(); after != before {
				t.Errorf("%s: %d commits were written", c.name, after-before)
			}
		}
		if n := files(t, w); n != 0 {
			t.Errorf("%d files are in the bucket", n)
		}
	})
}

func files(t *testing.T, w *world) (n int) {
	t.Helper()
	for _, err := range w.node.bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// The same body again is one delivery; there is an end to different ones; and
// after the completion there are none.
func TestDeliveriesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id := w.ghost(1, "1h")
		at := w.node.keys.URL(hooksAt, "sim", id)
		// A try that was never made: each delivery is kept, and changes nothing.
		body := func(n int) []byte {
			return delivery(events.TaskID(id, 0, events.MaxTries), "http://127.0.0.1:9000/x", fmt.Sprintf(`,"n":%d`, n))
		}
		before := w.last()
		for range 3 {
			if code := w.hook("POST", at, body(0)); code != http.StatusNoContent {
				t.Errorf("the same body: %d", code)
			}
		}
		if n := w.last() - before; n != 1 {
			t.Errorf("the same body three times was appended %d times", n)
		}
		for n := 1; n < events.MaxSeen; n++ {
			if code := w.hook("POST", at, body(n)); code != http.StatusNoContent {
				t.Fatalf("delivery %d: %d", n, code)
			}
		}
		if n := w.last() - before; n != events.MaxSeen {
			t.Errorf("%d different bodies were appended %d times", events.MaxSeen, n)
		}
		for n := range 2 * events.MaxSeen {
			if code := w.hook("POST", at, body(events.MaxSeen+n)); code != http.StatusTooManyRequests {
				t.Fatalf("delivery %d: %d", events.MaxSeen+n, code)
			}
		}
		if n := w.last() - before; n != events.MaxSeen {
			t.Errorf("%d deliveries are in the log", n)
		}
		w.settle(2 * time.Hour)
		before = w.last()
		for n, body := range [][]byte{body(0), body(1000), []byte("garbage"), delivery(events.TaskID(id, 0, 1), "http://127.0.0.1:9000/x", "")} {
			if code := w.hook("POST", at, body); code != http.StatusOK {
				t.Errorf("after the completion, delivery %d: %d", n, code)
			}
		}
		if after := w.last(); after != before {
			t.Errorf("after the completion: %d commits were written", after-before)
		}
		w.verify()
	})
}

// A file that cannot or may not be had fails its output, for the reason that there is.
func TestBadOutputFileFailsItsOutput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		odd := http.NewServeMux()
		odd.Handle("/", w.sim)
		odd.HandleFunc("/odd/huge", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(3<<30))
			rw.Write([]byte("\x89PNG\r\n\x1a\n"))
		})
		odd.HandleFunc("/odd/page", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "image/png")
			rw.Write([]byte("<!DOCTYPE html><html><script>alert(1)</script></html>"))
		})
		odd.HandleFunc("/odd/drawing", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Write([]byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`))
		})
		odd.HandleFunc("/odd/gone", http.NotFound)
		odd.HandleFunc("/odd/nothing", func(http.ResponseWriter, *http.Request) {})
		odd.HandleFunc("/odd/inward", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "https://169.254.169.254/latest/meta-data", http.StatusFound)
		})
		w.simAt.Handler = odd
		w.open()
		defer w.end()
		cases := []struct{ name, address, code string }{
			{"a private address", "https://10.0.0.1/secret.png", events.CodeFetchForbid},
			{"cloud metadata", "https://169.254.169.254/secret", events.CodeFetchForbid},
			{"cloud metadata by another spelling", "https://[::ffff:169.254.169.254]/secret", events.CodeFetchForbid},
			{"a number for an address", "https://2852039166/secret", events.CodeFetchForbid},
			{"our own API", "http://127.0.0.1:8080/v1/counts?secret", events.CodeFetchForbid},
			{"plain http", "http://files.example.com/secret.png", events.CodeFetchForbid},
			{"a file URL", "file:///etc/passwd", events.CodeFetchForbid},
			{"a redirect inward", "http://127.0.0.1:9000/odd/inward", events.CodeFetchForbid},
			{"over the size limit", "http://127.0.0.1:9000/odd/huge", events.CodeFetchSize},
			{"a web page", "http://127.0.0.1:9000/odd/page", events.CodeFetchType},
			{"a drawing with a script", "http://127.0.0.1:9000/odd/drawing", events.CodeFetchType},
			{"gone", "http://127.0.0.1:9000/odd/gone", events.CodeFetchGone},
			{"an empty file", "http://127.0.0.1:9000/odd/nothing", events.CodeFetchFail},
		}
		id := w.ghost(len(cases), "10m")
		for slot, c := range cases {
			if code := w.hook("POST", w.node.keys.URL(hooksAt, "sim", id), delivery(events.TaskID(id, slot, 1), c.address, "")); code != http.StatusNoContent {
				t.Errorf("%s: webhook answered %d", c.name, code)
			}
		}
		w.settle(time.Hour)
		g := w.get(id)
		for slot, c := range cases {
			o := g.Outputs[slot]
			switch {
			case o.Artifact != nil || o.Error == nil || o.Error.Code != c.code:
				t.Errorf("%s: %+v, want %s", c.name, o.Error, c.code)
			case o.Error.Message == "" || strings.Contains(o.Error.Message, "secret") || strings.Contains(o.Error.Message, "/odd/"):
				t.Errorf("%s: the message %q", c.name, o.Error.Message)
			}
		}
		if n := files(t, w); n != 0 || g.Error == nil {
			t.Errorf("%d files are in the bucket, error %+v", n, g.Error)
		}
		w.verify()
	})
}

// A commit that cannot be read is put aside with the reason; everybody else goes
// on, the catalog reads past it, and a restart finds it no worse.
func TestPoisonCommitIsParked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		open := w.ghost(1, "1h")
		_, end, err := w.node.stream.Load(t.Context(), open)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			id     events.ID
			body   string
			header map[string]string
		}{
			{"garbage", streamtest.NewID(), "garbage", nil},
			{"nothing", streamtest.NewID(), "", nil},
			{"an unknown event", streamtest.NewID(), `{"at":"2026-01-01T00:00:00Z","events":[{"type":"painted"}]}`, map[string]string{"Gen-Version": "1", "Gen-Types": "painted"}},
			{"garbage that says it completes", streamtest.NewID(), "garbage", map[string]string{"Gen-Version": "1", "Gen-Types": "completed"}},
			{"garbage after good commits", open, "garbage", map[string]string{"Gen-Version": fmt.Sprint(end.Version + 1), "Gen-Prev": fmt.Sprint(end.Sequence), "Gen-Types": "delivered"}},
		} {
			parked, _ := w.messages(stream.Parked, "")
			m := nats.NewMsg(stream.Subject(c.id))
			m.Data = []byte(c.body)
			for k, v := range c.header {
				m.Header.Set(k, v)
			}
			ack, err := w.node.conn.RequestMsg(m, 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			var stored struct{ Seq uint64 }
			if err := json.Unmarshal(ack.Data, &stored); err != nil || stored.Seq == 0 {
				t.Fatalf("%v: %s", err, ack.Data)
			}
			var last *nats.Msg
			until := time.Now().Add(time.Minute)
			for n := parked; n == parked && time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
				n, last = w.messages(stream.Parked, "parked.commit")
			}
			switch {
			case last == nil || last.Header.Get("Gen-From") != fmt.Sprint(stream.Name, " ", stored.Seq) || !bytes.Equal(last.Data, m.Data):
				t.Errorf("%s: it is not parked", c.name)
			case last.Header.Get("Gen-Reason") == "":
				t.Errorf("%s: no reason", c.name)
			}
		}
		check := func() {
			id := streamtest.NewID()
			if err := w.create(id, map[string]any{"model": "runware:101@1", "input": map[string]any{"positivePrompt": "x", "width": 64, "height": 64}}); err != nil {
				t.Fatal(err)
			}
			w.settle(2 * time.Hour)
			if g := w.get(id); g.Outputs[0].Artifact == nil {
				t.Errorf("generation=%s beside the poison: %+v", id, g)
			}
			if lag := w.node.projector.Lag(); lag != 0 {
				t.Errorf("the catalog lags by %d", lag)
			}
			if g := w.get(open); g.Error == nil || g.Error.Code != events.CodeDeadline {
				t.Errorf("generation=%s, which was promised before the poison: %+v, want the deadline to have completed it", open, g)
			}
		}
		check()
		parked, _ := w.messages(stream.Parked, "")
		w.close()
		w.open()
		check()
		if again, _ := w.messages(stream.Parked, ""); again > 2*parked {
			t.Errorf("%d are parked after a restart, %d before", again, parked)
		}
	})
}

// Only inboxes are answered: a reply subject such as a generation's would have an
// answer stored as a commit, in our name.
func TestReplySubjectStoresNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		before := w.last()
		victim := streamtest.NewID()
		for _, subject := range []string{"genstream.generations.create", "genstream.generations.get"} {
			for _, body := range []string{goodBody, "garbage", string(victim)} {
				if err := w.node.conn.PublishRequest(subject, stream.Subject(victim), []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if r, _, err := w.askNATS([]byte("{}"), nil); err != nil || r.code != 422 {
			t.Fatalf("a request after them: %v, %v", r, err)
		}
		if after := w.last(); after != before {
			t.Errorf("%d messages were stored", after-before)
		}
	})
}
