package events

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// View is a generation as readers are shown it, over HTTP and over NATS: the
// contract's form, with what is not set left out.
type View struct {
	ID            ID                `json:"id"`
	Model         string            `json:"model"`
	Input         json.RawMessage   `json:"input"`
	Provider      string            `json:"provider"`
	Labels        map[string]string `json:"labels,omitempty"`
	Rescues       ID                `json:"rescues,omitempty"`
	ExpectedCount int               `json:"expected_count"`
	CreatedAt     time.Time         `json:"created_at"`
	CompletedAt   time.Time         `json:"completed_at,omitzero"`
	Error         *ErrorView        `json:"error,omitempty"`
	Outputs       []OutputView      `json:"outputs"`
}

// OutputView is one slot of a View.
type OutputView struct {
	Slot     int           `json:"slot"`
	Artifact *ArtifactView `json:"artifact,omitempty"`
	Error    *ErrorView    `json:"error,omitempty"`
}

// ArtifactView is an artifact of a View.
type ArtifactView struct {
	ID          string      `json:"id"`
	BlobKey     string      `json:"blob_key"`
	ContentType string      `json:"content_type"`
	Size        int64       `json:"size"`
	SHA256      string      `json:"sha256"`
	Seed        string      `json:"seed,omitempty"` // decimal
	Cost        json.Number `json:"cost,omitempty"` // dollars, exact
	URL         string      `json:"url"`            // of the content, relative to the API's base
}

// ErrorView is an Error without what only a decision needs.
type ErrorView struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Public is g as readers are shown it.
func Public(g Generation) View {
	v := View{
		ID: g.ID, Model: g.Model, Input: g.Input, Provider: g.Provider, Labels: g.Labels, Rescues: g.Rescues,
		ExpectedCount: g.ExpectedCount, CreatedAt: g.CreatedAt, CompletedAt: g.CompletedAt,
		Error: g.Error.view(), Outputs: make([]OutputView, len(g.Outputs)),
	}
	for i, o := range g.Outputs {
		v.Outputs[i] = OutputView{Slot: o.Slot, Error: o.Error.view()}
		if a := o.Artifact; a != nil {
			v.Outputs[i].Artifact = &ArtifactView{
				ID: a.ID, BlobKey: a.BlobKey, ContentType: a.ContentType, Size: a.Size, SHA256: a.SHA256,
				Seed: a.Seed, URL: ContentURL(a.ID),
			}
			if a.Cost != nil {
				v.Outputs[i].Artifact.Cost = Dollars(*a.Cost)
			}
		}
	}
	return v
}

func (e *Error) view() *ErrorView {
	if e == nil {
		return nil
	}
	return &ErrorView{Code: e.Code, Message: e.Message}
}

// ContentURL is where the API serves an artifact's file, relative to its base.
func ContentURL(artifact string) string { return "/v1/artifacts/" + artifact + "/content" }

// Dollars writes billionths of a dollar as a decimal number of dollars, exactly.
func Dollars(billionths int64) json.Number {
	sign, size := "", uint64(billionths)
	if billionths < 0 {
		sign, size = "-", -size // two's complement: right for the smallest int64 as well
	}
	text := strconv.FormatUint(size/1e9, 10)
	if rest := size % 1e9; rest != 0 {
		digits := strconv.FormatUint(1e9+rest, 10)[1:]
		text += "." + strings.TrimRight(digits, "0")
	}
	return json.Number(sign + text)
}
