package orchestrator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// MaxBody bounds the body of a request, in bytes. What is over it is not read.
const MaxBody = 1 << 20

// Request is the body of a create, by HTTP and by NATS.
type Request struct {
	Model    string            `json:"model"`
	Count    *int              `json:"count"` // absent = 1
	Input    json.RawMessage   `json:"input"` // a JSON object
	Provider string            `json:"provider"`
	Deadline string            `json:"deadline"` // a Go duration: "90s", "10m"
	Labels   map[string]string `json:"labels"`
}

// Long is what a provider may implement if some of its models take longer than
// a picture does.
type Long interface {
	// DefaultDeadline is how long a generation is given unless its request says.
	DefaultDeadline(model string, input json.RawMessage) time.Duration
}

const defaultDeadline = 10 * time.Minute

// parse reads and checks a request: what is wrong is a *Problem that names the
// field. The result is the first event but for its tasks, with the provider.
func (o *Orchestrator) parse(body []byte, now time.Time) (events.Requested, error) {
	var none events.Requested
	if len(body) > MaxBody {
		return none, problem(ProblemTooLarge, "body", fmt.Sprintf("at most %d bytes", MaxBody))
	}
	if len(body) > events.MaxRequest {
		return none, problem(ProblemTooLarge, "body", fmt.Sprintf("a request has at most %d bytes; large inputs belong in a file that the input names by URL", events.MaxRequest))
	}
	if !utf8.Valid(body) { // an input is kept and sent on as it came
		return none, problem(ProblemMalformed, "body", "is not UTF-8")
	}
	req, err := decodeRequest(body)
	if err != nil {
		return none, err
	}
	lane, err := o.laneOf(req.Provider)
	if err != nil {
		return none, err
	}
	r := events.Requested{Model: req.Model, ExpectedCount: 1, Provider: lane.name, Labels: req.Labels}
	if req.Count != nil {
		r.ExpectedCount = *req.Count
	}
	if r.ExpectedCount < 1 || r.ExpectedCount > events.MaxCount {
		return none, problem(ProblemInvalid, "body.count", fmt.Sprintf("must be from 1 to %d", events.MaxCount))
	}
	if r.Input, err = object(req.Input); err != nil {
		return none, err
	}
	if _, err := filesOf(r.Input); err != nil {
		return none, err
	}
	if err := checkLabels(req.Labels); err != nil {
		return none, err
	}
	var invalid *provider.Invalid
	if err := lane.Check(r.Model, r.Input, r.ExpectedCount); errors.As(err, &invalid) {
		return none, problem(ProblemInvalid, "body."+invalid.Field, invalid.Reason)
	} else if err != nil {
		return none, fmt.Errorf("check request: %w", err)
	}
	given, err := deadline(req.Deadline, lane, r)
	if err != nil {
		return none, err
	}
	r.Deadline = now.Add(given)
	r.Digest, err = digest(r, given)
	return r, err
}

func decodeRequest(body []byte) (Request, error) {
	var req Request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return req, problem(ProblemMalformed, "body", "something follows the JSON object")
		}
		if req.Model == "" {
			return req, problem(ProblemInvalid, "body.model", "is required")
		}
		if len(req.Input) == 0 {
			return req, problem(ProblemInvalid, "body.input", "is required")
		}
		return req, nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		field := "body"
		if wrong.Field != "" {
			field += "." + wrong.Field
		}
		return req, problem(ProblemInvalid, field, "is a JSON "+wrong.Value+", which does not fit here")
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return req, problem(ProblemInvalid, "body."+events.Cut(strings.Trim(name, `"`), 64), "is not a field of a request")
	}
	return req, problem(ProblemMalformed, "body", "is not a JSON object")
}

// object compacts the input, which must be a JSON object.
func object(raw json.RawMessage) (json.RawMessage, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || raw[0] != '{' {
		return nil, problem(ProblemInvalid, "body.input", "must be a JSON object")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return nil, problem(ProblemInvalid, "body.input", "must be a JSON object")
	}
	if b.Len() == 2 {
		return nil, problem(ProblemInvalid, "body.input", "is empty")
	}
	return b.Bytes(), nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > events.MaxLabels {
		return problem(ProblemInvalid, "body.labels", fmt.Sprintf("at most %d labels", events.MaxLabels))
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if len(k) < 1 || len(k) > events.MaxLabelKey || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return problem(ProblemInvalid, "body.labels", fmt.Sprintf("a key has 1 to %d of the characters a-z 0-9 _ . -", events.MaxLabelKey))
		}
		if len(labels[k]) > events.MaxLabel {
			return problem(ProblemInvalid, "body.labels."+k, fmt.Sprintf("at most %d bytes", events.MaxLabel))
		}
	}
	return nil
}

func deadline(text string, l *lane, r events.Requested) (time.Duration, error) {
	if text == "" {
		if long, ok := l.Provider.(Long); ok {
			return long.DefaultDeadline(r.Model, r.Input), nil
		}
		return defaultDeadline, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, problem(ProblemInvalid, "body.deadline", `must be a duration such as "90s" or "10m"`)
	}
	if d < events.MinDeadline || d > events.MaxDeadline {
		return 0, problem(ProblemInvalid, "body.deadline", fmt.Sprintf("must be from %s to %s", events.MinDeadline, events.MaxDeadline))
	}
	return d, nil
}

func (o *Orchestrator) laneOf(name string) (*lane, error) {
	if name == "" {
		return o.lanes[o.cfg.Providers[0].Name], nil
	}
	if l := o.lanes[name]; l != nil {
		return l, nil
	}
	return nil, problem(ProblemInvalid, "body.provider", "is not the name of a configured provider")
}

// digest names a request by its meaning: the order of keys and white space do
// not matter, so a client may encode it anew for each try.
func digest(r events.Requested, given time.Duration) (string, error) {
	var input any
	d := json.NewDecoder(bytes.NewReader(r.Input))
	d.UseNumber()
	if err := d.Decode(&input); err != nil {
		return "", problem(ProblemInvalid, "body.input", "must be a JSON object")
	}
	canonical, err := json.Marshal([]any{r.Model, r.ExpectedCount, input, r.Provider, given, r.Labels})
	if err != nil {
		return "", fmt.Errorf("digest request: %w", err)
	}
	return events.Digest(canonical), nil
}
