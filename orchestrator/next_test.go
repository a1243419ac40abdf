package orchestrator

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider"
)

var rewrite = flag.Bool("rewrite", false, "write what is decided into testdata/*.txt")

// TestStories reads each testdata/*.txt as a conversation: what happens, then
// under ---- what is written to the log and what comes next. A task is called
// slot.try, whatever its ID: two tasks of one name have the same ID.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(text))
			if *rewrite {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s: the story goes\n%s", name, diff(string(text), got))
			}
		})
	}
}

// tell replays a story: comments stay, and every answer is written anew.
func tell(t *testing.T, text string) string {
	var out bytes.Buffer
	var w *world
	var said []string
	skip := false // inside an old answer
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case skip && line != "":
			continue
		case line == "----":
			skip = true
			fmt.Fprintln(&out, line)
			for _, command := range said {
				if strings.HasPrefix(command, "request") {
					w = newWorld(t)
				}
				w.hear(command)
			}
			said = nil
			out.WriteString(w.round())
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			said = append(said, line)
		}
		skip = false
		fmt.Fprintln(&out, line)
	}
	if len(said) > 0 {
		t.Fatalf("nothing is decided after %q", said)
	}
	return out.String()
}

// diff shows the first lines that differ.
func diff(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(i-12, 0)
			return strings.Join(b[from:i], "\n") + "\n- " + a[i] + "\n+ " + strings.Join(b[i:min(i+4, len(b))], "\n+ ")
		}
	}
	return "longer or shorter than the file"
}

const storyID events.ID = "01981f2e-7c2a-7b31-9c4e-5a0f3d2b1c00"

var errBroken = errors.New("the connection broke")

// world is the shell around decide, and one generation in it: what the real one
// does with a log, timers and connections, this one does as it is told.
type world struct {
	t     *testing.T
	start time.Time
	now   time.Time
	entry *entry
	log   []events.Commit
	inbox []outcome
	steps []Step             // what came next last time
	call  events.Dispatching // the create call under way
	asked Poll               // the question under way

	askedAt time.Time
	files   map[int]events.Result // downloads under way

	rescue bool // the next request adopts tasks
}

func newWorld(t *testing.T) *world {
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	w := &world{t: t, start: start, now: start, files: map[int]events.Result{}}
	w.entry = &entry{id: storyID, index: -1}
	w.entry.open.Rules = Rules{Life: "us", MaxTries: 2}
	return w
}

// hear does what one line of a story says.
func (w *world) hear(line string) {
	w.t.Helper()
	f := strings.Fields(line)
	verb, args := f[0], f[1:]
	switch verb {
	case "request": // request OUTPUTS DEADLINE [webhooks] [rescue]
		w.entry.open.Rules.Webhooks = slices.Contains(args, "webhooks")
		w.rescue = slices.Contains(args, "rescue")
		w.request(w.number(args[0]), w.duration(args[1]))
	case "claim": // claim [by=LIFE]: the claim that the last decision asked for
		w.claim(args)
	case "answer": // answer WORD…: the create call's, see words
		c := called{claim: w.call}
		c.answer, c.delivered = w.words(events.FromCreate, args)
		w.inbox = append(w.inbox, c)
	case "call": // call ambiguous|refused|busy|account|unreachable [AFTER]: the create call failed
		w.inbox = append(w.inbox, called{claim: w.call, err: w.failure(args)})
	case "webhook": // webhook WORD…
		_, d := w.words(events.FromWebhook, args)
		w.commit(*d)
	case "poll": // poll WORD…, or poll error
		p := polled{tasks: w.asked.Tasks, asked: w.askedAt, last: w.asked.Last}
		if args[0] == "error" {
			p.err = errors.New("no answer")
		} else {
			p.answer, p.delivered = w.words(events.FromPoll, args)
		}
		w.asked = Poll{}
		w.inbox = append(w.inbox, p)
	case "fetch": // fetch SLOT ok|gone|large|broken|bucket
		w.fetched(w.number(args[0]), args[1])
	case "advance": // advance DURATION
		w.now = w.now.Add(w.duration(args[0]))
	case "restart": // restart [alone]: the process is killed, and another life begins
		w.restart(slices.Contains(args, "alone"))
	case "look": // nothing is new
	default:
		w.t.Fatalf("what is %q?", line)
	}
}

// round decides, writes what is decided, starts what comes next, and says so.
func (w *world) round() string {
	var out strings.Builder
	if w.entry.open.Done() {
		w.inbox = nil // as the shell does: nothing that comes of it matters any more
	}
	evs, steps := decide(&w.entry.open, w.inbox, w.now)
	w.inbox = nil
	if len(evs) > 0 {
		w.commit(evs...)
	}
	for _, e := range evs {
		fmt.Fprintln(&out, "log:", w.event(e))
	}
	w.steps = steps
	for _, s := range steps {
		fmt.Fprintln(&out, "next:", w.step(s))
		switch s := s.(type) {
		case Poll:
			w.entry.open.Polling, w.asked, w.askedAt = true, s, w.now
		case Fetch:
			w.entry.open.Fetches[s.Slot].Busy, w.files[s.Slot] = true, s.Result
		}
	}
	if len(evs)+len(steps) == 0 {
		fmt.Fprintln(&out, "nothing")
	}
	return out.String()
}

func (w *world) commit(evs ...events.Event) {
	c := events.Commit{ID: storyID, Version: uint64(len(w.log) + 1), Sequence: uint64(len(w.log) + 1), At: w.now, Events: evs}
	w.log = append(w.log, c)
	if !w.entry.fold(c, stream.Head{Sequence: c.Sequence, Version: c.Version}) {
		w.t.Fatal("a commit is missing from the fold")
	}
}

func (w *world) request(outputs int, deadline time.Duration) {
	r := events.Requested{ExpectedCount: outputs, Deadline: w.now.Add(deadline), Model: "runware:101@1", Provider: "sim", Input: []byte(`{}`)}
	for slot := range outputs {
		r.Tasks = append(r.Tasks, events.TaskID(storyID, slot, 1))
	}
	if w.rescue { // whose tasks they are makes no difference here
		r.Rescues = events.RescueID(storyID)
	}
	w.commit(r)
}

func (w *world) claim(args []string) {
	by := "us"
	for _, a := range args {
		by = strings.TrimPrefix(a, "by=")
	}
	for _, s := range w.steps {
		if d, ok := s.(Dispatch); ok {
			w.call = events.Dispatching{Attempt: w.entry.open.Attempts + 1, By: by, Until: w.now.Add(callTimeout + 5*time.Second), Tasks: d.Tasks}
			w.commit(w.call)
			w.entry.open.Calling = by == "us"
			return
		}
	}
	w.t.Fatal("nobody asked for a claim")
}

// restart replays the log in another life, which remembers nothing.
func (w *world) restart(alone bool) {
	rules := w.entry.open.Rules
	rules.Life += "'"
	w.entry = &entry{id: storyID, index: -1}
	w.entry.open.Rules, w.entry.open.Since = rules, w.now
	for _, c := range w.log {
		w.entry.fold(c, stream.Head{Sequence: c.Sequence, Version: c.Version})
	}
	if c := w.entry.open.Claim; c != nil && alone {
		w.entry.open.Believe = w.now.Add(settling)
	}
	w.inbox, w.files, w.asked = nil, map[int]events.Result{}, Poll{}
}

// words is an answer, or the body of a webhook, of words about tasks:
//
//	TASK=accepted|unknown|refused|declined|declined:AFTER
//	TASK=https://…|file|failed:CLASS
//
// What nothing is said about is left open.
func (w *world) words(source string, args []string) (provider.Answer, *events.Delivered) {
	a := provider.Answer{Refused: map[string]provider.ErrorOnce{}, Declined: map[string]provider.ErrorOnce{}}
	d := events.Delivered{Source: source}
	for _, arg := range args {
		name, word, _ := strings.Cut(arg, "=")
		task := w.task(name)
		word, more, _ := strings.Cut(word, ":")
		switch word {
		case "silence":
		case "accepted":
			a.Accepted = append(a.Accepted, task)
		case "unknown":
			a.Unknown = append(a.Unknown, task)
		case "refused":
			a.Refused[task] = provider.ErrorOnce{Error: events.Error{Code: "refused", Class: events.Validation}}
		case "declined":
			no := provider.ErrorOnce{Error: events.Error{Code: "busy", Class: events.RateLimit}}
			if more != "" {
				no.After = w.duration(more)
			}
			a.Declined[task] = no
		case "https":
			d.Results = append(d.Results, events.Result{Task: task, URL: word + ":" + more})
		case "file":
			d.Results = append(d.Results, events.Result{Task: task, File: &events.File{BlobKey: name}})
		case "failed":
			d.Results = append(d.Results, events.Result{Task: task, Error: &events.Error{Code: more, Class: events.Class(more)}})
		default:
			w.t.Fatalf("what is %q?", arg)
		}
	}
	for _, r := range d.Results {
		a.Results = append(a.Results, provider.Result{Task: r.Task})
	}
	if len(d.Results) == 0 {
		return a, nil
	}
	return a, &d
}

func (w *world) failure(args []string) *provider.Error {
	kinds := map[string]provider.Error{
		"ambiguous":   {Kind: provider.Ambiguous, Err: events.Error{Code: "call", Class: events.Connection}},
		"refused":     {Kind: provider.Refused, Err: events.Error{Code: "refused", Class: events.Validation}},
		"busy":        {Kind: provider.Busy, Err: events.Error{Code: "busy", Class: events.RateLimit}},
		"account":     {Kind: provider.Account, Err: events.Error{Code: "credit", Class: events.Quota}},
		"unreachable": {Kind: provider.Unreachable, Err: events.Error{Code: "unreachable", Class: events.Connection}},
	}
	e, ok := kinds[args[0]]
	if !ok {
		w.t.Fatalf("what is a call that is %q?", args[0])
	}
	if len(args) > 1 {
		e.After = w.duration(args[1])
	}
	return &e
}

func (w *world) fetched(slot int, how string) {
	r, ok := w.files[slot]
	if !ok {
		w.t.Fatalf("nobody fetches %d", slot)
	}
	delete(w.files, slot)
	f := fetched{slot: slot, result: r}
	switch how {
	case "ok":
		f.file = events.File{BlobKey: r.URL}
	case "gone":
		f.err = &blob.FetchError{Code: events.CodeFetchGone, Err: errBroken}
	case "large":
		f.err = &blob.FetchError{Code: events.CodeFetchSize, Err: errBroken}
	case "broken":
		f.err = &blob.FetchError{Err: errBroken}
	case "bucket":
		f.err = errors.New("the bucket is down")
	default:
		w.t.Fatalf("what is a fetch that is %q?", how)
	}
	w.inbox = append(w.inbox, f)
}

func (w *world) event(e events.Event) string {
	switch e := e.(type) {
	case events.Dispatched:
		s := "dispatched"
		for _, slot := range e.Accepted {
			s += fmt.Sprintf(" %d=accepted", slot)
		}
		for _, d := range e.Declined {
			s += fmt.Sprintf(" %d=declined until %s (%s)", d.Slot, w.at(d.Again), d.Error.Code)
		}
		return s
	case events.Delivered:
		s := "delivered by " + e.Source
		for _, r := range e.Results {
			s += " " + w.name(r.Task)
		}
		return s
	case events.OutputSucceeded:
		return fmt.Sprintf("output_succeeded %d %s", e.Slot, e.Artifact.BlobKey)
	case events.OutputFailed:
		return fmt.Sprintf("output_failed %d %s", e.Slot, e.Error.Code)
	case events.Completed:
		if e.Error != nil {
			return "completed with nothing: " + e.Error.Code
		}
		return fmt.Sprintf("completed with %d of %d", e.Generation.ArtifactCount(), e.Generation.ExpectedCount)
	}
	return e.Type()
}

func (w *world) step(s Step) string {
	switch s := s.(type) {
	case Dispatch:
		out := "dispatch"
		for _, t := range s.Tasks {
			out += " " + w.name(t.ID)
		}
		return out
	case Poll:
		out := "ask about"
		if s.Last {
			out = "ask a last time about"
		}
		for _, t := range s.Tasks {
			out += " " + w.name(t)
		}
		return out
	case Fetch:
		return fmt.Sprintf("fetch %d %s", s.Slot, s.Result.URL)
	case Wait:
		return "wait until " + w.at(s.Until)
	}
	return fmt.Sprintf("%T", s)
}

func (w *world) at(t time.Time) string { return "+" + t.Sub(w.start).String() }

// name and task turn an ID into slot.try, and back.
func (w *world) name(task string) string {
	for slot := range events.MaxCount {
		for try := 1; try <= events.MaxTries; try++ {
			if events.TaskID(storyID, slot, try) == task {
				return fmt.Sprintf("%d.%d", slot, try)
			}
		}
	}
	return "somebody else's"
}

func (w *world) task(name string) string {
	slot, try, ok := strings.Cut(name, ".")
	if !ok {
		return name
	}
	return events.TaskID(storyID, w.number(slot), w.number(try))
}

func (w *world) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}
