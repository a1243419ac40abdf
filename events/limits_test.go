package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/genstream/genstream/events"
)

// worst has what JSON makes longest of, and what must not be cut apart.
const worst = "\u2028\x00\x1f\"\\\b\f\n\u2029<&>\x7f\ufffd\xff\xf0é界🦊e\u0301"

// encodedLen is how long the encoder makes s, without the quotes.
func encodedLen(t testing.TB, s string) int {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	return b.Len() - len("\"\"\n")
}

func TestCutKeepsWithinItsLimitAsEncoded(t *testing.T) {
	for _, unit := range []string{"a", "é", "界", "🦊", "\"", "\x00", "\u2028", "\xff", "<", worst} {
		s := strings.Repeat(unit, 200)
		for limit := encodedLen(t, events.CutMark); limit < 200; limit++ {
			got := events.Cut(s, limit)
			if n := encodedLen(t, got); n > limit {
				t.Fatalf("Cut(%q…, %d) is %d bytes as encoded", unit, limit, n)
			}
			kept, marked := strings.CutSuffix(got, events.CutMark)
			if !marked || !strings.HasPrefix(s, kept) {
				t.Fatalf("Cut(%q…, %d) = %q", unit, limit, got)
			}
			if utf8.ValidString(s) && !utf8.ValidString(got) {
				t.Fatalf("Cut(%q…, %d) = %q: cut inside a character", unit, limit, got)
			}
			if utf8.ValidString(unit) && encodedLen(t, got)+2*6 < limit && len([]rune(unit)) == 1 {
				t.Fatalf("Cut(%q…, %d) = %q leaves out what had room", unit, limit, got)
			}
		}
	}
}

func TestCutLeavesWhatFits(t *testing.T) {
	for _, s := range []string{"", "a", "a red fox", strings.Repeat("a", 64), strings.Repeat("界", 21), worst} {
		if got := events.Cut(s, 64); got != s && encodedLen(t, s) <= 56 {
			t.Errorf("Cut(%q) = %q", s, got)
		}
	}
	if got := events.Cut(strings.Repeat("a", 65), 64); !strings.HasSuffix(got, events.CutMark) || encodedLen(t, got) != 64 {
		t.Errorf("one too long becomes %q", got)
	}
}

func TestFitLetsEverythingBeStored(t *testing.T) {
	long := strings.Repeat(worst, 10_000)
	r := events.Fit(events.Result{
		Task: "t", URL: "https://a.example/" + long, Seed: strings.Repeat("9", 21), Metadata: json.RawMessage(`{"a":"` + strings.Repeat("x", 2000) + `"}`),
	})
	if r.URL != "" || r.Error == nil || r.Error.Code != events.CodeFetchForbid || r.Seed != "" || string(r.Metadata) != `{"cut":true}` {
		t.Errorf("result becomes %+v", r)
	}
	r = events.Fit(events.Result{Error: &events.Error{Code: long, Message: long}, Seed: "1e9", Metadata: json.RawMessage(`{broken`)})
	if encodedLen(t, r.Error.Code) > events.MaxCode || encodedLen(t, r.Error.Message) > events.MaxNote || r.Metadata != nil || r.Seed != "" {
		t.Errorf("result becomes %+v", r)
	}
	if _, err := events.Encode(noon, []events.Event{events.Delivered{Results: []events.Result{r}}}); err != nil {
		t.Error(err)
	}
	for _, fits := range []events.Result{
		{Task: "t", URL: "https://a.example/x", Seed: "18446744073709551615", Metadata: json.RawMessage(`{"a":1}`)},
		{Task: "t", Seed: "-5", File: &events.File{BlobKey: "k"}},
		{Task: "t", Error: &events.Error{Code: "c", Message: "m", Class: events.Safety}},
	} {
		if got := events.Fit(fits); fmt.Sprint(got.Error) != fmt.Sprint(fits.Error) || got.URL != fits.URL || got.Seed != fits.Seed || string(got.Metadata) != string(fits.Metadata) || got.File != fits.File {
			t.Errorf("%+v becomes %+v", fits, got)
		}
	}
}

// filled is n bytes as encoded, of the character that grows most.
func filled(t testing.TB, n int) string {
	unit := "\u2028" // 3 bytes, 6 as encoded; a control character grows from 1 to 6
	s := strings.Repeat(unit+"\x01\"", n/14)
	s += strings.Repeat("x", n-encodedLen(t, s))
	if got := encodedLen(t, s); got != n {
		t.Fatalf("%d bytes as encoded, want %d", got, n)
	}
	return s
}

func filledObject(t testing.TB, n int) json.RawMessage {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]string{"k": filled(t, n-len(`{"k":""}`))}); err != nil {
		t.Fatal(err)
	}
	return json.RawMessage(strings.TrimSpace(b.String()))
}

// largest is the largest legal generation: every field at its limit, and the
// worst that the encoder can make of it.
type largest struct {
	requested events.Requested
	results   []events.Result
	file      events.File
	failure   events.Error
}

func newLargest(t testing.TB) largest {
	l := largest{requested: events.Requested{
		ExpectedCount: events.MaxCount, Provider: strings.Repeat("p", 64), Deadline: noon.Add(events.MaxDeadline),
		Digest: events.Digest(nil), Labels: map[string]string{},
	}}
	// The request as its sender encoded it is MaxRequest long. He may write
	// U+2028 in 3 bytes, and a label then grows to twice that in the log.
	for i := range events.MaxLabels {
		l.requested.Labels[fmt.Sprintf("%0*d", events.MaxLabelKey, i)] = strings.Repeat("\u2028", events.MaxLabel/3)
	}
	rest := events.MaxRequest - len(`{"model":"","count":20,"input":,"provider":"","deadline":"24h0m0s","labels":{}}`) -
		len(l.requested.Provider) - events.MaxLabels*(events.MaxLabelKey+events.MaxLabel+len(`"":"",`))
	l.requested.Model = strings.Repeat("\u2028", rest/3/2) // a model may be as long: half of what is left
	l.requested.Input = json.RawMessage(`{"k":"` + strings.Repeat("\u2028", (rest/2-len(`{"k":""}`))/3) + `"}`)

	cost := int64(-1 << 63)
	for slot := range events.MaxCount {
		l.requested.Tasks = append(l.requested.Tasks, events.TaskID(fox, slot, 1))
		l.results = append(l.results, events.Fit(events.Result{
			Task: events.TaskID(fox, slot, 1), URL: filled(t, events.MaxURL), Seed: strings.Repeat("9", events.MaxSeed),
			Cost: &cost, Metadata: filledObject(t, events.MaxNote),
		}))
	}
	l.file = events.File{
		BlobKey:     "generations/" + string(fox) + "/19-" + strings.Repeat("f", 32) + ".jpeg",
		ContentType: "application/vnd.openxmlformats-officedocument.presentationml.presentation", // the longest that content can be detected as
		Size:        1<<63 - 1, SHA256: strings.Repeat("f", 64),
	}
	l.failure = events.Error{Code: filled(t, events.MaxCode), Message: filled(t, events.MaxNote), Class: events.Validation}
	return l
}

func (l largest) claim() events.Dispatching {
	e := events.Dispatching{Attempt: 1 << 31, By: strings.Repeat("f", 36), Until: events.Now()}
	for slot, task := range l.requested.Tasks {
		e.Tasks = append(e.Tasks, events.Task{Slot: slot, Try: 1, ID: task})
	}
	return e
}

// delivery has every result n times, as a body that says everything twice would.
func (l largest) delivery(t testing.TB, n int) events.Delivered {
	d := events.Delivered{Source: events.FromWebhook, Digest: events.Digest(nil), Raw: filledObject(t, events.MaxRaw)}
	for range n {
		d.Results = append(d.Results, l.results...)
	}
	return d
}

// end is the end of every slot and of the generation, in one commit.
func (l largest) end(g events.Generation, good bool) []events.Event {
	var evs []events.Event
	for slot, r := range l.results {
		if good {
			evs = append(evs, events.OutputSucceeded{Slot: slot, Artifact: events.Artifact{
				ID: events.ArtifactID(fox, slot), File: l.file, Seed: r.Seed, Cost: r.Cost, Metadata: r.Metadata, CreatedAt: events.Now(),
			}})
		} else {
			evs = append(evs, events.OutputFailed{Slot: slot, Error: l.failure})
		}
	}
	g = fold(g, evs...)
	done := events.Completed{}
	if !good {
		done.Error = &l.failure
	}
	done.Generation = events.Apply(g, done)
	return append(evs, done)
}

// TestLargestLegalGenerationFits: whatever is decided together about it can be
// written together, so that no limit ever keeps a generation from completing.
func TestLargestLegalGenerationFits(t *testing.T) {
	l := newLargest(t)
	g := events.Apply(events.Generation{ID: fox, At: events.Now()}, l.requested)
	again := events.Dispatched{Attempt: 1}
	for slot := range events.MaxCount {
		again.Declined = append(again.Declined, events.Declined{Slot: slot, Again: events.Now(), Error: l.failure})
	}
	for _, c := range []struct {
		name   string
		events []events.Event
	}{
		{"requested", []events.Event{l.requested}},
		{"requested, dispatching", []events.Event{l.requested, l.claim()}},
		{"dispatched, all put off", []events.Event{again}},
		{"delivered, all", []events.Event{l.delivery(t, 1)}},
		{"delivered, all twice", []events.Event{l.delivery(t, 2)}},
		{"all succeeded, completed", l.end(g, true)},
		{"all failed, completed", l.end(g, false)},
		{"delivered, dispatched, all failed, completed", append([]events.Event{l.delivery(t, 1), again}, l.end(g, false)...)},
		{"delivered, all succeeded, completed", append([]events.Event{l.delivery(t, 1)}, l.end(g, true)...)},
	} {
		body, err := events.Encode(events.Now(), c.events)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		t.Logf("%-46s %6d bytes, %2d %% of MaxCommit", c.name, len(body), 100*len(body)/events.MaxCommit)
		if _, back, err := events.Decode(body); err != nil || len(back) != len(c.events) {
			t.Errorf("%s: %d events come back, %v", c.name, len(back), err)
		}
	}
	g = fold(g, append([]events.Event{l.claim(), l.delivery(t, 1)}, l.end(g, true)...)...)
	if !g.Done() || g.ArtifactCount() != events.MaxCount {
		t.Errorf("done %v with %d artifacts", g.Done(), g.ArtifactCount())
	}
}

// TestLimitIsReallyALimit makes sure that the test above could fail.
func TestLimitIsReallyALimit(t *testing.T) {
	l := newLargest(t)
	if _, err := events.Encode(noon, []events.Event{l.delivery(t, 3)}); !errors.Is(err, events.ErrTooLarge) {
		t.Errorf("%v, want ErrTooLarge", err)
	}
}
