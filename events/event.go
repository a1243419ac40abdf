package events

import (
	"encoding/json"
	"time"
)

// Event is one thing that happened to one generation. The set is closed: the
// seven types of this file, each documented by its fields in doc.go.
type Event interface {
	// Type is the name under which the event is stored.
	Type() string
	event()
}

// Requested is always the first event: somebody was promised this generation.
type Requested struct {
	Model         string            `json:"model"`
	Input         json.RawMessage   `json:"input"` // a JSON object, as the requester wrote it, compacted
	ExpectedCount int               `json:"expected_count"`
	Provider      string            `json:"provider"` // name of the configured instance
	Deadline      time.Time         `json:"deadline"`
	Labels        map[string]string `json:"labels,omitempty"`
	Digest        string            `json:"digest"` // of the request; the same ID with another digest is refused
	Tasks         []string          `json:"tasks"`  // TaskID of the first try of each slot; of a rescue: the tasks that it adopts

	// Rescues is the generation whose last tasks this one adopts, for those of its
	// slots that got no artifact. A rescue buys nothing: it asks, and fetches.
	Rescues ID `json:"rescues,omitempty"`
}

// Dispatching is the claim that precedes every create call. Only the process
// life that won this append makes the call, and makes it once.
type Dispatching struct {
	Attempt int       `json:"attempt"` // number of this claim: 1, 2, 3 … of this generation
	By      string    `json:"by"`      // process life that calls
	Until   time.Time `json:"until"`   // the call has ended by then, however it went
	Tasks   []Task    `json:"tasks"`   // what the call asks for
}

// Task is one inference at the provider: one try of one slot.
type Task struct {
	Slot int    `json:"slot"`
	Try  int    `json:"try"` // 1 = first
	ID   string `json:"id"`  // TaskID(generation, Slot, Try)
}

// Dispatched is what the provider said to a claim: which slots it has taken,
// and which it has definitely not taken but may be asked for again. Slots that
// were refused for good get an OutputFailed instead.
type Dispatched struct {
	Attempt  int        `json:"attempt"`
	Accepted []int      `json:"accepted,omitempty"`
	Declined []Declined `json:"declined,omitempty"`
}

// Declined is a definite "not now" for one slot.
type Declined struct {
	Slot  int       `json:"slot"`
	Again time.Time `json:"again"` // not to be asked for before
	Error Error     `json:"error"`
}

// Delivered is something that the provider told us, as parsed and as it came.
type Delivered struct {
	Source  string          `json:"source"`            // webhook, poll or create
	Digest  string          `json:"digest"`            // Digest of the body as received
	Results []Result        `json:"results,omitempty"` // in the order of the body
	Raw     json.RawMessage `json:"raw,omitempty"`     // the body, inline files replaced by a mark; absent if too long
	RawKey  string          `json:"raw_key,omitempty"` // blob key of the body where Raw is absent
}

// The sources of a delivery.
const (
	FromWebhook = "webhook"
	FromPoll    = "poll"
	FromCreate  = "create"
)

// Result is what a delivery says of one task: exactly one of URL, File and Error is set.
type Result struct {
	Task     string          `json:"task"`
	URL      string          `json:"url,omitempty"`  // where the file can be fetched, for a while
	File     *File           `json:"file,omitempty"` // the file came inside the delivery and is in the bucket already
	Seed     string          `json:"seed,omitempty"` // decimal; JavaScript loses it above 2^53
	Cost     *int64          `json:"cost,omitempty"` // billionths of a dollar
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Error    *Error          `json:"error,omitempty"`
}

// File is a file in the bucket.
type File struct {
	BlobKey     string `json:"blob_key"`
	ContentType string `json:"content_type"` // by content, never by what the provider says
	Size        int64  `json:"size"`         // bytes
	SHA256      string `json:"sha256"`       // lower-case hex
}

// OutputSucceeded ends a slot with an artifact whose file is in the bucket and on disk.
type OutputSucceeded struct {
	Slot     int      `json:"slot"`
	Artifact Artifact `json:"artifact"`
}

// OutputFailed ends a slot without one.
type OutputFailed struct {
	Slot  int   `json:"slot"`
	Error Error `json:"error"`
}

// Completed is always the last event. It carries the whole folded record, so
// that a finished generation is one read for everybody.
type Completed struct {
	Error      *Error     `json:"error,omitempty"` // set exactly if there is no artifact
	Generation Generation `json:"generation"`
}

// Type implements Event.
func (Requested) Type() string { return "requested" }

// Type implements Event.
func (Dispatching) Type() string { return "dispatching" }

// Type implements Event.
func (Dispatched) Type() string { return "dispatched" }

// Type implements Event.
func (Delivered) Type() string { return "delivered" }

// Type implements Event.
func (OutputSucceeded) Type() string { return "output_succeeded" }

// Type implements Event.
func (OutputFailed) Type() string { return "output_failed" }

// Type implements Event.
func (Completed) Type() string { return "completed" }

func (Requested) event()       {}
func (Dispatching) event()     {}
func (Dispatched) event()      {}
func (Delivered) event()       {}
func (OutputSucceeded) event() {}
func (OutputFailed) event()    {}
func (Completed) event()       {}
