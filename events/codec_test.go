package events_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

var update = flag.Bool("update", false, "write testdata/<type>.json anew")

// noon is when most of the tests' events happen.
var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// examples has one event of each type, with every field set.
func examples() []events.Event {
	cost := int64(600_000)
	file := events.File{
		BlobKey: "generations/" + string(fox) + "/0-9f86d081884c7d65.png", ContentType: "image/png", Size: 48_213,
		SHA256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
	}
	artifact := events.Artifact{
		ID: events.ArtifactID(fox, 0), File: file, Seed: "18446744073709551615", Cost: &cost,
		Metadata: json.RawMessage(`{"steps":28}`), CreatedAt: noon.Add(3500 * time.Millisecond),
	}
	failed := events.Error{Code: "timeoutProvider", Message: "no answer \u2028from <host> & co", Class: events.Timeout}
	requested := events.Requested{
		Model: "runware:101@1", Input: json.RawMessage(`{"positivePrompt":"a red fox, 100 % <b>","width":1024}`), ExpectedCount: 3,
		Provider: "runware", Deadline: noon.Add(10 * time.Minute), Labels: map[string]string{"user": "42", "team": "späße"},
		Digest: events.Digest([]byte("request")), Tasks: []string{events.TaskID(fox, 0, 1), events.TaskID(fox, 1, 1), events.TaskID(fox, 2, 1)},
	}
	return []events.Event{
		requested,
		events.Dispatching{
			Attempt: 1, By: "0b9e8a52-3f6f-4a5e-8b0e-3a8f5f6f7c11", Until: noon.Add(35 * time.Second),
			Tasks: []events.Task{{Slot: 0, Try: 1, ID: requested.Tasks[0]}, {Slot: 1, Try: 2, ID: events.TaskID(fox, 1, 2)}},
		},
		events.Dispatched{
			Attempt: 1, Accepted: []int{0, 2},
			Declined: []events.Declined{{Slot: 1, Again: noon.Add(4 * time.Second), Error: events.Error{Code: "rateLimitExceeded", Message: "too many", Class: events.RateLimit}}},
		},
		events.Delivered{
			Source: events.FromWebhook, Digest: events.Digest([]byte("body")),
			Results: []events.Result{
				{Task: requested.Tasks[0], URL: "https://im.example/image/a?x=1&y=2", Seed: "18446744073709551615", Cost: &cost, Metadata: json.RawMessage(`{"steps":28}`)},
				{Task: requested.Tasks[1], Error: &failed},
				{Task: requested.Tasks[2], File: &file},
			},
			Raw: json.RawMessage(`{"data":[{"taskType":"imageInference"}]}`), RawKey: "deliveries/" + string(fox) + "/1.json",
		},
		events.OutputSucceeded{Slot: 0, Artifact: artifact},
		events.OutputFailed{Slot: 1, Error: failed},
		events.Completed{Error: &failed, Generation: events.Generation{
			ID: fox, Model: requested.Model, Input: requested.Input, Provider: requested.Provider, Labels: requested.Labels,
			ExpectedCount: 2, Digest: requested.Digest, CreatedAt: noon, Deadline: requested.Deadline, CompletedAt: noon.Add(4 * time.Second),
			Error: &failed, Outputs: []events.Output{{Slot: 0, Artifact: &artifact}, {Slot: 1, Error: &failed}},
		}},
	}
}

// TestGoldenCommits holds the code to what is stored: what is written today is
// what was written when the file was made, and reads back as it was meant.
func TestGoldenCommits(t *testing.T) {
	for _, e := range examples() {
		t.Run(e.Type(), func(t *testing.T) {
			got, err := events.Encode(noon, []events.Event{e})
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join("testdata", e.Type()+".json")
			if *update {
				if err := os.WriteFile(name, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if want = bytes.TrimSuffix(want, []byte("\n")); !bytes.Equal(got, want) {
				t.Errorf("encoded\n%s\nstored form is\n%s", got, want)
			}
			at, evs, err := events.Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !at.Equal(noon) || at.Location() != time.UTC || len(evs) != 1 || !reflect.DeepEqual(evs[0], e) {
				t.Errorf("decoded %v %+v, want %v %+v", at, evs, noon, e)
			}
		})
	}
}

// TestEveryGoldenIsRead is the compatibility promise: also files whose type has
// changed since (testdata/<type>-<what>.json) keep being read.
func TestEveryGoldenIsRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < len(examples()) {
		t.Fatalf("%d files, %v; want one for each type", len(files), err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, evs, err := events.Decode(body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if base := filepath.Base(name); !strings.HasPrefix(base, evs[0].Type()) {
			t.Errorf("%s holds %s", name, evs[0].Type())
		}
	}
}

func TestEventsDecidedTogetherStayTogether(t *testing.T) {
	want := examples()
	body, err := events.Encode(noon.Add(time.Microsecond), want)
	if err != nil {
		t.Fatal(err)
	}
	at, got, err := events.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if !at.Equal(noon.Add(time.Microsecond)) || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %v %+v", at, got)
	}
	if types := events.Types(got); types != "requested,dispatching,dispatched,delivered,output_succeeded,output_failed,completed" {
		t.Errorf("types are %s", types)
	}
}

func TestDecodeReadsWhatALaterVersionAdds(t *testing.T) {
	_, evs, err := events.Decode([]byte(`{"at":"2026-07-01T14:00:00+02:00","later":{"x":1},"events":[{"type":"output_failed","slot":1,"error":{"code":"c","message":"m","later":2},"later":[3]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := (events.OutputFailed{Slot: 1, Error: events.Error{Code: "c", Message: "m"}}); evs[0] != events.Event(want) {
		t.Errorf("decoded %+v", evs[0])
	}
}

// What stands before the last event is read only if there is no other way.
func TestTheLastEventIsReadAlone(t *testing.T) {
	const at, bad, last = `{"at":"2026-07-01T12:00:00Z",`, `{"type":"exploded","a":"\\\"}]{","b":[[{}]]}`, `{"type":"output_failed","slot":1,"error":{"code":"]}"}}`
	want := events.OutputFailed{Slot: 1, Error: events.Error{Code: "]}"}}
	for body, alone := range map[string]bool{
		at + `"events":[` + last + `]}`:                            true,
		at + `"events":[` + bad + `,` + last + `]}`:                true,
		at + `"events":[` + bad + `, ` + last + ` ]}`:              true,
		at + `"events":[` + bad + `,` + last + `]} `:               false,
		at + `"events":[` + bad + `,` + last + `],"later":1}`:      false,
		at + `"later":[1],"events":[` + bad + `,` + last + `]}`:    false,
		at + `"events":[` + bad + `],"later":[` + last + `]}`:      false,
		at + `"events":[` + bad + `,` + last + `],"later":[[]]}`:   false,
		at + `"events":{"events":[` + bad + `,` + last + `]}}`:     false,
		at + `"later":{"events":[` + last + `]},"events":[{}]}`:    false,
		at + `"Events":[` + bad + `,` + last + `]}`:                false,
		at + `"e":"\"events\":[","events":[` + last + `]}`:         true,
		`[` + at + `"events":[` + bad + `,` + last + `]}` + `]`:    false,
		`[[{"events":[` + last + `]}`:                              false,
		at + `"events":[` + bad + `,` + last + `,` + bad + `]}`:    false,
		at + `"events":[` + bad + `,"` + `{}` + `",` + last + `]}`: true,
	} {
		got, err := events.DecodeLast([]byte(body))
		if alone && got != events.Event(want) || !alone && !errors.Is(err, events.ErrMalformed) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
	all := examples()
	body, err := events.Encode(noon, all)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := events.DecodeLast(body); err != nil || !reflect.DeepEqual(got, all[len(all)-1]) {
		t.Errorf("the last of all is %v, %v", got, err)
	}
}

func TestDecodeRefusesWhatIsNoCommit(t *testing.T) {
	const at = `{"at":"2026-07-01T12:00:00Z","events":`
	for name, body := range map[string]string{
		"empty":             ``,
		"not JSON":          `hello`,
		"null":              `null`,
		"array":             `[]`,
		"no time":           `{"events":[{"type":"completed"}]}`,
		"no events":         at + `[]}`,
		"events missing":    `{"at":"2026-07-01T12:00:00Z"}`,
		"unknown type":      at + `[{"type":"exploded"}]}`,
		"type missing":      at + `[{"slot":1}]}`,
		"type no string":    at + `[{"type":7}]}`,
		"event null":        at + `[null]}`,
		"event a string":    at + `["completed"]}`,
		"field of no fit":   at + `[{"type":"output_failed","slot":"one"}]}`,
		"slot a fraction":   at + `[{"type":"output_failed","slot":1.5}]}`,
		"record without ID": at + `[{"type":"completed","generation":{"id":""}}]}`,
		"record of hostile": at + `[{"type":"completed","generation":{"id":"*"}}]}`,
		"no record":         at + `[{"type":"completed"}]}`,
		"record's ID null":  at + `[{"type":"completed","generation":{"id":null}}]}`,
		"second one bad":    at + `[{"type":"output_failed","slot":1,"error":{}},{"type":"x"}]}`,
		"time no time":      `{"at":"noon","events":[{"type":"completed"}]}`,
		"something behind":  at + `[{"type":"output_failed","slot":1}]} x`,
		"cut off":           at + `[{"type":"output_failed","sl`,
	} {
		if _, _, err := events.Decode([]byte(body)); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
		if last, err := events.DecodeLast([]byte(body)); !errors.Is(err, events.ErrMalformed) {
			t.Errorf("%s: the last event is %v, %v, want ErrMalformed", name, last, err)
		}
	}
	_, _, err := events.Decode([]byte(at + `[{"type":"` + strings.Repeat("x", 10_000) + `"}]}`))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("an error of %d characters repeats what was sent", len(err.Error()))
	}
}

func TestEncodeRefusesWhatIsTooLarge(t *testing.T) {
	for size, want := range map[int]error{events.MaxCommit - 1000: nil, events.MaxCommit: events.ErrTooLarge} {
		raw, err := json.Marshal(strings.Repeat("x", size))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := events.Encode(noon, []events.Event{events.Delivered{Raw: raw}}); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", size, err, want)
		}
	}
}

func TestEncodeRefusesWhatIsNoJSON(t *testing.T) {
	if body, err := events.Encode(noon, []events.Event{events.Delivered{Raw: json.RawMessage(`{`)}}); err == nil {
		t.Errorf("encoded %s", body)
	}
}

func TestDigestTellsBodiesApart(t *testing.T) {
	a, b := events.Digest([]byte("a")), events.Digest([]byte("b"))
	if a == b || a != events.Digest([]byte("a")) || len(a) != 32 {
		t.Errorf("digests %q and %q", a, b)
	}
}

func TestNowIsWhatACommitCanHold(t *testing.T) {
	now := events.Now()
	body, err := events.Encode(now, []events.Event{events.OutputFailed{}})
	if err != nil {
		t.Fatal(err)
	}
	if at, _, err := events.Decode(body); err != nil || at != now {
		t.Errorf("%v comes back as %v, %v", now, at, err)
	}
}

// FuzzDecode: whatever is decoded can be stored again, and means the same then. Its
// last event is the same when it is read alone.
func FuzzDecode(f *testing.F) {
	for _, e := range examples() {
		body, err := events.Encode(noon, []events.Event{e})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"at":"2026-07-01T12:00:00Z","events":[{"type":"delivered","raw":null,"results":[{"url":"\ud800"}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		at, evs, err := events.Decode(body)
		if err != nil {
			if !errors.Is(err, events.ErrMalformed) || evs != nil && len(evs) == 0 {
				t.Fatalf("%v", err)
			}
			return
		}
		if last, err := events.DecodeLast(body); err != nil || !reflect.DeepEqual(last, evs[len(evs)-1]) {
			t.Fatalf("%s\nends with\n%v, %v", body, last, err)
		}
		once, err := events.Encode(at, evs)
		if err != nil {
			return // over the limit, or a time beyond the year 9999 in UTC
		}
		at2, evs2, err := events.Decode(once)
		if err != nil {
			if at.Year() < 1 || at.Year() > 9998 {
				return
			}
			t.Fatalf("%s\nis encoded as\n%s\nwhich cannot be read: %v", body, once, err)
		}
		twice, err := events.Encode(at2, evs2)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s\nbecomes\n%s, %v", once, twice, err)
		}
		g := events.Fold(events.Generation{}, events.Commit{ID: fox, At: at, Events: evs})
		if len(g.Outputs) != g.ExpectedCount {
			t.Fatalf("%d outputs of %d", len(g.Outputs), g.ExpectedCount)
		}
	})
}
