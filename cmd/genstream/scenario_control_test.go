package main

import (
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/genstream/genstream/events"
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
