package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// What must not pass for possible does not, by the judge of the scenarios.
func TestImpossibleStoriesAreNoticed(t *testing.T) {
	op := func(from, to int64, q ask, a answer) porcupine.Operation {
		return porcupine.Operation{Input: q, Call: from, Output: a, Return: to}
	}
	create := func(request string) ask { return ask{kind: "create", request: request} }
	get := ask{kind: "get"}
	is := func(request string, done bool) answer { return answer{shown: shown{request, done}} }
	for _, c := range []struct {
		name     string
		ops      []porcupine.Operation
		one, few bool // possible on one node, on a cluster
	}{
		{"created and read", []porcupine.Operation{op(1, 2, create("a"), answer{}), op(3, 4, get, is("a", false)), op(5, 6, get, is("a", true))}, true, true},
		{"not there after it was promised", []porcupine.Operation{op(1, 2, create("a"), answer{}), op(3, 4, get, answer{})}, false, false},
		{"two requests for one ID", []porcupine.Operation{op(1, 2, create("a"), answer{}), op(1, 2, create("b"), answer{})}, false, false},
		{"another's, before there was one", []porcupine.Operation{op(1, 2, create("b"), answer{reused: true}), op(3, 4, create("a"), answer{})}, false, false},
		{"open again", []porcupine.Operation{op(1, 2, create("a"), answer{}), op(3, 4, get, is("a", true)), op(5, 6, get, is("a", false))}, false, true},
		{"another request than was promised", []porcupine.Operation{op(1, 2, create("a"), answer{}), op(3, 4, get, is("b", false))}, false, false},
		{"completed before it was asked for", []porcupine.Operation{op(1, 2, get, is("a", true)), op(3, 4, create("a"), answer{})}, false, false},
	} {
		of := tale{ops: c.ops, view: events.View{Input: []byte(`{"positivePrompt":"a"}`), CompletedAt: events.Now()}}
		if one, few := of.possible(9, present), of.possible(9, open); one != c.one || few != c.few {
			t.Errorf("%s: possible on one node: %t, on a cluster: %t", c.name, one, few)
		}
	}
}

// On one node a reader is shown what is: nothing that was, and nothing less than was
// promised to anybody.
func TestStoriesOfOneNodeArePossible(t *testing.T) {
	k := newKilledWith(t, fastDir(t), sim.Config{Seed: 5, Latency: sim.Range{Min: time.Millisecond, Max: 100 * time.Millisecond}})
	k.start()
	c := clients{t: t, s: &scenario{t: t, api: k.api}, began: time.Now(), pace: 5 * time.Millisecond, http: true, told: map[events.ID]*tale{}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	<-c.begin(ctx, rand.New(rand.NewPCG(1, 1)))
	for id := range c.accepted() {
		of := c.told[id]
		await(t, time.Minute, "the completion of generation="+string(id), func() bool {
			of.view, _ = c.get(9, id, of, false)
			return !of.view.CompletedAt.IsZero()
		})
	}
	k.end(syscall.SIGTERM)
	acked, operations, unknown, _ := c.judge(present, present)
	t.Logf("%d acknowledged, %d operations, %d unknown", acked, operations, unknown)
	if operations < 100 {
		t.Error("the load was too small to show anything")
	}
}
