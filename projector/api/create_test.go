package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/projector/api"
)

const body = `{"model":"runware:101@1","input":{"positivePrompt":"a <red> fox"}}`

func TestCreateIsForwardedAsItIs(t *testing.T) {
	const secret = "0123456789abcdef"
	keys, err := api.ParseKeys(strings.NewReader("alice " + secret))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *api.Config) { c.Keys = keys })
	id := streamtest.NewID()
	asked := make(chan micro.Request, 1)
	w.orchestrator(func(r micro.Request) {
		asked <- r
		_ = r.Respond([]byte(`{"id":"` + string(id) + `","position":7}`))
	})
	for _, c := range []struct{ method, path, id, key string }{
		{http.MethodPost, "/v1/generations", "", ""},
		{http.MethodPost, "/v1/generations", "", "order 66"},
		{http.MethodPut, "/v1/generations/" + string(id), string(id), ""},
	} {
		headers := []string{"Authorization", "Bearer " + secret, "Gen-Requester", "mallory", "Gen-Id", "forged"}
		if c.key != "" {
			headers = append(headers, "Idempotency-Key", c.key)
		}
		a := w.do(c.method, c.path, body, headers...)
		if a.code != http.StatusAccepted || a.header.Get("Location") != "/v1/generations/"+string(id) {
			t.Errorf("%s %s answered %d %v", c.method, c.path, a.code, a.header)
		}
		if a.body != `{"id":"`+string(id)+`","position":7}`+"\n" {
			t.Errorf("%s %s answered %s", c.method, c.path, a.body)
		}
		r := <-asked
		h := r.Headers()
		if string(r.Data()) != body || h.Get("Gen-Id") != c.id || h.Get("Idempotency-Key") != c.key || h.Get("Gen-Requester") != "alice" {
			t.Errorf("%s %s asked with %v %s", c.method, c.path, h, r.Data())
		}
	}
}

func TestProblemOfOrchestratorIsPassedOn(t *testing.T) {
	w := newWorld(t)
	answer := make(chan [2]string, 1)
	w.orchestrator(func(r micro.Request) {
		a := <-answer
		_ = r.Error(a[0], "no", []byte(a[1]))
	})
	for name, c := range map[string]struct {
		code, body string
		want       int
		kind, has  string
	}{
		"Field": {
			"422", `{"type":"urn:genstream:problem:invalid","title":"t","status":422,"detail":"d","errors":[{"message":"m","location":"body.count"}]}`,
			422, "invalid", `"location":"body.count"`,
		},
		"Title":     {"503", `{"type":"urn:genstream:problem:no-room","title":"t","status":503,"detail":"d"}`, 503, "no-room", "There is no room for more"},
		"Busy":      {"503", `{"type":"urn:genstream:problem:busy","title":"t","status":503,"detail":"d"}`, 503, "busy", ""},
		"NotJSON":   {"422", `panic: secret`, 503, "unavailable", "same ID"},
		"NoCode":    {"teapot", `{"type":"urn:genstream:problem:busy","title":"t","status":503,"detail":"d"}`, 503, "unavailable", "same ID"},
		"Elsewhere": {"422", `{"type":"about:blank","title":"secret","status":422}`, 503, "unavailable", "same ID"},
	} {
		t.Run(name, func(t *testing.T) {
			answer <- [2]string{c.code, c.body}
			a := w.do(http.MethodPost, "/v1/generations", body)
			a.mustBe(t, c.want, c.kind)
			if !strings.Contains(a.body, c.has) || strings.Contains(a.body, "secret") {
				t.Errorf("answered %s", a.body)
			}
		})
	}
}

func TestCreateThatNobodyAnswersIsUnavailable(t *testing.T) {
	w := newWorld(t)
	w.do(http.MethodPost, "/v1/generations", body).mustBe(t, 503, "unavailable")
	w.nats.Conn().Close()
	a := w.do(http.MethodPost, "/v1/generations", body)
	a.mustBe(t, 503, "unavailable")
	if !strings.Contains(a.body, "same ID") {
		t.Errorf("does not say to send it again: %s", a.body)
	}
}

func TestBodyOverItsLimitIsRefused(t *testing.T) {
	w := newWorld(t)
	for name, n := range map[string]int{"Over": 1<<20 + 1, "FarOver": 4 << 20} {
		t.Run(name, func(t *testing.T) {
			w.do(http.MethodPost, "/v1/generations", strings.Repeat(" ", n)).mustBe(t, 413, "too-large")
		})
	}
	w.do(http.MethodPost, "/v1/generations", strings.Repeat(" ", 1<<20)).mustBe(t, 503, "unavailable") // passed on
	w.do(http.MethodPost, "/v1/generations", "").mustBe(t, 400, "malformed")
	w.do(http.MethodPut, "/v1/generations/nope", body).mustBe(t, 422, "invalid")
}

func TestPreferWaitAnswersWithTheGeneration(t *testing.T) {
	w := newWorld(t)
	m := w.request(1)
	answer := []byte(`{"id":"` + string(m.id) + `","position":` + number(m.sequence) + `}`) // m changes while it is asked for
	w.orchestrator(func(r micro.Request) { _ = r.Respond(answer) })
	if a := w.do(http.MethodPost, "/v1/generations", body, "Prefer", "wait=1"); a.code != http.StatusAccepted || a.header.Get("Preference-Applied") != "" {
		t.Errorf("open after the wait: answered %d %v", a.code, a.header)
	}
	first := m.sequence
	answers := make(chan answered, 1)
	go func() {
		answers <- w.do(http.MethodPost, "/v1/generations", body, "Prefer", "respond-async, wait=90; x=y")
	}()
	w.succeed(m, 0)
	w.complete(m)
	a := <-answers
	if a.code != http.StatusOK || a.header.Get("Preference-Applied") != "wait=60" || a.header.Get("Location") != "/v1/generations/"+string(m.id) {
		t.Fatalf("answered %d %v %s", a.code, a.header, a.body)
	}
	if v := a.decode(t); v["id"] != string(m.id) || v["completed_at"] == nil || !strings.Contains(a.body, "sha256") {
		t.Errorf("answered %s", a.body)
	}
	m.sequence = first // a repeated request is told of the first commit
	for _, prefer := range []string{"wait=30", `wait="30"`, "WAIT = 30"} {
		start := time.Now()
		if a := w.do(http.MethodPost, "/v1/generations", body, "Prefer", prefer); a.code != http.StatusOK || time.Since(start) > 10*time.Second {
			t.Errorf("%s: completed already, answered %d after %s", prefer, a.code, time.Since(start))
		}
	}
	for _, prefer := range []string{"", "wait", "wait=0", "wait=-1", "wait=soon", "waiting=5"} {
		if a := w.do(http.MethodPost, "/v1/generations", body, "Prefer", prefer); a.code != http.StatusAccepted {
			t.Errorf("%q answered %d", prefer, a.code)
		}
	}
}

func TestWaitEndsWhenTheServerStops(t *testing.T) {
	w := newWorld(t)
	m := w.request(1)
	asked := make(chan bool, 1)
	w.orchestrator(func(r micro.Request) {
		_ = r.Respond([]byte(`{"id":"` + string(m.id) + `","position":` + number(m.sequence) + `}`))
		asked <- true
	})
	go func() { <-asked; w.stop() }()
	start := time.Now()
	if a := w.do(http.MethodPost, "/v1/generations", body, "Prefer", "wait=60"); a.code != http.StatusAccepted || time.Since(start) > 20*time.Second {
		t.Errorf("answered %d after %s", a.code, time.Since(start))
	}
}
