package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
)

// moment is one event of a generation as the page tells it.
type moment struct {
	Sequence uint64
	Since    string // since the request
	At       time.Time
	Type     string
	Tone     string // good, bad or empty
	Text     string
	Detail   string
}

func timeline(history []stream.Entry) ([]moment, error) {
	var all []moment
	var start time.Time
	for _, e := range history {
		c, err := e.Decode()
		if err != nil {
			return nil, err
		}
		if start.IsZero() {
			start = c.At
		}
		for _, ev := range c.Events {
			m := inWords(ev)
			m.Sequence, m.At, m.Type, m.Since = c.Sequence, c.At, ev.Type(), "+"+shortOf(c.At.Sub(start))
			all = append(all, m)
		}
	}
	return all, nil
}

// inWords is an event in words.
func inWords(e events.Event) moment {
	switch e := e.(type) {
	case events.Requested:
		if e.Rescues != "" {
			return moment{Text: countOf(e.ExpectedCount, "output") + " missed by " + string(e.Rescues), Detail: "asked for once more at " + e.Provider + "; nothing is bought"}
		}
		return moment{Text: countOf(e.ExpectedCount, "output") + " wanted of " + e.Model, Detail: "from " + e.Provider + ", until " + e.Deadline.UTC().Format("15:04:05")}
	case events.Dispatching:
		return moment{Text: fmt.Sprintf("call %d to the provider", e.Attempt), Detail: countOf(len(e.Tasks), "task")}
	case events.Dispatched:
		return dispatched(e)
	case events.Delivered:
		return delivered(e)
	case events.OutputSucceeded:
		a := e.Artifact
		detail := []string{a.ContentType, bytesOf(a.Size)}
		if a.Seed != "" {
			detail = append(detail, "seed "+a.Seed)
		}
		if a.Cost != nil {
			detail = append(detail, "$"+events.Dollars(*a.Cost).String())
		}
		return moment{Text: fmt.Sprintf("output %d is there", e.Slot+1), Detail: strings.Join(detail, " · "), Tone: "good"}
	case events.OutputFailed:
		return moment{Text: fmt.Sprintf("output %d failed", e.Slot+1), Detail: e.Error.Code + ": " + e.Error.Message, Tone: "bad"}
	case events.Completed:
		return completed(e)
	}
	return moment{}
}

func dispatched(e events.Dispatched) moment {
	m := moment{Text: "the provider took " + countOf(len(e.Accepted), "task")}
	for _, d := range e.Declined {
		m.Tone = "bad"
		m.Detail += fmt.Sprintf("not now for output %d (%s: %s) ", d.Slot+1, d.Error.Code, d.Error.Message)
	}
	if len(e.Accepted) == 0 && len(e.Declined) > 0 {
		m.Text = "the provider took nothing yet"
	}
	return m
}

func delivered(e events.Delivered) moment {
	m := moment{Text: map[string]string{
		events.FromWebhook: "a webhook came",
		events.FromPoll:    "asked the provider",
		events.FromCreate:  "the create call answered",
	}[e.Source]}
	good := 0
	for _, r := range e.Results {
		if r.Error == nil {
			good++
		}
	}
	parts := []string{}
	if good > 0 {
		parts = append(parts, countOf(good, "result"))
	}
	if bad := len(e.Results) - good; bad > 0 {
		parts = append(parts, countOf(bad, "error"))
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing in it for us")
	}
	m.Detail = strings.Join(parts, " and ")
	return m
}

func completed(e events.Completed) moment {
	n := e.Generation.ArtifactCount()
	m := moment{Text: "completed with " + countOf(n, "artifact"), Tone: "good"}
	if e.Error != nil {
		m.Tone, m.Detail = "bad", e.Error.Code+": "+e.Error.Message
	} else if cost := costOf(e.Generation); cost != "" {
		m.Detail = cost
	}
	return m
}

// promptOf is what a person would call the input.
func promptOf(input json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(input, &fields) == nil {
		for _, name := range []string{"positivePrompt", "prompt", "text", "speech", "lyrics"} {
			var text string
			if json.Unmarshal(fields[name], &text) == nil && text != "" {
				return text
			}
		}
	}
	return events.Cut(string(input), 200)
}

// setting is one field of an input.
type setting struct{ Name, Value string }

// fieldsOf is the input as a table, in the order of the names.
func fieldsOf(input json.RawMessage) []setting {
	var fields map[string]json.RawMessage
	if json.Unmarshal(input, &fields) != nil {
		return nil
	}
	all := make([]setting, 0, len(fields))
	for name, raw := range fields {
		value := string(raw)
		var text string
		if json.Unmarshal(raw, &text) == nil {
			value = text
		}
		all = append(all, setting{Name: name, Value: events.Cut(value, 2000)})
	}
	slices.SortFunc(all, func(a, b setting) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func bytesOf(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}

func shortOf(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
