package runware

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
)

// Create implements provider.Provider.
func (p *Provider) Create(ctx context.Context, call provider.Call) (provider.Answer, error) {
	body, err := payload(call, p.cfg.TTL)
	if err != nil {
		return provider.Answer{}, &provider.Error{Kind: provider.Refused, Cause: err, Err: events.Error{
			Code: events.CodeInput, Message: "the input cannot be sent to this provider", Class: events.Validation,
		}}
	}
	r, gone := p.post(ctx, p.turns.Turn(ctx), body)
	if gone != nil {
		return provider.Answer{}, gone
	}
	tasks := make([]string, len(call.Tasks))
	for i, t := range call.Tasks {
		tasks[i] = t.ID
	}
	answer, refusal := p.created(tasks, r)
	if refusal != nil {
		r.Close()
		return provider.Answer{}, refusal
	}
	answer.Reply = r.Reply
	return answer, nil
}

// payload is the body of a create call: one task per output slot.
func payload(call provider.Call, ttl time.Duration) ([]byte, error) {
	fields, err := fieldsOf(call.Input)
	if err != nil {
		return nil, err
	}
	defaults := func(key, value string) {
		if _, ok := fields[key]; !ok {
			fields[key] = quote(value)
		}
	}
	defaults("taskType", taskTypes()[0])
	defaults("outputType", outputTypes()[0])
	fields["model"] = quote(call.Model)
	fields["numberResults"] = json.RawMessage("1")
	fields["deliveryMethod"] = quote("async")
	fields["includeCost"] = json.RawMessage("true")
	if fields.text("outputType") == "URL" {
		fields["ttl"] = fmt.Append(nil, int64(ttl/time.Second))
	}
	if call.Webhook != "" {
		fields["webhookURL"] = quote(call.Webhook)
	}
	return list(call.Tasks, fields)
}

// list writes a task for each of tasks, which differ in their ID and seed only. The
// keys are in the order of their names.
func list(tasks []events.Task, fields item) ([]byte, error) {
	fields["taskUUID"] = nil
	keys, size := make([]string, 0, len(fields)), 40
	for k, v := range fields {
		keys = append(keys, k)
		size += len(k) + len(v) + len(`"":,`)
		if len(v) > 0 && (v[0] == '{' || v[0] == '[') {
			var compact bytes.Buffer
			if err := json.Compact(&compact, v); err != nil {
				return nil, fmt.Errorf("input %s: %w", k, err)
			}
			fields[k] = compact.Bytes()
		}
	}
	slices.Sort(keys)
	b := append(make([]byte, 0, 2+size*len(tasks)), '[')
	for i, t := range tasks {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		for j, k := range keys {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(appendQuoted(b, k), ':')
			switch v := fields[k]; k {
			case "taskUUID":
				b = appendQuoted(b, t.ID)
			case "seed":
				seed, ok := seedPlus(v, t.Slot)
				if !ok {
					return nil, fmt.Errorf("seed %s plus slot %d is no seed", v, t.Slot)
				}
				b = append(b, seed...)
			default:
				b = append(b, v...)
			}
		}
		b = append(b, '}')
	}
	return append(b, ']'), nil
}

// encode is JSON without the escaping for HTML; v is of a kind that always has one.
func encode(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("runware: cannot encode: " + err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}

// created sorts the answer to a create call.
func (p *Provider) created(tasks []string, r reply) (provider.Answer, *provider.Error) {
	in, ok := partsOf(r.Body)
	if !ok {
		return provider.Answer{}, p.whole(r, nil)
	}
	a := answering{p: p, http: r.http, after: r.after, open: map[string]bool{}}
	for _, t := range tasks {
		a.open[t] = true
	}
	for _, i := range in.data {
		a.data(i)
	}
	var general item // an error that names no task is about all that nothing else is said of
	for _, e := range in.errs {
		switch task := e.task(); {
		case task != "":
			a.refusal(task, e)
		case general == nil:
			general = e
		}
	}
	if len(a.open) == len(tasks) && len(a.Results) == 0 && !a.vague {
		if len(tasks) == 1 && duplicate(general) {
			a.Accepted = tasks
			return a.Answer, nil
		}
		return a.Answer, p.whole(r, general)
	}
	if general != nil && !duplicate(general) {
		for _, t := range slices.Sorted(maps.Keys(a.open)) {
			a.refusal(t, general)
		}
	}
	if len(a.open) == len(tasks) {
		return a.Answer, &provider.Error{Kind: provider.Ambiguous, Err: p.errorOf(in.errs[0], r.http)}
	}
	return a.Answer, a.inUnison(len(tasks))
}

// answering gathers what an answer says of each task; the first word counts.
type answering struct {
	provider.Answer
	p     *Provider
	http  int
	after time.Duration
	open  map[string]bool // tasks of which nothing is said yet
	vague bool            // of one of them something was said that is not definite
}

func (a *answering) data(i item) {
	task := i.task()
	if !a.open[task] {
		return
	}
	delete(a.open, task)
	switch i.word() {
	case finished, failed:
		a.Results = append(a.Results, a.p.result(task, i))
	default:
		a.Accepted = append(a.Accepted, task)
	}
}

func (a *answering) refusal(task string, e item) {
	if !a.open[task] {
		return
	}
	err := a.p.errorOf(e, a.http)
	switch {
	case duplicate(e):
		a.Accepted = append(a.Accepted, task)
	case err.Class.Account() || err.Class == events.RateLimit || notNow(e.text("code")) && a.http < 500:
		if a.Declined == nil {
			a.Declined = map[string]provider.ErrorOnce{}
		}
		a.Declined[task] = provider.ErrorOnce{Error: err, After: a.after}
	case err.Class.Retryable() && a.http >= 500:
		a.vague = true
		return // its own trouble: it may have the task all the same
	case err.Class.Retryable():
		a.Results = append(a.Results, provider.Result{Task: task, Error: &err})
	default:
		if a.Refused == nil {
			a.Refused = map[string]provider.ErrorOnce{}
		}
		a.Refused[task] = provider.ErrorOnce{Error: err}
	}
	delete(a.open, task)
}

// inUnison is the error of the whole call, if all of its n tasks were declined
// for the same cause.
func (a *answering) inUnison(n int) *provider.Error {
	if len(a.Declined) != n {
		return nil
	}
	var kind provider.Kind
	var one provider.ErrorOnce
	for _, t := range slices.Sorted(maps.Keys(a.Declined)) {
		one = a.Declined[t]
		k := provider.Busy
		if one.Error.Class.Account() {
			k = provider.Account
		}
		if kind != 0 && k != kind {
			return nil
		}
		kind = k
	}
	if kind == provider.Account {
		one.After = 0
	}
	return &provider.Error{Kind: kind, After: one.After, Err: one.Error}
}

// duplicate says whether an error is about a task UUID that was used before:
// the task of that name is there, so it is accepted.
func duplicate(e item) bool {
	code := e.text("code")
	if !strings.HasPrefix(code, "duplicate") && !strings.HasPrefix(code, "conflict") {
		return false
	}
	if strings.Contains(strings.ToLower(code), "taskuuid") || e.text("parameter") == "taskUUID" {
		return true
	}
	var list []string
	return json.Unmarshal(e["parameter"], &list) == nil && slices.Contains(list, "taskUUID")
}
