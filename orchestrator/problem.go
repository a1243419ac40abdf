package orchestrator

import (
	"encoding/json"
	"net/http"
	"strings"
)

// Problem is why a request was not accepted, in the form of RFC 9457
// (application/problem+json). It is the whole of what a requester is told.
type Problem struct {
	Type   string  `json:"type"`   // "urn:genstream:problem:" + kind; docs/problems.md has them all
	Title  string  `json:"title"`  // the same for every problem of the kind
	Code   int     `json:"status"` // of HTTP, under the name that the RFC gives it
	Detail string  `json:"detail,omitempty"`
	Errors []Field `json:"errors,omitempty"`
}

// Field is one field of the request and what is wrong with it.
type Field struct {
	Message  string `json:"message"`
	Location string `json:"location"` // "body.count"
}

func (p *Problem) Error() string {
	if len(p.Errors) > 0 {
		return p.Title + ": " + p.Errors[0].Location + " " + p.Errors[0].Message
	}
	return p.Title + ": " + p.Detail
}

// JSON is the body of the answer.
func (p *Problem) JSON() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and a number
	}
	return b
}

// kind is the last part of the problem's type.
func (p *Problem) kind() string { return strings.TrimPrefix(p.Type, problemType) }

// where is the field that is wrong, empty if it is none. No value is in it.
func (p *Problem) where() string {
	if len(p.Errors) == 0 {
		return ""
	}
	return p.Errors[0].Location
}

const problemType = "urn:genstream:problem:"

// ProblemKind is the last part of a problem's type.
type ProblemKind string

// The kinds of problem that a create can meet.
const (
	ProblemMalformed   ProblemKind = "malformed"   // 400: the body cannot be read
	ProblemInvalid     ProblemKind = "invalid"     // 422: a field is not acceptable
	ProblemTooLarge    ProblemKind = "too-large"   // 413
	ProblemReused      ProblemKind = "reused"      // 422: the ID (or key) belongs to another request
	ProblemBusy        ProblemKind = "busy"        // 503: too much is open, or being taken at this moment
	ProblemNoRoom      ProblemKind = "no-room"     // 503: the disk or the log is full
	ProblemUnavailable ProblemKind = "unavailable" // 503: the log takes no append just now
	ProblemNotFound    ProblemKind = "not-found"   // 404
	ProblemInternal    ProblemKind = "internal"    // 500
)

func problem(kind ProblemKind, location, message string) *Problem {
	p := &Problem{Type: problemType + string(kind)}
	switch kind {
	case ProblemMalformed:
		p.Title, p.Code = "The body cannot be read", http.StatusBadRequest
	case ProblemInvalid:
		p.Title, p.Code = "A field is not acceptable", http.StatusUnprocessableEntity
	case ProblemTooLarge:
		p.Title, p.Code = "The request is too large", http.StatusRequestEntityTooLarge
	case ProblemReused:
		p.Title, p.Code = "The ID belongs to another request", http.StatusUnprocessableEntity
	case ProblemBusy:
		p.Title, p.Code = "Too much is under way", http.StatusServiceUnavailable
	case ProblemNoRoom:
		p.Title, p.Code = "There is no room for more", http.StatusServiceUnavailable
	case ProblemUnavailable:
		p.Title, p.Code = "The log is not available", http.StatusServiceUnavailable
	case ProblemNotFound:
		p.Title, p.Code = "There is no such generation", http.StatusNotFound
	default:
		p.Title, p.Code = "Something went wrong here", http.StatusInternalServerError
	}
	if location != "" {
		p.Errors = []Field{{Message: message, Location: location}}
	}
	p.Detail = message
	return p
}
