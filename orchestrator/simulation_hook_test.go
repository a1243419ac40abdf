package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// promiseHook plans what the provider tells of a task by itself.
func (v *simProvider) promiseHook(k *simTask) {
	s := v.s
	if s.bad(hookLost) {
		return
	}
	at := k.ready.Add(s.upto(300 * time.Millisecond))
	if s.bad(hookLate) {
		at = at.Add(s.upto(40 * time.Second))
	}
	s.plan(at, nil, func() { v.tell(k) })
}

// tell makes the body of a webhook and sends it.
func (v *simProvider) tell(k *simTask) {
	s := v.s
	results := []provider.Result{v.result(k)}
	if s.bad(hookPartial) {
		for _, other := range v.order {
			if other != k && other.generation == k.generation && !other.refused && !other.never && !other.ready.After(s.now) {
				results = append(results, v.result(other))
			}
		}
	}
	if s.bad(hookAlien) {
		results[0].Task = events.TaskID(k.generation, events.MaxCount+1, 1)
	}
	body := v.body(results)
	address := k.hook
	if s.bad(hookForged) {
		address = address[:len(address)-4] + "beef"
	}
	v.post(k, address, body, 0)
	if s.bad(hookTwice) {
		s.after(s.upto(3*time.Second), nil, func() { v.post(k, address, body, 0) })
	}
	if k.Error == nil && s.bad(hookContradicts) {
		no := provider.Result{Task: k.Task, Error: &events.Error{Code: "liar", Class: events.Server}}
		s.after(s.upto(3*time.Second), nil, func() {
			if v.told(k) {
				v.post(k, k.hook, v.body([]provider.Result{no}), 0)
			}
		})
	}
}

// told says whether the log knows of the task's success, for good.
func (v *simProvider) told(k *simTask) bool {
	for c := range v.s.log.of(k.generation) {
		for _, e := range c.commit.Events {
			if d, ok := e.(events.Delivered); ok && c.Sequence <= v.s.log.durable && slices.ContainsFunc(d.Results, func(r events.Result) bool { return r.Task == k.Task && r.Error == nil }) {
				return true
			}
		}
	}
	return false
}

// body is a webhook's body: a number, under which Parse finds the results.
func (v *simProvider) body(results []provider.Result) string {
	n := len(v.bodies) + 1
	v.bodies[n] = results
	return strconv.Itoa(n)
}

func (v *simProvider) Parse(body []byte) ([]provider.Result, error) {
	n, err := strconv.Atoi(string(body))
	if err != nil || v.bodies[n] == nil {
		return nil, errors.New("not a body of mine")
	}
	return v.bodies[n], nil
}

// post sends a webhook to one of the ingresses, and again if it is not answered 2xx.
func (v *simProvider) post(k *simTask, address, body string, tries int) {
	s := v.s
	again := func(d time.Duration) {
		if tries < 3 {
			s.after(d, nil, func() { v.post(k, address, body, tries+1) })
		}
	}
	p := s.anyAlive()
	if p == nil {
		again(2 * time.Second)
		return
	}
	if s.open > 0 && !v.answered(k) {
		s.hit(hookBeforeAnswer)
	}
	s.note(nil, "webhook %s for %s %d.%d to %s", body, s.short(k.generation), k.slot, k.try, p)
	answered, began := false, s.now
	s.run(p, func() {
		u, err := url.Parse(address)
		if err != nil {
			panic(err)
		}
		w := &hookAnswer{header: http.Header{}}
		r := (&http.Request{
			Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}).WithContext(context.Background())
		s.rig.handler.ServeHTTP(w, r)
		if s.bad(diesBefore2xx) {
			s.kill(p)
			s.die()
		}
		answered = true
		s.note(p, "answers webhook %s with %d", body, w.code)
		v.judge2xx(k, address, body, w.code, began)
		if w.code == http.StatusServiceUnavailable {
			again(time.Second + s.upto(2*time.Second))
		}
	})
	s.after(5*time.Second, nil, func() {
		if !answered {
			again(s.upto(time.Second))
		}
	})
}

// bring is Bring of the ingress's own process, if it has an orchestrator in this
// seed. It waits as threads do here.
func (s *simulation) bring(ctx context.Context, id events.ID, d events.Delivered) (uint64, bool) {
	if !s.brings {
		return 0, false
	}
	b, ok := s.current.in.o.bring(id, d)
	if !ok {
		return 0, false
	}
	s.hit(hookBrought)
	end, _ := over(ctx)
	for nap := 200 * time.Microsecond; s.now.Before(end); nap *= 2 {
		select {
		case sequence := <-b.said:
			return sequence, sequence > 0
		default:
		}
		s.sleep(min(nap, end.Sub(s.now)))
	}
	return 0, false
}

// answered says whether the log knows what became of the task's create call.
func (v *simProvider) answered(k *simTask) bool {
	for c := range v.s.log.of(k.generation) {
		for _, e := range c.commit.Events {
			if d, ok := e.(events.Dispatched); ok && slices.Contains(d.Accepted, k.slot) {
				return true
			}
		}
	}
	return false
}

// judge2xx: what was answered 2xx is in the log, on disk, or came too late (I15, I17).
func (v *simProvider) judge2xx(k *simTask, address, body string, code int, began time.Time) {
	s := v.s
	if address != k.hook {
		if code != http.StatusNotFound {
			s.problem("I16: a forged webhook was answered %d", code)
		}
		return
	}
	if code == http.StatusOK {
		s.hit(hookAfterEnd)
		s.left("late 2xx", k.generation, s.log.last[k.generation])
		if last := s.log.last[k.generation]; last != 0 && !s.log.stored[last-1].Completes() {
			s.problem("I15: a webhook is called late for %s, which is open", s.short(k.generation))
		}
		return
	}
	if code != http.StatusNoContent {
		return
	}
	digest := events.Digest([]byte(body))
	for c := range s.log.of(k.generation) {
		for _, e := range c.commit.Events {
			if d, ok := e.(events.Delivered); ok && d.Digest == digest {
				s.left("2xx", k.generation, c.Sequence)
				if c.Stored.Before(began) {
					s.hit(hookKnown)
				}
				return
			}
		}
	}
	s.problem("I15: webhook %s for %s was answered 2xx and is not in the log", body, s.short(k.generation))
}

type hookAnswer struct {
	header http.Header
	code   int
}

func (w *hookAnswer) Header() http.Header         { return w.header }
func (w *hookAnswer) Write(b []byte) (int, error) { return len(b), nil }
func (w *hookAnswer) WriteHeader(code int)        { w.code = code }

// simClient asks for generations, and remembers what it was promised.
type simClient struct {
	s        *simulation
	promises []*promise
	asking   int // requests that are neither promised nor given up; submissions that are in the queue
}

// promise is one generation as its requester knows it.
type promise struct {
	id       events.ID
	sub      Submission
	other    []byte // another body, for the same ID
	acked    bool
	position uint64
	queued   bool // it went to the queue of submissions, which promised it
	asked    int
}

func (c *simClient) plan() {
	s := c.s
	for i := range []int{1, 1, 1, 1, 1, 1, 2, 2, 2, 3}[s.rng.IntN(10)] {
		count, deadline := 1+s.rng.IntN(3), 60+s.rng.IntN(60)
		if s.chance(5) {
			deadline = 1 + s.rng.IntN(20)
		}
		body, err := json.Marshal(map[string]any{
			"model": "m@1", "count": count, "deadline": strconv.Itoa(deadline) + "s",
			"input": map[string]any{"p": "a fox", "n": i}, "labels": map[string]string{"n": strconv.Itoa(i)},
		})
		if err != nil {
			panic(err)
		}
		p := &promise{sub: Submission{Body: body, Requester: "me"}, other: []byte(strings.Replace(string(body), "fox", "dog", 1))}
		at := s.start.Add(s.upto(8 * time.Second))
		switch {
		case !s.gated && s.chance(30):
			p.queued = true
		case s.chance(50):
			p.sub.Key = strconv.FormatUint(s.seed, 10) + "/" + strconv.Itoa(i)
			p.id = events.DerivedID("me", p.sub.Key)
		default:
			p.id = events.SubmittedID("client", s.seed<<4+uint64(i), at)
			p.sub.ID = string(p.id)
		}
		c.promises = append(c.promises, p)
		c.asking++
		s.plan(at, nil, func() {
			if p.queued {
				c.submit(p)
			} else {
				c.ask(p, p.sub)
			}
		})
	}
}

func (c *simClient) ask(p *promise, sub Submission) {
	s := c.s
	again := func(d time.Duration) {
		s.after(d, nil, func() {
			if p.acked {
				return
			}
			if p.asked >= 8 {
				c.asking-- // it gives up, and was promised nothing
				return
			}
			c.ask(p, sub)
		})
	}
	p.asked++
	at := s.anyAlive()
	if at == nil {
		again(2 * time.Second)
		return
	}
	if s.chance(10) { // and does not wait for the answer
		s.hit(requestAgain)
		s.after(s.upto(5*time.Millisecond), nil, func() { c.once(p, sub, s.anyAlive()) })
	}
	c.once(p, sub, at)
	again(5*time.Second + s.upto(time.Second))
}

// once asks one process, and takes the answer if there is one.
func (c *simClient) once(p *promise, sub Submission, at *process) {
	s := c.s
	if at == nil {
		return
	}
	s.run(at, func() {
		created, err := at.o.Create(context.Background(), sub)
		if err != nil {
			s.note(at, "refuses %s: %v", s.short(p.id), err)
			var wrong *Problem
			if errors.As(err, &wrong) && wrong.Code < 500 {
				s.problem("a request that is as it should be was refused: %v", err)
			}
			return
		}
		s.note(at, "promises %s at %d", s.short(p.id), created.Position)
		s.left("promise", created.ID, created.Position)
		if created.ID != p.id || p.acked && created.Position != p.position {
			s.problem("I1: %s was promised at %d, and now as %s at %d", p.id, p.position, created.ID, created.Position)
		}
		if c := s.log.stored[created.Position-1]; c.ID != p.id || c.Version != 1 {
			s.problem("I1: what was promised at %d is commit %d of %s", created.Position, c.Version, s.short(c.ID))
		}
		if !p.acked {
			p.acked, p.position = true, created.Position
			c.asking--
			c.mischief(p, sub)
		}
	})
}

// mischief is what clients do later: ask once more, or use the ID for something else.
func (c *simClient) mischief(p *promise, sub Submission) {
	s := c.s
	if s.chance(20) {
		s.hit(requestAgain)
		s.after(s.upto(20*time.Second), nil, func() { c.once(p, sub, s.anyAlive()) })
	}
	if s.chance(10) {
		s.after(s.upto(20*time.Second), nil, func() {
			at := s.anyAlive()
			if at == nil {
				return
			}
			other := sub
			other.Body = p.other
			s.run(at, func() {
				_, err := at.o.Create(context.Background(), other)
				var wrong *Problem
				switch {
				case err == nil:
					s.problem("I1: %s was promised for two different requests", s.short(p.id))
				case errors.As(err, &wrong) && wrong.kind() == string(ProblemReused):
					s.hit(requestReused)
				}
			})
		})
	}
}
