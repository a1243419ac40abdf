package api

import (
	"encoding/json"
	"time"

	"github.com/genstream/genstream/events"
)

// The types of this file are what the OpenAPI document says of bodies. Answers
// are not made from them but written where they are read (a test decodes every
// answer into its type here, and refuses what the type does not have).

type request struct {
	Model    string            `json:"model" example:"runware:101@1" doc:"the provider's name for it"`
	Input    map[string]any    `json:"input" doc:"what the model is given; the provider's own fields. A seed becomes seed + slot"`
	Count    int               `json:"count,omitempty" default:"1" minimum:"1" maximum:"20" doc:"how many outputs"`
	Provider string            `json:"provider,omitempty" doc:"name of a configured provider; the first one unless said"`
	Deadline string            `json:"deadline,omitempty" example:"10m" doc:"how long to try, 1s to 24h; then it completes with what there is"`
	Labels   map[string]string `json:"labels,omitempty" doc:"up to 8; key [a-z0-9_.-]{1,32}, value up to 128 bytes; never sent to the provider"`
}

type created struct {
	ID       events.ID `json:"id" format:"uuid"`
	Position uint64    `json:"position" doc:"stream sequence of its first commit"`
}

type uploaded struct {
	File        string `json:"file" example:"inputs/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" doc:"what an input names it by"`
	ContentType string `json:"content_type" doc:"by content"`
	Size        int64  `json:"size" doc:"bytes"`
}

type generation struct {
	ID            string            `json:"id" format:"uuid"`
	Model         string            `json:"model"`
	Input         json.RawMessage   `json:"input" doc:"a JSON object, as requested"`
	Provider      string            `json:"provider"`
	Labels        map[string]string `json:"labels,omitempty"`
	Rescues       string            `json:"rescues,omitempty" format:"uuid" doc:"the generation whose tasks it adopted; it bought none of its own"`
	ExpectedCount int               `json:"expected_count"`
	CreatedAt     time.Time         `json:"created_at"`
	CompletedAt   time.Time         `json:"completed_at,omitzero" doc:"absent: it is still open"`
	Error         *failure          `json:"error,omitempty" doc:"present: there is no artifact"`
	Outputs       []output          `json:"outputs" nullable:"false" doc:"one per slot, in order"`
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type output struct {
	Slot     int       `json:"slot"`
	Artifact *artifact `json:"artifact,omitempty"`
	Error    *failure  `json:"error,omitempty"`
}

type artifact struct {
	ID          string  `json:"id" doc:"generation ID, a dash, slot"`
	BlobKey     string  `json:"blob_key" doc:"of the file in the bucket"`
	ContentType string  `json:"content_type" doc:"by content"`
	Size        int64   `json:"size" doc:"bytes"`
	SHA256      string  `json:"sha256"`
	Seed        string  `json:"seed,omitempty" doc:"decimal"`
	Cost        float64 `json:"cost,omitempty" doc:"dollars, an exact decimal number"`
	URL         string  `json:"url" doc:"of the file, relative to the API"`
}

type eventList struct {
	Events []event `json:"events" nullable:"false"`
}

type event struct {
	GenerationID string    `json:"generation_id" format:"uuid"`
	Sequence     uint64    `json:"sequence" doc:"of the commit in the stream"`
	Version      uint64    `json:"version" doc:"of the commit: 1, 2, 3 … of the generation"`
	At           time.Time `json:"at"`
	Type         string    `json:"type" enum:"requested,dispatching,dispatched,delivered,output_succeeded,output_failed,completed"`
	_            struct{}  `additionalProperties:"true"` // the fields of the type
}

type generationPage struct {
	Generations []generationRow `json:"generations" nullable:"false"`
	Next        string          `json:"next,omitempty" doc:"cursor of the next page; absent: this is the last one"`
}

type generationRow struct {
	ID            string          `json:"id" format:"uuid"`
	Model         string          `json:"model"`
	Input         json.RawMessage `json:"input"`
	ArtifactCount int             `json:"artifact_count" doc:"0: it failed"`
	CreatedAt     time.Time       `json:"created_at"`
	CompletedAt   time.Time       `json:"completed_at"`
}

type artifactPage struct {
	Artifacts []artifactRow `json:"artifacts" nullable:"false"`
	Next      string        `json:"next,omitempty" doc:"cursor of the next page; absent: this is the last one"`
}

type artifactRow struct {
	ID           string          `json:"id"`
	GenerationID string          `json:"generation_id" format:"uuid"`
	Model        string          `json:"model"`
	BlobKey      string          `json:"blob_key"`
	ContentType  string          `json:"content_type"`
	Seed         string          `json:"seed,omitempty" doc:"decimal"`
	Cost         float64         `json:"cost,omitempty" doc:"dollars, an exact decimal number"`
	Metadata     json.RawMessage `json:"metadata,omitempty" doc:"what the provider said of it"`
	CreatedAt    time.Time       `json:"created_at"`
	URL          string          `json:"url" doc:"of the file, relative to the API"`
}

type changeList struct {
	Generations []change `json:"generations" nullable:"false" doc:"in the order in which they entered the catalog"`
	Next        uint64   `json:"next" doc:"what to send as after"`
}

type change struct {
	ID string `json:"id" format:"uuid"`
}

type counts struct {
	Generations int64   `json:"generations"`
	Failed      int64   `json:"failed" doc:"those without an artifact"`
	Artifacts   int64   `json:"artifacts"`
	Cost        float64 `json:"cost" doc:"dollars, an exact decimal number"`
}

type openList struct {
	Generations []generation `json:"generations" nullable:"false" doc:"oldest first"`
}

type health struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons" nullable:"false" doc:"why not; of a process that works, what is wrong and mends itself, such as a full disk"`
}
