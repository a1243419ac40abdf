package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrMalformed is wrapped by every error of Decode: the commit's body is not
// one that this version can read.
var ErrMalformed = errors.New("malformed commit")

// ErrTooLarge is wrapped by Encode's error for a body over MaxCommit.
var ErrTooLarge = errors.New("commit too large")

// Encode is the body of a commit: {"at":…,"events":[{"type":…,…},…]}. The error
// wraps ErrTooLarge for a body over MaxCommit.
func Encode(at time.Time, evs []Event) ([]byte, error) {
	var fields bytes.Buffer
	enc := json.NewEncoder(&fields)
	enc.SetEscapeHTML(false) // a prompt full of < would grow sixfold
	b := make([]byte, 0, 512)
	b = append(b, `{"at":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","events":[`...)
	for i, e := range evs {
		if i > 0 {
			b = append(b, ',')
		}
		fields.Reset()
		if err := enc.Encode(e); err != nil {
			return nil, fmt.Errorf("encode %s: %w", e.Type(), err)
		}
		b = append(b, `{"type":"`...)
		b = append(b, e.Type()...)
		b = append(b, `",`...)
		b = append(b, bytes.TrimSpace(fields.Bytes())[1:]...)
	}
	b = append(b, `]}`...)
	if len(b) > MaxCommit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), MaxCommit)
	}
	return b, nil
}

// Decode reads what Encode wrote, by this or an earlier version: unknown fields
// are passed over, an unknown event type is an error. Errors wrap ErrMalformed.
func Decode(body []byte) (at time.Time, evs []Event, err error) {
	var quick struct {
		At     time.Time  `json:"at"`
		Events []anyEvent `json:"events"`
	}
	if json.Unmarshal(body, &quick) == nil && !quick.At.IsZero() && len(quick.Events) > 0 {
		evs = make([]Event, len(quick.Events))
		for i := range evs {
			if evs[i] = quick.Events[i].event(); evs[i] == nil {
				return decodeEach(body)
			}
		}
		return quick.At.UTC(), evs, nil
	}
	return decodeEach(body)
}

// DecodeLast is the last of the events that Decode returns, read alone: of a commit
// that completes it is the whole record, and most of the work. What is wrong with
// the events before it may go unseen. Errors wrap ErrMalformed.
func DecodeLast(body []byte) (Event, error) {
	if raw, ok := lastEvent(body); ok {
		var last anyEvent
		if json.Unmarshal(raw, &last) == nil {
			if e := last.event(); e != nil {
				return e, nil
			}
		}
	}
	_, evs, err := Decode(body)
	if err != nil {
		return nil, err
	}
	return evs[len(evs)-1], nil
}

// lastEvent is the text of the last event of a body in which, as Encode writes it,
// nothing but the events is an array or an object.
func lastEvent(body []byte) ([]byte, bool) {
	body, whole := bytes.CutSuffix(body, []byte("]}"))
	depth, last := 0, -1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			for i++; i < len(body) && body[i] != '"'; i++ {
				if body[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth == 1 && (last >= 0 || !bytes.HasSuffix(body[:i+1], []byte(`"events":[`))) {
				return nil, false
			}
			if depth == 2 {
				last = i
			}
			depth++
		case '}', ']':
			depth--
		}
	}
	return body[max(last, 0):], whole && last >= 0 && depth == 2
}

// anyEvent has the fields of all events but Tasks, which differs, so that a commit is
// read in one pass. If an event has a field that is of another type here, the
// pass fails, and decodeEach says what the commit is.
type anyEvent struct {
	Type  string          `json:"type"`
	Tasks json.RawMessage `json:"tasks"`

	Model         string            `json:"model"`
	Input         json.RawMessage   `json:"input"`
	ExpectedCount int               `json:"expected_count"`
	Provider      string            `json:"provider"`
	Deadline      time.Time         `json:"deadline"`
	Labels        map[string]string `json:"labels"`
	Digest        string            `json:"digest"`
	Rescues       ID                `json:"rescues"`

	Attempt  int        `json:"attempt"`
	By       string     `json:"by"`
	Until    time.Time  `json:"until"`
	Accepted []int      `json:"accepted"`
	Declined []Declined `json:"declined"`

	Source  string          `json:"source"`
	Results []Result        `json:"results"`
	Raw     json.RawMessage `json:"raw"`
	RawKey  string          `json:"raw_key"`

	Slot       int         `json:"slot"`
	Artifact   *Artifact   `json:"artifact"`
	Error      *Error      `json:"error"`
	Generation *Generation `json:"generation"`
}

// event is the event of the type that a says it is; nil if that cannot be said in one pass.
func (a *anyEvent) event() Event {
	switch a.Type {
	case Requested{}.Type():
		e := Requested{
			Model: a.Model, Input: a.Input, ExpectedCount: a.ExpectedCount, Provider: a.Provider,
			Deadline: a.Deadline, Labels: a.Labels, Digest: a.Digest, Rescues: a.Rescues,
		}
		if len(a.Tasks) > 0 && json.Unmarshal(a.Tasks, &e.Tasks) != nil {
			return nil
		}
		return e
	case Dispatching{}.Type():
		e := Dispatching{Attempt: a.Attempt, By: a.By, Until: a.Until}
		if len(a.Tasks) > 0 && json.Unmarshal(a.Tasks, &e.Tasks) != nil {
			return nil
		}
		return e
	case Dispatched{}.Type():
		return Dispatched{Attempt: a.Attempt, Accepted: a.Accepted, Declined: a.Declined}
	case Delivered{}.Type():
		return Delivered{Source: a.Source, Digest: a.Digest, Results: a.Results, Raw: a.Raw, RawKey: a.RawKey}
	case OutputSucceeded{}.Type():
		return OutputSucceeded{Slot: a.Slot, Artifact: orZero(a.Artifact)}
	case OutputFailed{}.Type():
		return OutputFailed{Slot: a.Slot, Error: orZero(a.Error)}
	case Completed{}.Type():
		if a.Generation != nil && a.Generation.ID != "" {
			return Completed{Error: a.Error, Generation: *a.Generation}
		}
	}
	return nil
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// decodeEach is Decode, event by event, with the error if there is one.
func decodeEach(body []byte) (at time.Time, evs []Event, err error) {
	var c struct {
		At     time.Time         `json:"at"`
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return at, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if c.At.IsZero() || len(c.Events) == 0 {
		return at, nil, fmt.Errorf("%w: no time or no event", ErrMalformed)
	}
	evs = make([]Event, len(c.Events))
	for i, raw := range c.Events {
		if evs[i], err = decodeEvent(raw); err != nil {
			return at, nil, fmt.Errorf("%w: event %d: %w", ErrMalformed, i, err)
		}
	}
	return c.At.UTC(), evs, nil
}

func decodeEvent(raw []byte) (Event, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	switch head.Type {
	case Requested{}.Type():
		return decodeAs[Requested](raw)
	case Dispatching{}.Type():
		return decodeAs[Dispatching](raw)
	case Dispatched{}.Type():
		return decodeAs[Dispatched](raw)
	case Delivered{}.Type():
		return decodeAs[Delivered](raw)
	case OutputSucceeded{}.Type():
		return decodeAs[OutputSucceeded](raw)
	case OutputFailed{}.Type():
		return decodeAs[OutputFailed](raw)
	case Completed{}.Type():
		e, err := decodeAs[Completed](raw)
		if err == nil && e.(Completed).Generation.ID == "" {
			err = errors.New("completed without the record")
		}
		return e, err
	}
	return nil, fmt.Errorf("unknown type %q", Cut(head.Type, 64))
}

func decodeAs[E Event](raw []byte) (Event, error) {
	var e E
	err := json.Unmarshal(raw, &e)
	return e, err
}

// Types is the value of a commit's types header: the event types in order.
func Types(evs []Event) string {
	names := make([]string, len(evs))
	for i, e := range evs {
		names[i] = e.Type()
	}
	return strings.Join(names, ",")
}

// Digest names a body by its content: 32 hex characters of its SHA-256. It
// tells a delivery that came twice from a new one, and a repeated request from
// another.
func Digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:16])
}

// Now is the present as commits record it: UTC, whole microseconds.
func Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
