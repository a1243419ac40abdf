package sim

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// codeDuplicate is the error of a task UUID that was used before.
const codeDuplicate = "duplicateTaskUUID"

// create answers a call with inference tasks.
func (s *Server) create(w http.ResponseWriter, r *http.Request, qs []request, out *answer) {
	orders := make([]Order, len(qs))
	ids := make([]string, len(qs))
	for i, q := range qs {
		orders[i], ids[i] = order(q, i+1), q.TaskUUID
	}
	call, f, trouble, err := s.begin(orders[0], ids)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch {
	case trouble != 0:
		s.whole(w, trouble, map[int]string{401: "invalidApiKey", 402: "insufficientCredits", 403: "accountSuspended"}[trouble])
		return
	case f.fault == "busy":
		w.Header().Set("Retry-After", "1")
		s.whole(w, http.StatusTooManyRequests, "rateLimitExceeded")
		return
	case f.fault == "broken":
		s.fiveHundred(w, f.html)
		return
	case f.fault == "stall":
		s.hang(r)
	case f.fault == "refuse":
		for _, id := range ids {
			if s.refuse(id, call, "unsupportedParameter") != nil {
				s.hang(r)
			}
		}
		s.whole(w, http.StatusBadRequest, "unsupportedParameter")
		return
	}
	taken, err := s.takeAll(r.Context(), qs, orders, call, out)
	switch {
	case err != nil || f.fault == "hang":
		s.hang(r)
	case f.fault == "ambiguous":
		s.fiveHundred(w, f.html)
		return
	}
	if f.slow > 0 && !s.pause(r, f.slow) {
		panic(http.ErrAbortHandler)
	}
	if f.sync || qs[0].DeliveryMethod != "async" && qs[0].WebhookURL == "" {
		s.finish(r, taken, out)
	}
	s.send(w, out, f.harsh)
}

// begin writes the call down and decides its fate.
func (s *Server) begin(first Order, ids []string) (call int, f fate, trouble int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, f, 0, errClosed
	}
	s.calls++
	e := Entry{Kind: KindCreate, Call: s.calls, Tasks: ids}
	if trouble = s.account; trouble != 0 {
		e.Fault = "account"
	} else {
		f = s.cfg.fate(first, s.repeats[first.Task])
		e.Fault = f.fault
	}
	s.repeats[first.Task]++
	return s.calls, f, trouble, s.note(e)
}

// takeAll takes what can be taken, and says of each task which it was.
func (s *Server) takeAll(ctx context.Context, qs []request, orders []Order, call int, out *answer) ([]string, error) {
	var taken []string
	for i, q := range qs {
		code, more := invalid(q, orders[i])
		if code == "" {
			var err error
			if orders[i].Inputs, err = s.hashes(ctx, q.files); err != nil {
				code = "invalidInputFile"
			}
		}
		if code == "" {
			ok, err := s.take(orders[i], call)
			if err != nil {
				return nil, err
			}
			if ok {
				taken = append(taken, q.TaskUUID)
				out.Data = append(out.Data, map[string]any{"taskType": q.TaskType, "taskUUID": q.TaskUUID})
				continue
			}
			code, more = codeDuplicate, map[string]any{"parameter": "taskUUID"}
		} else if err := s.refuse(q.TaskUUID, call, code); err != nil {
			return nil, err
		}
		if more == nil {
			more = map[string]any{}
		}
		more["taskUUID"], more["taskType"] = q.TaskUUID, q.TaskType
		out.refuse(code, more)
	}
	return taken, nil
}

func (s *Server) refuse(id string, call int, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.note(Entry{Kind: KindRefused, Task: id, Call: call, Code: code})
}

// finish waits for the outputs and puts them in the place of the acknowledgements.
func (s *Server) finish(r *http.Request, taken []string, out *answer) {
	for _, id := range taken {
		s.mu.Lock()
		t := s.tasks[id]
		s.mu.Unlock()
		select {
		case <-t.made:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-s.alive.Done():
			panic(http.ErrAbortHandler)
		}
	}
	data := out.Data[:0]
	for _, d := range out.Data {
		id, _ := d["taskUUID"].(string)
		t, made := s.find(id)
		switch {
		case t == nil || made == nil:
			data = append(data, d)
		case made.Code != "":
			out.Errors = append(out.Errors, s.item(t, *made))
		default:
			data = append(data, s.item(t, *made))
		}
	}
	out.Data = data
}

// order is what a request asks for, with what it leaves unsaid.
func order(q request, place int) Order {
	o := Order{
		Task: q.TaskUUID, Type: q.TaskType, Model: q.Model, Prompt: q.PositivePrompt, Width: 1024, Height: 1024,
		OutputType: "URL", WithCost: q.IncludeCost, Webhook: q.WebhookURL, Place: place,
	}
	if q.Width != nil {
		o.Width = *q.Width
	}
	if q.Height != nil {
		o.Height = *q.Height
	}
	if q.OutputType != "" {
		o.OutputType = q.OutputType
	}
	if q.TTL != nil {
		o.TTL = *q.TTL
	}
	o.Seed = randomSeed(q.TaskUUID)
	if seed, err := strconv.ParseUint(q.Seed.String(), 10, 64); err == nil {
		o.Seed = seed
	}
	return o
}

// invalid is the code with which a task is refused, empty if it is not.
func invalid(q request, o Order) (string, map[string]any) {
	about := func(parameter string) map[string]any { return map[string]any{"parameter": parameter} }
	outside := func(n int) bool { return n < 16 || n > 16383 }
	_, seed := strconv.ParseUint(q.Seed.String(), 10, 64)
	switch {
	case q.invalid != "":
		return "invalid" + strings.ToUpper(q.invalid[:1]) + q.invalid[1:], about(q.invalid)
	case len(q.TaskUUID) != 36:
		return "invalidTaskUUID", about("taskUUID")
	case !exists(q.Model):
		return "unknownModel", about("model")
	case outside(o.Width):
		return "invalidWidth", map[string]any{"parameter": "width", "type": "integer", "min": 16, "max": 16383, "multiplier": 1}
	case outside(o.Height):
		return "invalidHeight", map[string]any{"parameter": "height", "type": "integer", "min": 16, "max": 16383, "multiplier": 1}
	case q.NumberResults != nil && *q.NumberResults != 1:
		return "unsupportedNumberResults", about("numberResults")
	case q.Seed != "" && seed != nil:
		return "invalidSeed", about("seed")
	case o.OutputType != "URL" && o.OutputType != "base64Data" && o.OutputType != "dataURI":
		return "invalidOutputType", about("outputType")
	case q.TTL != nil && (*q.TTL < 60 || o.OutputType != "URL"):
		return "invalidTtl", about("ttl")
	}
	return refused(o), nil
}

// exists says whether a model does: any name of the form source:id@version.
func exists(model string) bool {
	source, rest, colon := strings.Cut(model, ":")
	id, version, at := strings.Cut(rest, "@")
	return colon && at && source != "" && id != "" && version != "" &&
		!strings.ContainsAny(model, " \t\n") && !strings.Contains(model, "unknown")
}

// message is the text of an error code.
func message(code string) string {
	switch code {
	case "contentPolicyViolation":
		return "The request was rejected by the content filter."
	case "inferenceError":
		return "The inference failed. Please try again."
	case "timeoutProvider":
		return "The provider did not answer in time."
	case "insufficientCredits":
		return "Insufficient credits. Please top up your account."
	case "invalidApiKey":
		return "Invalid API key."
	case "rateLimitExceeded":
		return "Too many requests. Please slow down."
	case "unknownModel":
		return "There is no model of this name."
	case codeDuplicate:
		return "A task with this taskUUID exists already."
	case "taskFailedOrNotFound":
		return "The task failed or was not found."
	}
	return "Simulated error " + code + "."
}

// fiveHundred is what a broken server, or what stands in front of it, answers.
func (s *Server) fiveHundred(w http.ResponseWriter, html bool) {
	if !html {
		s.whole(w, http.StatusInternalServerError, "internalServerError")
		return
	}
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(http.StatusBadGateway)
	_, _ = w.Write([]byte("<html><title>502 Bad Gateway</title></html>"))
}

// hang never answers: it ends when the caller gives up or the provider is closed.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.alive.Done():
	}
	panic(http.ErrAbortHandler)
}

// pause reports false if nobody waits any more.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.alive.Done():
	}
	return false
}
