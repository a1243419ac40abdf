package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator"
)

// refusal is what a requester is told, whatever way he came.
type refusal struct {
	code int
	kind string // last part of the problem's type
	at   string // errors[].location; empty where nothing in the request is to blame
}

func (r refusal) String() string { return fmt.Sprintf("%d %s %s", r.code, r.kind, r.at) }

func refusalOf(code int, body []byte) (refusal, error) {
	var p orchestrator.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		return refusal{code: code}, fmt.Errorf("%w: %s", err, events.Cut(string(body), 200))
	}
	kind, ours := strings.CutPrefix(p.Type, "urn:genstream:problem:")
	if !ours || p.Title == "" || p.Detail == "" || p.Code != code {
		return refusal{code: code}, fmt.Errorf("not a whole problem: %s", body)
	}
	r := refusal{code: code, kind: kind}
	if len(p.Errors) > 0 {
		r.at = p.Errors[0].Location
		if p.Errors[0].Message == "" {
			return r, fmt.Errorf("no message: %s", body)
		}
	}
	return r, nil
}

// askHTTP creates over HTTP and returns the refusal, or the answer.
func (w *world) askHTTP(method, path string, body []byte, header map[string]string) (refusal, []byte, error) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.api.base+path, bytes.NewReader(body))
	if err != nil {
		return refusal{}, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := w.api.http.Do(req)
	if err != nil {
		return refusal{}, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode < 400 {
		return refusal{code: res.StatusCode}, answer, err
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		return refusal{code: res.StatusCode}, answer, fmt.Errorf("Content-Type %q: %s", ct, answer)
	}
	r, err := refusalOf(res.StatusCode, answer)
	return r, answer, err
}

// askNATS creates over NATS.
func (w *world) askNATS(body []byte, header map[string]string) (refusal, []byte, error) {
	w.t.Helper()
	m := nats.NewMsg("genstream.generations.create")
	m.Data = body
	for k, v := range header {
		m.Header.Set(k, v)
	}
	answer, err := w.node.conn.RequestMsg(m, 10*time.Second)
	if err != nil {
		return refusal{}, nil, err
	}
	text := answer.Header.Get("Nats-Service-Error-Code")
	if text == "" {
		return refusal{code: http.StatusAccepted}, answer.Data, nil
	}
	var code int
	if _, err := fmt.Sscan(text, &code); err != nil {
		return refusal{}, nil, err
	}
	r, err := refusalOf(code, answer.Data)
	return r, answer.Data, err
}

// submit publishes to the queue.
func (w *world) submit(body []byte, header map[string]string) {
	w.t.Helper()
	m := nats.NewMsg(stream.SubmitSubject)
	m.Data = body
	for k, v := range header {
		m.Header.Set(k, v)
	}
	if ack, err := w.node.conn.RequestMsg(m, 10*time.Second); err != nil || !bytes.Contains(ack.Data, []byte(`"seq":`)) {
		w.t.Fatalf("submit: %v", err)
	}
}

// messages is how many messages a stream holds, and the last of them on a subject.
func (w *world) messages(name, subject string) (n uint64, last *nats.Msg) {
	w.t.Helper()
	js, err := jetstream.New(w.node.conn)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := js.Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	if n = st.CachedInfo().State.Msgs; subject == "" || n == 0 {
		return n, nil
	}
	m, err := st.GetLastMsgForSubject(w.t.Context(), subject)
	if err != nil {
		w.t.Fatal(err)
	}
	return n, &nats.Msg{Header: m.Header, Data: m.Data}
}

// eventually waits, on fake time, for what has to come by itself.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			w.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// last is the last sequence of the log.
func (w *world) last() uint64 {
	w.t.Helper()
	end, err := w.node.stream.Refresh(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}
