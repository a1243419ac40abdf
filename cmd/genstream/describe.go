package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/genstream/genstream/events"
)

// describe tells one event, as the API gives it, in a line or more for a person.
func describe(raw []byte) []string {
	var e struct {
		Type       string             `json:"type"`
		Model      string             `json:"model"`
		Count      int                `json:"expected_count"`
		Provider   string             `json:"provider"`
		Deadline   time.Time          `json:"deadline"`
		Attempt    int                `json:"attempt"`
		Tasks      json.RawMessage    `json:"tasks"`
		Accepted   []int              `json:"accepted"`
		Declined   []events.Declined  `json:"declined"`
		Source     string             `json:"source"`
		Results    []events.Result    `json:"results"`
		Slot       int                `json:"slot"`
		Artifact   *events.Artifact   `json:"artifact"`
		Error      *events.Error      `json:"error"`
		Generation *events.Generation `json:"generation"`
		Rescues    events.ID          `json:"rescues"`
	}
	if err := json.Unmarshal(raw, &e); err != nil {
		return []string{"an event that this version cannot read"}
	}
	switch e.Type {
	case "requested":
		if e.Rescues != "" {
			return []string{fmt.Sprintf("requested    %s, %d missed by %s, from %s", e.Model, e.Count, e.Rescues, e.Provider)}
		}
		return []string{fmt.Sprintf("requested    %s, %d wanted, from %s", e.Model, e.Count, e.Provider)}
	case "dispatching":
		return []string{fmt.Sprintf("dispatching  attempt %d", e.Attempt)}
	case "dispatched":
		lines := []string{}
		if len(e.Accepted) > 0 {
			lines = append(lines, fmt.Sprintf("dispatched   %d accepted", len(e.Accepted)))
		}
		for _, d := range e.Declined {
			lines = append(lines, fmt.Sprintf("declined     output %d for now: %s", d.Slot, d.Error.Code))
		}
		return lines
	case "delivered":
		good := 0
		for _, r := range e.Results {
			if r.Error == nil {
				good++
			}
		}
		return []string{fmt.Sprintf("delivered    by %s: %d good, %d failed", e.Source, good, len(e.Results)-good)}
	case "output_succeeded":
		cost := ""
		if e.Artifact.Cost != nil {
			cost = "  $" + string(events.Dollars(*e.Artifact.Cost))
		}
		return []string{fmt.Sprintf("output %d     %s, %d bytes%s", e.Slot, e.Artifact.ContentType, e.Artifact.Size, cost)}
	case "output_failed":
		return []string{fmt.Sprintf("output %d     failed: %s: %s", e.Slot, e.Error.Code, e.Error.Message)}
	case "completed":
		n := 0
		if e.Generation != nil {
			n = e.Generation.ArtifactCount()
		}
		return []string{fmt.Sprintf("completed    %d artifacts", n)}
	}
	return []string{e.Type}
}
