// Package provider is the cut between the orchestrator and the services that
// make pictures. A provider is a configured instance (name, kind, address, key,
// limits); this package says what the orchestrator asks of one, and what each
// answer commits it to.
//
// # Answers are facts about tasks
//
// The orchestrator makes the task IDs, one per output slot, so that it can ask
// about a call whose answer it never saw. Whatever a provider says (in the
// answer to a create call, to a question, or by webhook) is brought into one
// form: results of tasks, and definite words about which tasks it has. Nothing
// is ever concluded from silence.
//
// # Bodies
//
// Answers may hold whole files as base64. Every body is read through
// [github.com/genstream/genstream/orchestrator/provider/inline], which takes the files out while it streams, so that a provider parses small JSON only, and
// Parse is a pure function.
//
// # A new provider
//
// is one folder with a client, its wire format and a call of providertest.Run.
package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// Provider is one configured instance. Its methods may be called concurrently.
type Provider interface {
	// Check refuses a request that can never be sent: the form of a model name
	// is the provider's, and so are the input's keys that genstream itself rests
	// on. It does no I/O. A refusal is an *Invalid.
	Check(model string, input json.RawMessage, count int) error

	// Create makes exactly one create call, for all tasks of it. The call ends
	// with ctx. A nil error means that the provider answered task by task. Any
	// other outcome is an *Error, whose Kind says whether the tasks can have been
	// taken.
	Create(ctx context.Context, call Call) (Answer, error)

	// Look asks what has become of tasks. A task about which the answer says
	// nothing definite is in none of its lists. Errors are *Error.
	Look(ctx context.Context, tasks []string) (Answer, error)

	// Parse reads the body of a webhook after inline files were taken out. It is
	// pure. An error means that the body is not one of this provider's.
	Parse(body []byte) ([]Result, error)
}

// Call is one create call.
type Call struct {
	Generation events.ID
	Model      string
	Input      json.RawMessage // a JSON object; a file that it named is an address or a data: URI by now
	Tasks      []events.Task   // a seed in the input becomes seed + slot
	Webhook    string          // where results go; empty: they will be asked for
	Deadline   time.Time       // of the generation
}

// Answer is what a provider said, about tasks by their IDs. Each task is in at
// most one of Accepted, Refused, Declined and Unknown.
type Answer struct {
	Accepted []string             // it has them ("duplicate task" means this too)
	Refused  map[string]ErrorOnce // definitely not, and never as they are
	Declined map[string]ErrorOnce // definitely not, but they may be sent again
	Unknown  []string             // Look only: it definitely knows no such task
	Results  []Result             // finished ones, good or bad; implies accepted
	Reply    inline.Reply         // the body as it came; the caller closes it
}

// ErrorOnce is a definite word about one task.
type ErrorOnce struct {
	Error events.Error
	After time.Duration // Declined only: not to be sent again before; 0 = unsaid
}

// Result is what a provider says of one task that is finished. Exactly one of
// URL, Inline and Error is set.
type Result struct {
	Task     string
	URL      string
	Inline   int // 1-based index into the reply's files
	Seed     string
	Cost     *int64 // billionths of a dollar
	Metadata json.RawMessage
	Error    *events.Error
}

// Kind says what a failed call means for its tasks.
type Kind int

// The kinds of a failed call. Only Ambiguous leaves open whether the provider
// has taken the tasks: it must be asked before anything else is sent.
const (
	Ambiguous   Kind = iota // no answer, or one that does not tell (a 5xx)
	Refused                 // definitely not taken, and never as it is
	Busy                    // definitely not taken, but it may be sent again
	Account                 // definitely not taken; about the account (auth, quota, suspended), not about this request
	Unreachable             // definitely not taken: it was never sent
)

// Error is the failure of a whole call.
type Error struct {
	Kind  Kind
	After time.Duration // Busy: not to be sent again before; 0 = unsaid
	Err   events.Error
	Cause error // nil, or what the transport said; never shown to a user
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Err.Code, e.Err.Message, e.Cause)
	}
	return e.Err.Code + ": " + e.Err.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// AsError is err as an *Error; an error of any other type is Ambiguous.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Ambiguous, Cause: err, Err: events.Error{
		Code: "call", Message: "the call to the provider failed", Class: events.Connection,
	}}
}

// Invalid is a request that the provider can never serve.
type Invalid struct {
	Field  string // JSON path in the request: "model", "input.webhookURL"
	Reason string // for the requester
}

func (e *Invalid) Error() string { return e.Field + ": " + e.Reason }
