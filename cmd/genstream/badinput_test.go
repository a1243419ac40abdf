package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// badRequest is a row of "Bad input, and what it gets". Without ways it is sent
// in all of them.
type badRequest struct {
	name   string
	body   string
	header map[string]string // Gen-Id goes into the path of a PUT
	ways   string
	want   refusal
}

const goodBody = `{"model":"runware:101@1","input":{"positivePrompt":"a fox","width":64,"height":64}}`

func badRequests(now time.Time) []badRequest {
	var all []badRequest
	invalid := func(name, body, at string) {
		all = append(all, badRequest{name: name, body: body, want: refusal{422, "invalid", at}})
	}
	field := func(name, field, at string) { invalid(name, goodBody[:len(goodBody)-1]+","+field+"}", at) }
	input := func(name, field, at string) { invalid(name, goodBody[:len(goodBody)-2]+","+field+"}}", at) }
	unreadable := func(name, body string) {
		all = append(all, badRequest{name: name, body: body, want: refusal{400, "malformed", "body"}})
	}

	field("unknown field", `"size":1`, "body.size")
	invalid("no model", `{"input":{"positivePrompt":"x"}}`, "body.model")
	invalid("no input", `{"model":"runware:101@1"}`, "body.input")
	invalid("null", `null`, "body.model")
	invalid("an array", `[]`, "body")
	invalid("input null", `{"model":"runware:101@1","input":null}`, "body.input")
	invalid("input a text", `{"model":"runware:101@1","input":"x"}`, "body.input")
	invalid("input empty", `{"model":"runware:101@1","input":{}}`, "body.input")
	invalid("model a number", `{"model":5,"input":{"positivePrompt":"x"}}`, "body.model")
	invalid("model refused", `{"model":"a fox","input":{"positivePrompt":"x"}}`, "body.model")
	for _, count := range []string{"0", "21", "-1", "1.5", `"2"`, "1e3", "[1]", "99999999999999999999"} {
		field("count "+count, `"count":`+count, "body.count")
	}
	for _, deadline := range []string{`"0s"`, `"999ms"`, `"25h"`, `"x"`, `"-5m"`, `10`, `"10"`} {
		field("deadline "+deadline, `"deadline":`+deadline, "body.deadline")
	}
	field("provider unknown", `"provider":"other"`, "body.provider")
	field("labels a list", `"labels":["a"]`, "body.labels")
	field("nine labels", `"labels":{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":""}`, "body.labels")
	field("label's key", `"labels":{"User":"42"}`, "body.labels")
	field("label's key empty", `"labels":{"":"42"}`, "body.labels")
	field("label's key long", `"labels":{"`+strings.Repeat("k", 33)+`":"42"}`, "body.labels")
	field("label's value long", `"labels":{"user":"`+strings.Repeat("v", 129)+`"}`, "body.labels.user")
	for _, key := range []string{"taskUUID", "webhookURL", "numberResults", "model", "deliveryMethod", "includeCost", "ttl", "apiKey", "TaskUUID"} {
		input("reserved "+key, `"`+key+`":"x"`, "body.input."+key)
	}
	input("seed negative", `"seed":-1`, "body.input.seed")
	file := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 4<<10))
	input("a file in base64", `"seedImage":"`+file+`"`, "body.input.seedImage")
	input("a file in a data URI", `"masks":["data:image/png;base64,`+file+`"]`, "body.input.masks[0]")
	input("$file without a name", `"seedImage":{"$file":"inputs/00"}`, "body.input.seedImage")
	input("$file that is not here", `"seedImage":{"$file":"inputs/`+strings.Repeat("0", 64)+`"}`, "body.input.seedImage")

	unreadable("nothing", "")
	unreadable("no JSON", "model=runware:101@1")
	unreadable("cut JSON", goodBody[:len(goodBody)-1])
	unreadable("two objects", goodBody+goodBody)
	unreadable("no UTF-8", strings.Replace(goodBody, "fox", "f\xffx", 1))
	unreadable("nested too deep", `{"model":"runware:101@1","input":{"a":`+strings.Repeat("[", 15000)+strings.Repeat("]", 15000)+`}}`)

	large := func(n int) string { return strings.Replace(goodBody, "fox", strings.Repeat("fox ", n/4), 1) }
	all = append(all,
		badRequest{name: "over 32 KiB", body: large(32 << 10), want: refusal{413, "too-large", "body"}},
		badRequest{name: "just below 1 MiB", body: large(1<<20 - 200), ways: "POST PUT", want: refusal{413, "too-large", "body"}},
		badRequest{name: "over 1 MiB", body: large(1 << 20), ways: "POST PUT", want: refusal{413, "too-large", "body"}})

	fresh := string(streamtest.NewID())
	day := 24 * time.Hour
	for name, id := range map[string]string{
		"a version 4": "8c5b2f3e-9f7c-4e0a-8c58-0f7a8f1f3b11", "derived": string(events.DerivedID("", "k")),
		"upper case": strings.ToUpper(fresh), "a wildcard": "*", "the other wildcard": ">", "dots": fresh + ".x",
		"short": fresh[:35], "braces": "{" + fresh + "}", "no dashes": strings.ReplaceAll(fresh, "-", ""),
		"ten days old": timedID(now.Add(-10 * day)), "of the day after tomorrow": timedID(now.Add(2 * day)),
	} {
		all = append(all, badRequest{
			name: "ID " + name, body: goodBody, header: map[string]string{"Gen-Id": id}, ways: "PUT NATS submit",
			want: refusal{422, "invalid", "path.id"},
		})
	}
	return append(all,
		badRequest{
			name: "long key", body: goodBody, header: map[string]string{"Idempotency-Key": strings.Repeat("k", 256)}, ways: "POST NATS submit",
			want: refusal{422, "invalid", "header.Idempotency-Key"},
		},
		badRequest{
			name: "ID and key", body: goodBody, header: map[string]string{"Idempotency-Key": "k", "Gen-Id": fresh}, ways: "NATS submit",
			want: refusal{422, "invalid", "header.Idempotency-Key"},
		})
}

// timedID is a UUIDv7 of that time.
func timedID(at time.Time) string {
	ms := fmt.Sprintf("%012x", at.UnixMilli())
	return ms[:8] + "-" + ms[8:] + "-7000-8000-000000000001"
}

// Every bad request is refused in the same words whatever way it takes, and
// leaves nothing behind.
func TestBadRequestIsRefusedAndLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		began := w.last()
		for _, b := range badRequests(time.Now()) {
			for way := range strings.FieldsSeq(b.way()) {
				before := w.last()
				got, err := w.refuse(way, b)
				if err != nil || got != b.want {
					t.Errorf("%s by %s: %v, %v; want %v", b.name, way, got, err, b.want)
				}
				if after := w.last(); after != before {
					t.Errorf("%s by %s: %d commits were written", b.name, way, after-before)
				}
			}
		}
		if w.last() != began || w.node.orchestrator.OpenCount() != 0 || len(w.journal()) != 0 {
			t.Errorf("log from %d to %d, %d open, %d entries in the provider's journal", began, w.last(), w.node.orchestrator.OpenCount(), len(w.journal()))
		}
		if err := w.node.conn.PublishMsg(&nats.Msg{Subject: "genstream.generations.create", Data: make([]byte, 1<<20+1)}); !errors.Is(err, nats.ErrMaxPayload) {
			t.Errorf("over 1 MiB by NATS: %v", err)
		}
	})
}

func (b badRequest) way() string {
	if b.ways == "" {
		return "POST PUT NATS submit"
	}
	return b.ways
}

// refuse sends a request one way. What the queue parks is a refusal too: its
// reason has the location in it.
func (w *world) refuse(way string, b badRequest) (r refusal, err error) {
	switch way {
	case "POST":
		r, _, err = w.askHTTP(way, "/v1/generations", []byte(b.body), b.header)
	case "PUT":
		id := b.header["Gen-Id"]
		if id == "" {
			id = string(streamtest.NewID())
		}
		r, _, err = w.askHTTP(way, "/v1/generations/"+id, []byte(b.body), nil)
	case "NATS":
		r, _, err = w.askNATS([]byte(b.body), b.header)
	case "submit":
		before, _ := w.messages(stream.Parked, "")
		w.submit([]byte(b.body), b.header)
		var last *nats.Msg
		w.eventually(b.name+" is parked", func() bool {
			var n uint64
			n, last = w.messages(stream.Parked, "parked.submit")
			return n == before+1
		})
		if !bytes.Equal(last.Data, []byte(b.body)) {
			return r, errors.New("what is parked is not what was submitted")
		}
		if reason := last.Header.Get("Gen-Reason"); !strings.Contains(reason, ": "+b.want.at+" ") {
			return r, fmt.Errorf("the reason %q does not name the field", reason)
		}
		return b.want, nil
	}
	return r, err
}

// The same ID, or key, is the same generation if the request is, and refused if
// it is another one.
func TestSameIDIsTheSameRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		id := string(streamtest.NewID())
		same := strings.Replace(goodBody, `{"model":"runware:101@1",`, "{ \"count\": 1,\n \"model\": \"runware:101@1\", ", 1)
		other := strings.Replace(goodBody, "fox", "cat", 1)
		put := func(body string) (refusal, []byte, error) {
			return w.askHTTP("PUT", "/v1/generations/"+id, []byte(body), nil)
		}
		byNATS := func(body string) (refusal, []byte, error) {
			return w.askNATS([]byte(body), map[string]string{"Gen-Id": id})
		}
		key := map[string]string{"Idempotency-Key": "order 7"}
		post := func(body string) (refusal, []byte, error) {
			return w.askHTTP("POST", "/v1/generations", []byte(body), key)
		}
		keyNATS := func(body string) (refusal, []byte, error) { return w.askNATS([]byte(body), key) }
		for _, c := range []struct {
			name          string
			first, second func(string) (refusal, []byte, error)
			at            string
		}{
			{"ID", put, byNATS, "path.id"},
			{"key", post, keyNATS, "header.Idempotency-Key"},
		} {
			_, answer, err := c.first(goodBody)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // open at first, completed then
				before := w.last()
				for i, ask := range []func(string) (refusal, []byte, error){c.first, c.second} {
					r, again, err := ask(same)
					if err != nil || r.code != 202 || !bytes.Equal(bytes.TrimSpace(again), bytes.TrimSpace(answer)) {
						t.Errorf("the same %s with the same request, way %d: %v, %v, %s; want %s", c.name, i, r, err, again, answer)
					}
					if r, _, err = ask(other); err != nil || r != (refusal{422, "reused", c.at}) {
						t.Errorf("the same %s with another request, way %d: %v, %v", c.name, i, r, err)
					}
				}
				if w.last() != before && w.node.orchestrator.OpenCount() == 0 {
					t.Errorf("the same %s: %d commits were written", c.name, w.last()-before)
				}
				w.settle(time.Hour)
			}
		}
		// The queue knows them as well: the same request is done, another one is parked.
		before, _ := w.messages(stream.Parked, "")
		end := w.last()
		w.submit([]byte(same), map[string]string{"Gen-Id": id})
		w.submit([]byte(other), map[string]string{"Gen-Id": id})
		w.submit([]byte(other), key)
		if n, last := w.messages(stream.Parked, "parked.submit"); n != before+2 || !strings.Contains(last.Header.Get("Gen-Reason"), "another request") {
			t.Errorf("%d are parked, want the 2 other requests: %v", n-before, last.Header)
		}
		if w.last() != end {
			t.Errorf("%d commits were written", w.last()-end)
		}
		w.verify()
	})
}

// Whoever asks while another one's request under the same ID is being written
// is told the same as he: never an empty answer.
func TestSameIDAtOnceIsOneGeneration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		const rounds, clients = 20, 48
		for range rounds {
			id := string(streamtest.NewID())
			var mu sync.Mutex
			answers := map[string]int{}
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					r, answer, err := w.askNATS([]byte(goodBody), map[string]string{"Gen-Id": id})
					mu.Lock()
					defer mu.Unlock()
					answers[fmt.Sprint(r.code, err, string(answer))]++
				})
			}
			wg.Wait()
			if len(answers) != 1 || !strings.Contains(slices.Collect(maps.Keys(answers))[0], id) {
				t.Errorf("answers to generation=%s: %v", id, answers)
			}
		}
		w.settle(time.Hour)
		w.verify()
	})
}

// A nearly full disk refuses what is new before anything of it is written, says
// so, and lets what was promised come to its end.
func TestFullDiskRefusesBeforeAnyWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		var left atomic.Int64
		left.Store(50 << 30)
		w.free = func(string) (int64, int64, error) { return left.Load(), 100 << 30, nil }
		w.open()
		defer w.end()
		promised := streamtest.NewID()
		if err := w.create(promised, map[string]any{
			"model": "runware:101@1", "input": map[string]any{"positivePrompt": "a snail [[take 5m]]", "width": 64, "height": 64},
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // fake time: the provider has it
		left.Store(100 << 20)
		before, free := w.last(), len(w.journal())
		id := string(streamtest.NewID())
		for way, ask := range map[string]func() (refusal, []byte, error){
			"POST": func() (refusal, []byte, error) { return w.askHTTP("POST", "/v1/generations", []byte(goodBody), nil) },
			"PUT":  func() (refusal, []byte, error) { return w.askHTTP("PUT", "/v1/generations/"+id, []byte(goodBody), nil) },
			"NATS": func() (refusal, []byte, error) { return w.askNATS([]byte(goodBody), nil) },
		} {
			if r, answer, err := ask(); err != nil || r != (refusal{503, "no-room", ""}) || !bytes.Contains(answer, []byte("the disk is nearly full: 100 MiB")) {
				t.Errorf("%s: %v, %v, %s", way, r, err, answer)
			}
		}
		m := nats.NewMsg(stream.SubmitSubject)
		m.Data = []byte(goodBody)
		if answer, err := w.node.conn.RequestMsg(m, 10*time.Second); err != nil || !bytes.Contains(answer.Data, []byte(`"code":503`)) {
			t.Errorf("submit: %v, %s", err, answer.Data)
		}
		if w.last() != before || len(w.journal()) != free {
			t.Errorf("%d commits and %d calls were made", w.last()-before, len(w.journal())-free)
		}
		if err := w.node.ready(); err == nil || !strings.Contains(err.Error(), "disk") {
			t.Errorf("ready: %v", err)
		}
		w.settle(time.Hour)
		if g := w.get(promised); g.Outputs[0].Artifact == nil {
			t.Errorf("what was promised before: %+v", g)
		}
		left.Store(50 << 30)
		w.submit([]byte(goodBody), map[string]string{"Gen-Id": id})
		w.settle(time.Hour)
		if g := w.get(events.ID(id)); g.Outputs[0].Artifact == nil {
			t.Errorf("what was submitted again: %+v", g)
		}
		if n, _ := w.messages(stream.Parked, ""); n != 0 {
			t.Errorf("%d are parked", n)
		}
		w.verify()
	})
}

// A cursor that no list has given is refused by name.
func TestBadCursorIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: 1})
		w.open()
		defer w.end()
		for range 2 {
			if r, _, err := w.askHTTP("POST", "/v1/generations", []byte(goodBody), nil); err != nil || r.code != 202 {
				t.Fatal(r, err)
			}
		}
		w.settle(time.Hour)
		var page struct{ Next string }
		if err := w.api.get(t.Context(), "/v1/generations?limit=1", &page); err != nil || page.Next == "" {
			t.Fatalf("the first page: %+v, %v", page, err)
		}
		if r, _, err := w.askHTTP("GET", "/v1/generations?limit=1&cursor="+page.Next, nil, nil); err != nil || r.code != 200 {
			t.Errorf("the second page: %v, %v", r, err)
		}
		for _, path := range []string{
			"/v1/generations?cursor=2", "/v1/generations?cursor=' or 1=1 --", "/v1/generations?cursor=" + page.Next[1:],
			"/v1/generations?failed=true&cursor=" + page.Next, "/v1/artifacts?cursor=" + page.Next, "/v1/artifacts?cursor=" + strings.Repeat("A", 1000),
		} {
			if r, _, err := w.askHTTP("GET", strings.ReplaceAll(path, " ", "%20"), nil, nil); err != nil || r != (refusal{422, "invalid", "query.cursor"}) {
				t.Errorf("%s: %v, %v", events.Cut(path, 80), r, err)
			}
		}
	})
}
