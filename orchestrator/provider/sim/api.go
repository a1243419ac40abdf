package sim

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRequest bounds a request's body, in bytes.
const maxRequest = 24 << 20

// request is one element of a request, in Runware's words.
type request struct {
	TaskType       string      `json:"taskType"`
	TaskUUID       string      `json:"taskUUID"`
	Model          string      `json:"model"`
	PositivePrompt string      `json:"positivePrompt"`
	Width          *int        `json:"width"`
	Height         *int        `json:"height"`
	NumberResults  *int        `json:"numberResults"`
	Seed           json.Number `json:"seed"`
	OutputType     string      `json:"outputType"`
	WebhookURL     string      `json:"webhookURL"`
	DeliveryMethod string      `json:"deliveryMethod"`
	IncludeCost    bool        `json:"includeCost"`
	TTL            *int64      `json:"ttl"`
	APIKey         string      `json:"apiKey"`

	invalid string   // the field that could not be read
	files   []string // data: URIs and addresses that it gives as input
}

// answer is a body in the wire's form.
type answer struct {
	Data   []map[string]any `json:"data"`
	Errors []map[string]any `json:"errors,omitempty"`
}

func (a *answer) refuse(code string, more map[string]any) {
	e := map[string]any{"code": code, "message": message(code)}
	for k, v := range more {
		e[k] = v
	}
	a.Errors = append(a.Errors, e)
}

func (s *Server) api(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		s.whole(w, http.StatusBadRequest, "invalidRequest")
		return
	}
	requests, ok := parse(body)
	if !ok {
		s.whole(w, http.StatusBadRequest, "invalidRequest")
		return
	}
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	var out answer
	var creates []request
	for _, q := range requests {
		if q.TaskType == "authentication" {
			key = q.APIKey
			out.Data = append(out.Data, map[string]any{"taskType": q.TaskType})
		}
	}
	if s.cfg.Key != "" && subtle.ConstantTimeCompare([]byte(key), []byte(s.cfg.Key)) != 1 {
		s.whole(w, http.StatusUnauthorized, "invalidApiKey")
		return
	}
	for _, q := range requests {
		switch q.TaskType {
		case "authentication":
		case "imageInference", "videoInference", "audioInference", "3dInference":
			creates = append(creates, q)
		case "getResponse":
			s.response(q, &out)
		case "getTaskDetails":
			s.details(q, &out)
		case "ping":
			out.Data = append(out.Data, map[string]any{"taskType": "ping", "pong": true})
		default:
			out.refuse("unsupportedTaskType", map[string]any{"taskUUID": q.TaskUUID, "parameter": "taskType"})
		}
	}
	if len(creates) > 0 {
		s.create(w, r, creates, &out)
		return
	}
	s.send(w, &out, false)
}

// send picks the HTTP code: 400 if there are errors and nothing else, or, if it
// is to be harsh, in spite of what else there is.
func (s *Server) send(w http.ResponseWriter, out *answer, harsh bool) {
	code := http.StatusOK
	if len(out.Errors) > 0 && (len(out.Data) == 0 || harsh) {
		code = http.StatusBadRequest
	}
	write(w, code, out)
}

// whole answers with one error that names no task.
func (s *Server) whole(w http.ResponseWriter, code int, wire string) {
	var out answer
	out.refuse(wire, nil)
	write(w, code, out)
}

func write(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("sim: an answer does not marshal: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(code)
	_, _ = w.Write(b) // whoever does not read it asks again
}

// parse reads the array of tasks. A field of a wrong type is an error of its task alone.
func parse(body []byte) ([]request, bool) {
	var raw []json.RawMessage
	if json.Unmarshal(body, &raw) != nil || len(raw) == 0 {
		return nil, false
	}
	out := make([]request, len(raw))
	for i, r := range raw {
		var wrong *json.UnmarshalTypeError
		switch err := json.Unmarshal(r, &out[i]); {
		case errors.As(err, &wrong) && wrong.Field != "":
			out[i].invalid = wrong.Field
		case err != nil && strings.Contains(err.Error(), "number"): // a json.Number that is none
			out[i].invalid = "seed"
		case err != nil:
			return nil, false
		}
		out[i].files = givenFiles(r)
	}
	return out, true
}

// response answers getResponse for one task.
func (s *Server) response(q request, out *answer) {
	t, made := s.find(q.TaskUUID)
	switch {
	case t == nil || t.plan.vague:
		out.refuse("taskFailedOrNotFound", map[string]any{"taskUUID": q.TaskUUID, "status": "error"})
	case made == nil:
		done := 100 * (1 - float64(time.Until(t.ready))/float64(max(t.plan.latency, 1)))
		out.Data = append(out.Data, map[string]any{
			"taskType": t.Type, "taskUUID": t.Task, "status": "processing", "progress": int(min(99, max(0, done))),
		})
	case made.Code != "":
		out.Errors = append(out.Errors, s.item(t, *made))
	default:
		out.Data = append(out.Data, s.item(t, *made))
	}
}

// details answers getTaskDetails for one task: what was asked, and what came of it.
func (s *Server) details(q request, out *answer) {
	t, made := s.find(q.TaskUUID)
	if t == nil {
		out.refuse("taskNotFound", map[string]any{"taskUUID": q.TaskUUID})
		return
	}
	asked := map[string]any{
		"taskType": t.Type, "taskUUID": t.Task, "model": t.Model, "positivePrompt": t.Prompt, "numberResults": 1,
		"width": t.Width, "height": t.Height, "seed": t.Seed, "outputType": t.OutputType, "deliveryMethod": "async",
	}
	if t.Webhook != "" {
		asked["webhookURL"] = t.Webhook
	}
	var said answer
	switch {
	case made == nil:
		said.Data = append(said.Data, map[string]any{"taskType": t.Type, "taskUUID": t.Task})
	case made.Code != "":
		said.Errors = append(said.Errors, s.item(t, *made))
	default:
		said.Data = append(said.Data, s.item(t, *made))
	}
	out.Data = append(out.Data, map[string]any{
		"taskType": "getTaskDetails", "taskUUID": t.Task, "request": []any{asked}, "response": said,
	})
}

// find is a known task and its output, nil if it has none yet.
func (s *Server) find(id string) (*task, *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	if t == nil || t.plan.gone {
		return nil, nil
	}
	return t, t.output
}
