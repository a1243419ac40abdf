package events

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// The limits fit together: the largest legal request, with every output at its
// limit and the worst JSON escaping, still completes in one commit (a test in
// this package builds it).
const (
	MaxCount    = 20        // outputs of one generation
	MaxRequest  = 32 << 10  // bytes of a request as encoded
	MaxNote     = 1 << 10   // bytes of one output's metadata, and of one error's message, as encoded
	MaxRaw      = 16 << 10  // bytes of a raw delivery kept in the log; a longer one goes to the bucket
	MaxCommit   = 256 << 10 // bytes of a commit's body
	MaxURL      = 4 << 10   // bytes of an output's URL, as encoded
	MaxCode     = 64        // bytes of an error's code, as encoded
	MaxSeed     = 20        // digits of a seed
	MaxTries    = 8         // tries of one slot that the log can hold; the orchestrator's own limit is lower
	MaxSeen     = 96        // different deliveries kept for one generation
	MaxFiles    = 16        // places of one input that name an uploaded file
	MaxLabels   = 8         // labels of one generation
	MaxLabelKey = 32        // bytes of a label's key, [a-z0-9_.-]
	MaxLabel    = 128       // bytes of a label's value

	MinDeadline = time.Second
	MaxDeadline = 24 * time.Hour
)

// CutMark ends a text that was cut to its limit; the whole is in the raw delivery.
const CutMark = "…[cut]"

// Cut returns s in at most limit bytes as JSON encodes it, with CutMark at the end if
// anything was left out. It never cuts inside a character.
func Cut(s string, limit int) string {
	if encodedLen(s) <= limit {
		return s
	}
	room := limit - encodedLen(CutMark)
	for i, r := range s {
		n := encodedLen(string(r))
		if n > room {
			return s[:i] + CutMark
		}
		room -= n
	}
	return s + CutMark
}

// Fit brings what a provider said of one task within the limits, so that its
// event can be stored whatever it said: texts are cut with a mark, and what would
// mean nothing when cut is left out. The whole is in the raw delivery. Fitting
// what fits changes nothing.
func Fit(r Result) Result {
	if encodedLen(r.URL) > MaxURL {
		r.URL, r.Error = "", &Error{Code: CodeFetchForbid, Message: "the output's URL is too long", Class: Inference}
	}
	if r.Error != nil {
		e := r.Error.Fit()
		r.Error = &e
	}
	if digits := strings.TrimPrefix(r.Seed, "-"); len(r.Seed) > MaxSeed || strings.Trim(digits, "0123456789") != "" {
		r.Seed = ""
	}
	if r.Metadata != nil {
		var compact bytes.Buffer
		switch err := json.Compact(&compact, r.Metadata); {
		case err != nil:
			r.Metadata = nil
		case compact.Len() > MaxNote:
			r.Metadata = json.RawMessage(`{"cut":true}`)
		default:
			r.Metadata = compact.Bytes()
		}
	}
	return r
}

// Fit is e within the limits.
func (e Error) Fit() Error {
	e.Code, e.Message = Cut(e.Code, MaxCode), Cut(e.Message, MaxNote)
	return e
}

// encodedLen is the length of s inside the quotes of encoding/json's output,
// without the escaping for HTML.
func encodedLen(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == '\f':
			n += 2
		case r < 0x20 || r == '\u2028' || r == '\u2029' || r == '\ufffd':
			n += 6
		default:
			n += len(string(r))
		}
	}
	return n
}
