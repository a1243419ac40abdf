package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator"
)

// shown is what a client knows of a generation: whose request it is, by its prompt,
// and whether it has completed. The zero shown is that there is none.
type shown struct {
	request string
	done    bool
}

// request is what a client asks.
type ask struct {
	kind    string // create, get, or complete, which nobody asks for
	request string // of a create
}

// answer is what it is told.
type answer struct {
	shown
	reused bool // the ID belongs to another request
}

// reading is how old what a reader is shown may be.
type reading int

const (
	present  reading = iota // as it is: on one node
	open                    // a generation that has completed may be shown open: on a cluster
	anything                // one that exists may not be shown at all: while a leader of the log is cut off
)

// apiModel is what the API promises of one ID: it is whoever's request came first,
// for ever, and completes once.
func apiModel(reads reading) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return shown{} },
		Step: func(was, asked, answered any) (bool, any) {
			now, q, a := was.(shown), asked.(ask), answered.(answer)
			switch {
			case q.kind == "complete":
				return now.request == q.request && !now.done, shown{now.request, true}
			case q.kind == "get":
				was := reads >= open && now.done && a.shown == shown{request: now.request}
				return now == a.shown || was || reads == anything && a.shown == shown{}, now
			case a.reused:
				return now.request != "" && now.request != q.request, now
			case now.request == "":
				return true, shown{request: q.request}
			}
			return now.request == q.request, now
		},
		DescribeOperation: func(q, a any) string { return fmt.Sprintf("%+v -> %+v", q, a) },
	}
}

// tale is what everybody was told of one ID.
type tale struct {
	mu    sync.Mutex
	ops   []porcupine.Operation
	odd   []porcupine.Operation // creates of which nobody knows what became
	acked bool
	view  events.View // at the end
}

func (s *tale) add(to *[]porcupine.Operation, op porcupine.Operation) {
	s.mu.Lock()
	*to = append(*to, op)
	s.mu.Unlock()
}

// clients ask for generations all the time, several of them for the same one, over
// HTTP and over NATS, and write down what they were told.
type clients struct {
	t     *testing.T
	s     *scenario
	began time.Time
	pace  time.Duration // between one ID and the next of a client, at least; twice more at most
	http  bool          // nobody asks over NATS
	mu    sync.Mutex
	told  map[events.ID]*tale
}

func (c *clients) now() int64 { return int64(time.Since(c.began)) }

// begin has them ask until ctx ends, and go on with what they have begun until it
// is accepted; then what it returns is closed.
func (c *clients) begin(ctx context.Context, r *rand.Rand) <-chan struct{} {
	var all sync.WaitGroup
	for n := range 4 {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c.ask(ctx, fmt.Sprint(n, ".", i), r)
				rest(ctx, c.pace+time.Duration(r.Int64N(int64(2*c.pace))))
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	return finished
}

// ask has two or three clients create the same ID, and read it for a while. One of
// them may have another request for it.
func (c *clients) ask(ctx context.Context, prompt string, r *rand.Rand) {
	id, of := streamtest.NewID(), &tale{}
	c.mu.Lock()
	c.told[id] = of
	c.mu.Unlock()
	deadline, count, rival := "2m", 1+r.IntN(3), r.IntN(6) == 0
	if r.IntN(8) == 0 {
		deadline = "30s"
	}
	var askers sync.WaitGroup
	for n := range 2 + r.IntN(2) {
		mine := prompt
		if rival && n == 1 {
			mine = "rival " + prompt
		}
		overNATS := (n+r.IntN(2))%2 == 0 && !c.http
		body := fmt.Appendf(nil, `{"model":"runware:101@1","count":%d,"deadline":%q,"input":{"positivePrompt":%q,"width":32,"height":32}}`, count, deadline, mine)
		gap := time.Duration(r.Int64N(int64(20 * time.Millisecond)))
		askers.Go(func() {
			rest(ctx, gap)
			if !c.create(n, id, of, mine, body, overNATS) {
				return
			}
			for try := range 3 {
				if g, ok := c.get(n, id, of, !overNATS && !c.http); ok && !g.CompletedAt.IsZero() || ctx.Err() != nil {
					return
				}
				rest(ctx, time.Duration(try)*c.pace*3/2)
			}
		})
	}
	askers.Wait()
}

// create asks until there is an answer that says something: accepted, or another's.
func (c *clients) create(n int, id events.ID, of *tale, prompt string, body []byte, overNATS bool) (accepted bool) {
	ctx := c.t.Context()
	for ctx.Err() == nil {
		op := porcupine.Operation{ClientId: n, Input: ask{kind: "create", request: prompt}, Call: c.now()}
		code, err := c.put(ctx, id, body, overNATS)
		op.Return = c.now()
		switch code {
		case http.StatusAccepted:
			op.Output = answer{}
			of.add(&of.ops, op)
			of.mu.Lock()
			of.acked = true
			of.mu.Unlock()
			return true
		case http.StatusConflict, http.StatusUnprocessableEntity:
			op.Output = answer{reused: true}
			of.add(&of.ops, op)
			return false
		case 0, http.StatusServiceUnavailable:
			of.add(&of.odd, op)
		default:
			c.t.Errorf("create generation=%s: told %d: %v", id, code, err)
			return false
		}
		rest(ctx, 100*time.Millisecond+rand.N(200*time.Millisecond))
	}
	return false
}

// put is one try. The code is 0 without an answer.
func (c *clients) put(ctx context.Context, id events.ID, body []byte, overNATS bool) (int, error) {
	if !overNATS {
		res, err := c.s.api.do(ctx, http.MethodPut, "/v1/generations/"+string(id), body)
		var p *problemError
		switch {
		case err == nil:
			drain(res.Body)
			return res.StatusCode, nil
		case errors.As(err, &p):
			return p.code, err
		}
		return 0, err
	}
	m := nats.NewMsg(orchestrator.CreateSubject)
	m.Header.Set(orchestrator.HeaderID, string(id))
	m.Data = body
	answer, err := c.s.conn.RequestMsg(m, 7*time.Second)
	if err != nil {
		return 0, err
	}
	if text := answer.Header.Get("Nats-Service-Error-Code"); text != "" {
		var code int
		if _, err := fmt.Sscan(text, &code); err != nil {
			return 0, err
		}
		return code, errors.New(string(answer.Data))
	}
	return http.StatusAccepted, nil
}

// get is one read. One that fails has told nobody anything.
func (c *clients) get(n int, id events.ID, of *tale, overNATS bool) (g events.View, ok bool) {
	op := porcupine.Operation{ClientId: n, Input: ask{kind: "get"}, Call: c.now()}
	var p *problemError
	code := http.StatusOK
	if overNATS {
		answer, err := c.s.conn.Request(orchestrator.GetSubject, []byte(id), 7*time.Second)
		if err != nil {
			return g, false
		}
		if text := answer.Header.Get("Nats-Service-Error-Code"); text != "" {
			if _, err := fmt.Sscan(text, &code); err != nil {
				return g, false
			}
		} else if err := json.Unmarshal(answer.Data, &g); err != nil {
			c.t.Errorf("get generation=%s: %v", id, err)
			return g, false
		}
	} else if err := c.s.api.get(c.t.Context(), "/v1/generations/"+string(id), &g); errors.As(err, &p) {
		code = p.code
	} else if err != nil {
		return g, false
	}
	if code != http.StatusOK && code != http.StatusNotFound {
		return g, false
	}
	a := answer{}
	if code == http.StatusOK {
		a.shown = shown{promptOf(g), !g.CompletedAt.IsZero()}
	}
	op.Output, op.Return = a, c.now()
	of.add(&of.ops, op)
	return g, true
}

func promptOf(g events.View) string {
	var input struct {
		Prompt string `json:"positivePrompt"`
	}
	_ = json.Unmarshal(g.Input, &input)
	return input.Prompt
}

// accepted are the IDs of which somebody was told that they are.
func (c *clients) accepted() map[events.ID]bool {
	all := map[events.ID]bool{}
	for id, of := range c.told {
		if of.acked {
			all[id] = true
		}
	}
	return all
}
