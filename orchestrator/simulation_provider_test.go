package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// simProvider is the provider and the place where its files are. Its journal is
// what the judge believes.
type simProvider struct {
	s       *simulation
	tasks   map[string]*simTask
	order   []*simTask
	used    map[uint64]bool // claims for which a call was made, by sequence
	urls    map[string]*simTask
	given   time.Duration // how long an address lasts
	bodies  map[int][]provider.Result
	flights []*flight
	replies int
}

// simTask is a task that the provider has taken, or refused for good.
type simTask struct {
	provider.Result
	generation events.ID
	slot, try  int
	ready      time.Time
	never      bool
	refused    bool
	tooLarge   bool // its file is more than we keep
	addresses  int
	expires    time.Time // of the last address
	hook       string
}

// flight is a create call on its way.
type flight struct {
	from    *process
	at      time.Time
	arrived bool
	arrive  func()
}

func (v *simProvider) Check(string, json.RawMessage, int) error { return nil }

func (v *simProvider) Create(ctx context.Context, call provider.Call) (provider.Answer, error) {
	s, p := v.s, v.s.current.in
	v.claimed(p, call)
	s.note(p, "calls for %s: %v", s.short(call.Generation), v.names(call.Generation, call.Tasks))
	a := provider.Answer{Refused: map[string]provider.ErrorOnce{}, Declined: map[string]provider.ErrorOnce{}}
	took := s.upto(2 * time.Second)
	switch {
	case s.bad(callUnreachable):
		return a, fail(provider.Unreachable, "unreachable", events.Connection, 0)
	case s.bad(callLost):
		s.sleep(took)
		return a, fail(provider.Ambiguous, "lost", events.Connection, 0)
	case s.bad(callAmbiguous):
		v.send(p, took+2*time.Second, func() { v.take(call, &a) })
		s.sleep(took)
		return a, fail(provider.Ambiguous, "cut", events.Connection, 0)
	case s.bad(callTimedOut):
		v.send(p, 32*time.Second, func() { v.take(call, &a) })
		end, _ := over(ctx)
		s.sleep(end.Sub(s.now))
		return a, fail(provider.Ambiguous, "timeout", events.Timeout, 0)
	case s.bad(callBusy):
		s.sleep(took)
		return a, fail(provider.Busy, "busy", events.RateLimit, s.upto(7*time.Second))
	case s.bad(callAccount):
		s.sleep(took)
		return a, fail(provider.Account, "credit", events.Quota, 0)
	case s.bad(callRefused):
		for _, t := range call.Tasks {
			v.tasks[t.ID] = &simTask{refused: true, generation: call.Generation, slot: t.Slot, try: t.Try}
			v.order = append(v.order, v.tasks[t.ID])
		}
		s.sleep(took)
		return a, fail(provider.Refused, "refused", events.Validation, 0)
	}
	fl := v.send(p, took, func() { v.take(call, &a) })
	s.sleep(fl.at.Sub(s.now) + s.upto(500*time.Millisecond))
	for _, t := range call.Tasks {
		switch k := v.tasks[t.ID]; {
		case k == nil || k.refused || k.never || k.ready.After(s.now):
		case s.bad(answerHasResults):
			a.Results = append(a.Results, v.result(k))
		}
	}
	v.replies++
	a.Reply = inline.Reply{Digest: fmt.Sprintf("%032x", v.replies)}
	return a, nil
}

func fail(k provider.Kind, code string, c events.Class, after time.Duration) *provider.Error {
	return &provider.Error{Kind: k, After: after, Err: events.Error{Code: code, Class: c}}
}

// claimed checks a call before it is sent: it has a claim of its own that is on
// disk, and what it asks for was definitely not had before (I14, I17).
func (v *simProvider) claimed(p *process, call provider.Call) {
	s := v.s
	var claim *storedCommit
	for i := range s.log.stored {
		c := &s.log.stored[i]
		if c.ID != call.Generation || v.used[c.Sequence] {
			continue
		}
		for _, e := range c.commit.Events {
			if d, ok := e.(events.Dispatching); ok && d.By == p.String() && slices.Equal(d.Tasks, call.Tasks) {
				claim = c
			}
		}
	}
	if claim == nil {
		s.problem("I14: %s calls for %s without a claim: %v", p, s.short(call.Generation), v.names(call.Generation, call.Tasks))
		return
	}
	v.used[claim.Sequence] = true
	s.left("call", call.Generation, claim.Sequence)
	for _, t := range call.Tasks {
		if want := events.TaskID(call.Generation, t.Slot, t.Try); t.ID != want {
			s.problem("I14: task of %s %d.%d has an ID that nobody can derive", s.short(call.Generation), t.Slot, t.Try)
		}
		if t.Try == 1 {
			continue
		}
		before := v.tasks[events.TaskID(call.Generation, t.Slot, t.Try-1)]
		switch {
		case before == nil || before.refused || before.never || before.ready.After(s.now) || before.Error == nil:
			s.problem("I14: %s %d.%d is asked for without a definite no to the try before", s.short(call.Generation), t.Slot, t.Try)
		case before.Error.Class.Account():
		case !before.Error.Class.Retryable() || t.Try > 2:
			s.problem("I14: %s %d.%d is asked for after %s", s.short(call.Generation), t.Slot, t.Try, before.Error.Code)
		}
	}
}

// send has something arrive at the provider within d, whatever becomes of the sender.
func (v *simProvider) send(p *process, d time.Duration, arrive func()) *flight {
	f := &flight{from: p, at: v.s.now.Add(v.s.upto(d)), arrive: arrive}
	v.flights = append(v.flights, f)
	v.s.plan(f.at, nil, f.land)
	return f
}

func (f *flight) land() {
	if !f.arrived {
		f.arrived = true
		f.arrive()
	}
}

// orphan is the end of a sender: what he sent arrives soon, or never.
func (v *simProvider) orphan(p *process) {
	s := v.s
	for _, f := range v.flights {
		if f.from != p || f.arrived {
			continue
		}
		switch soon := s.now.Add(s.upto(2 * time.Second)); {
		case s.chance(40):
			f.arrived = true // it was not sent to the end
		case f.at.After(soon):
			s.hit(lateArrival)
			s.plan(soon, nil, f.land)
		}
	}
	v.flights = slices.DeleteFunc(v.flights, func(f *flight) bool { return f.arrived })
}

// take is the provider's side of a create call.
func (v *simProvider) take(call provider.Call, a *provider.Answer) {
	s := v.s
	for _, t := range call.Tasks {
		k := v.tasks[t.ID]
		if k != nil && !k.refused {
			s.problem("I14: %s %d.%d is sent although the provider has it", s.short(call.Generation), t.Slot, t.Try)
			continue
		}
		switch {
		case k != nil:
			a.Refused[t.ID] = provider.ErrorOnce{Error: events.Error{Code: "refused", Class: events.Validation}}
			continue
		case s.bad(taskRefused):
			v.tasks[t.ID] = &simTask{refused: true, generation: call.Generation, slot: t.Slot, try: t.Try}
			v.order = append(v.order, v.tasks[t.ID])
			a.Refused[t.ID] = provider.ErrorOnce{Error: events.Error{Code: "refused", Class: events.Validation}}
			continue
		case s.bad(taskDeclined):
			a.Declined[t.ID] = provider.ErrorOnce{Error: events.Error{Code: "busy", Class: events.RateLimit}, After: s.upto(8 * time.Second)}
			continue
		case s.bad(taskSilent):
		default:
			a.Accepted = append(a.Accepted, t.ID)
		}
		v.begin(call, t)
	}
}

func (v *simProvider) begin(call provider.Call, t events.Task) {
	s := v.s
	cost := int64(1_000_000 + s.rng.IntN(1_000_000))
	k := &simTask{generation: call.Generation, slot: t.Slot, try: t.Try, ready: s.now.Add(s.upto(15 * time.Second)), hook: call.Webhook}
	k.Task, k.Seed, k.Cost = t.ID, strconv.Itoa(s.rng.IntN(1000)), &cost
	switch {
	case s.bad(taskNever):
		k.never = true
	case s.bad(taskFails):
		k.Error = &events.Error{Code: "server", Class: events.Server}
	case s.bad(taskUnsafe):
		k.Error = &events.Error{Code: "unsafe", Class: events.Safety}
	case s.bad(taskAccount):
		k.Error = &events.Error{Code: "credit", Class: events.Quota}
	case s.bad(fetchTooLarge):
		k.tooLarge = true
	}
	v.tasks[t.ID] = k
	v.order = append(v.order, k)
	s.note(nil, "provider takes %s %d.%d, ready at +%s, error %v", s.short(k.generation), k.slot, k.try, k.ready.Sub(s.start), k.Error)
	if k.hook != "" && !k.never {
		v.promiseHook(k)
	}
}

// result is what the provider says of a task that is ready. An address lasts for a
// while; whoever asks after that is given another.
func (v *simProvider) result(k *simTask) provider.Result {
	r := k.Result
	if r.Error != nil {
		r.Seed, r.Cost = "", nil
		return r
	}
	if !v.s.now.Before(k.expires) {
		k.addresses++
		k.expires = v.s.now.Add(v.given)
		v.urls[k.address()] = k
	}
	r.URL = k.address()
	return r
}

func (k *simTask) address() string {
	return "https://cdn.test/" + k.Task + "/" + strconv.Itoa(k.addresses)
}

func (v *simProvider) Look(ctx context.Context, tasks []string) (provider.Answer, error) {
	s := v.s
	var a provider.Answer
	d := s.upto(900 * time.Millisecond)
	if s.bad(lookFails) {
		if s.chance(20) {
			end, _ := over(ctx)
			d = end.Sub(s.now)
		}
		s.sleep(d)
		return a, fail(provider.Ambiguous, "look", events.Server, 0)
	}
	s.sleep(d / 2)
	for _, task := range tasks {
		switch k := v.tasks[task]; {
		case k == nil || k.refused:
			a.Unknown = append(a.Unknown, task)
		case s.bad(lookSilent):
		case k.never || k.ready.After(s.now):
			a.Accepted = append(a.Accepted, task)
		default:
			a.Results = append(a.Results, v.result(k))
		}
	}
	v.replies++
	a.Reply = inline.Reply{Digest: fmt.Sprintf("%032x", v.replies)}
	s.sleep(d / 2)
	return a, nil
}

// Fetch implements fetcher: the provider's files, and the bucket.
func (v *simProvider) Fetch(ctx context.Context, url string, id events.ID, slot int) (events.File, error) {
	s := v.s
	d := s.upto(1500 * time.Millisecond)
	k := v.urls[url]
	if k == nil || k.generation != id || k.slot != slot {
		s.problem("%s %d fetches %s, which nobody has told it", s.short(id), slot, url)
		return events.File{}, errBucket
	}
	if url != k.address() || !s.now.Before(k.expires) {
		s.hit(fileGone)
		s.sleep(d / 8)
		return events.File{}, &blob.FetchError{Code: events.CodeFetchGone, Err: errors.New("404")}
	}
	if s.bad(fetchBroken) {
		s.sleep(d)
		return events.File{}, &blob.FetchError{Err: errors.New("broken")}
	}
	if k.tooLarge {
		s.sleep(d / 8)
		return events.File{}, &blob.FetchError{Code: events.CodeFetchSize, Err: errors.New("too large")}
	}
	s.sleep(d)
	s.blobs++
	f := events.File{BlobKey: fmt.Sprintf("generations/%s/%d-%d.png", id, slot, s.blobs), ContentType: "image/png", Size: int64(len(k.Task)), SHA256: k.Task}
	switch {
	case s.bad(bucketDown):
		return events.File{}, errBucket
	case s.bad(fetchTorn):
		torn := f
		torn.Size /= 2
		s.bucket[f.BlobKey] = torn
		return events.File{}, errBucket
	}
	s.bucket[f.BlobKey] = f
	if s.bad(diesInFetch) {
		s.kill(s.current.in)
		s.die()
	}
	return f, nil
}

func (v *simProvider) names(id events.ID, tasks []events.Task) string {
	var b strings.Builder
	for _, t := range tasks {
		fmt.Fprintf(&b, " %d.%d", t.Slot, t.Try)
	}
	return b.String()
}
