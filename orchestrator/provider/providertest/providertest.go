// Package providertest holds every implementation of provider.Provider to what
// the orchestrator rests on.
//
// # Usage
//
//	func TestConformance(t *testing.T) {
//		providertest.Run(t, func(t *testing.T, cfg sim.Config) (provider.Provider, *sim.Server) { … })
//	}
//
// The suite runs in testing/synctest bubbles: waiting costs no time, and a
// goroutine that is left over fails the test. It talks to the simulated
// provider by the words in prompts (see package sim); [Transport] connects the two.
package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// Generation is the generation that the suite's calls are for.
const Generation = events.ID("01890a5d-ac96-774b-bcce-b302099a8057")

// Model is the model that the suite asks for.
const Model = "sim:fox@1"

// Open starts a simulated provider by a configuration, and a client of it.
type Open func(t *testing.T, cfg sim.Config) (provider.Provider, *sim.Server)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, claim := range map[string]func(*rig){
		"what is accepted is made":                  accepted,
		"a bad task is refused for good, alone":     refused,
		"a bad call is refused for good":            refusedWhole,
		"a busy provider says when to come again":   busy,
		"trouble with the account is no refusal":    account,
		"after a 5xx a look finds what was taken":   ambiguous,
		"after silence a look finds what was taken": silence,
		"after a 5xx a look finds nothing":          broken,
		"a look at an unknown task says so":         unknown,
		"a look tells failed from not found":        vague,
		"a task sent twice is accepted, made once":  twice,
		"a task that fails is a result":             failing,
		"an answer may hold the results":            answered,
		"files come inline by every way":            inlined,
		"seeds and costs are exact":                 exact,
		"seeds count up from slot to slot":          seeds,
		"a body that is not the provider's":         alien,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &rig{T: t, posts: map[string][]post{}}
				p, s := open(t, sim.Config{
					Seed: 1, Key: "the-key", BaseURL: func() string { return "http://sim.test" },
					Webhooks: Transport(http.HandlerFunc(r.hook)),
				})
				r.p, r.sim = p, s
				claim(r)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// rig is one claim's provider, and what came by webhook.
type rig struct {
	*testing.T
	p   provider.Provider
	sim *sim.Server

	mu    sync.Mutex
	posts map[string][]post // by path
}

// post is one webhook, read as the ingress reads it.
type post struct {
	reply   inline.Reply
	results []provider.Result
}

func (r *rig) hook(w http.ResponseWriter, req *http.Request) {
	reply, err := inline.Read(req.Body, inline.Limits{Dir: r.TempDir()})
	if err != nil {
		r.Errorf("webhook: %v", err)
		return
	}
	results, err := r.p.Parse(reply.Body)
	if err != nil {
		r.Errorf("webhook %s: %v", reply.Body, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.posts[req.URL.Path] = append(r.posts[req.URL.Path], post{reply, results})
}

// call is a create call of n tasks with a prompt; more are further fields of the input.
func (r *rig) call(n int, prompt string, more ...string) provider.Call {
	r.Helper()
	text, err := json.Marshal(prompt)
	if err != nil {
		r.Fatal(err)
	}
	fields := append([]string{fmt.Sprintf(`"positivePrompt":%s,"width":64,"height":64`, text)}, more...)
	c := provider.Call{
		Generation: Generation, Model: Model, Deadline: time.Now().Add(10 * time.Minute),
		Input: json.RawMessage("{" + strings.Join(fields, ",") + "}"),
	}
	for i := range n {
		c.Tasks = append(c.Tasks, events.Task{Slot: i, Try: 1, ID: events.TaskID(Generation, i, 1)})
	}
	if err := r.p.Check(c.Model, c.Input, n); err != nil {
		r.Fatalf("check: %v", err)
	}
	return c
}

func ids(c provider.Call) []string {
	var out []string
	for _, t := range c.Tasks {
		out = append(out, t.ID)
	}
	return out
}

func (r *rig) create(c provider.Call) (provider.Answer, error) {
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	a, err := r.p.Create(ctx, c)
	r.Cleanup(func() { a.Reply.Close() })
	return a, err
}

func (r *rig) mustCreate(c provider.Call) provider.Answer {
	r.Helper()
	a, err := r.create(c)
	if err != nil {
		r.Fatalf("create: %v", err)
	}
	return a
}

func (r *rig) look(tasks ...string) provider.Answer {
	r.Helper()
	a, err := r.p.Look(r.Context(), tasks)
	if err != nil {
		r.Fatalf("look: %v", err)
	}
	r.Cleanup(func() { a.Reply.Close() })
	return a
}

// fails is the *provider.Error of a create call, of the kind that is wanted.
func (r *rig) fails(c provider.Call, kind provider.Kind) *provider.Error {
	r.Helper()
	_, err := r.create(c)
	var e *provider.Error
	if !errors.As(err, &e) {
		r.Fatalf("error %v, want a *provider.Error", err)
	}
	if e.Kind != kind {
		r.Fatalf("kind %d of %v, want %d", e.Kind, err, kind)
	}
	if e.Err.Code == "" || e.Err.Message == "" || e.Err.Class == "" {
		r.Errorf("error %+v: want code, message and class", e.Err)
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", e, e), "the-key") {
		r.Errorf("the key is in %+v", e)
	}
	return e
}

func (r *rig) same(what string, got, want []string) {
	r.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		r.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func tasksOf(results []provider.Result) []string {
	var out []string
	for _, x := range results {
		out = append(out, x.Task)
	}
	return out
}

// ledger is the simulated provider's journal, by task.
func (r *rig) ledger() map[string]sim.Line {
	r.Helper()
	var b strings.Builder
	if err := r.sim.WriteJournal(&b); err != nil {
		r.Fatal(err)
	}
	entries, err := sim.ReadJournal(strings.NewReader(b.String()))
	if err != nil {
		r.Fatal(err)
	}
	return sim.Ledger(entries)
}

// delivered is what came by webhook, once all is quiet.
func (r *rig) delivered(path string) []post {
	time.Sleep(time.Minute) // of fake time
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.posts[path]
}

// read is an inline file's content.
func (r *rig) read(reply inline.Reply, n int) []byte {
	r.Helper()
	if n < 1 || n > len(reply.Files) {
		r.Fatalf("file %d of %d", n, len(reply.Files))
	}
	f, err := reply.Files[n-1].Open()
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		r.Fatal(err)
	}
	return b
}
