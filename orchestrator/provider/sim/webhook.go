package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// How the real service sends webhooks, by its documentation; the number of tries is not stated.
const (
	webhookTimeout = 5 * time.Second
	webhookTries   = 8
	firstGap       = 250 * time.Millisecond
	longestGap     = 8 * time.Second
)

// deliver sends what is due for a finished task and was not answered with 2xx yet.
func (s *Server) deliver(t *task) {
	if t.Webhook == "" || t.plan.lost || t.plan.gone {
		return
	}
	if !s.sleep(t.output.At.Add(t.plan.late)) {
		return
	}
	for n := 2; n <= t.plan.copies; n++ {
		s.wg.Go(func() { s.insist(t, n) })
	}
	s.insist(t, 1)
}

// insist sends one webhook until it is answered with 2xx, or 8 times.
func (s *Server) insist(t *task, n int) {
	s.mu.Lock()
	h := t.hooks[n]
	s.mu.Unlock()
	jitter := dice(s.cfg.Seed, "webhook/"+t.Task+"/"+strconv.Itoa(n))
	for gap := firstGap; !h.done && h.tries < webhookTries; gap = min(2*gap, longestGap) {
		if h.tries > 0 && !s.sleep(time.Now().Add(time.Duration((0.5+jitter.Float64())*float64(gap)))) {
			return
		}
		h.tries++
		code, fault := s.post(t)
		h.done = code/100 == 2
		if !h.done && s.alive.Err() != nil {
			return // the try does not count: it was cut off by our own end
		}
		s.mu.Lock()
		t.hooks[n] = h
		err := s.note(Entry{Kind: KindWebhook, Task: t.Task, Copy: n, Try: h.tries, HTTP: code, Fault: fault})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// post sends the webhook once. The code is 0 if there was no answer.
func (s *Server) post(t *task) (code int, fault string) {
	ctx, cancel := context.WithTimeout(s.alive, webhookTimeout)
	defer cancel()
	b, err := json.Marshal(s.envelope(t))
	if err != nil {
		panic("sim: a webhook does not marshal: " + err.Error())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Webhook, bytes.NewReader(b))
	if err != nil {
		return 0, "address"
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.hooks.Do(req)
	if err != nil {
		return 0, "unreachable"
	}
	resp.Body.Close()
	return resp.StatusCode, ""
}

func (s *Server) envelope(t *task) any {
	item := s.item(t, *t.output)
	delete(item, "status") // getResponse alone says it
	switch {
	case t.plan.flat:
		return item
	case t.output.Code != "":
		return map[string]any{"errors": []any{item}}
	}
	return map[string]any{"data": []any{item}}
}
