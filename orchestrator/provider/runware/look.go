package runware

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

// Look implements provider.Provider. It asks getResponse, and then getTaskDetails
// about the tasks that getResponse leaves between "failed" and "not found".
// After two questions the Reply has the digest and the files of both answers; its body is
// an array of the first answer and of what the second says of responses. The
// requests that the second repeats are left out: the webhook's token is in them.
func (p *Provider) Look(ctx context.Context, tasks []string) (provider.Answer, error) {
	turn := p.turns.Turn(ctx) // one for both answers: whoever holds a place waits for no other
	r, gone := p.ask(ctx, turn, "getResponse", tasks)
	if gone != nil {
		return provider.Answer{}, gone
	}
	l := looking{answering: answering{p: p, http: r.http, open: map[string]bool{}}, missing: map[string]bool{}}
	for _, t := range tasks {
		l.open[t] = true
	}
	in, ok := partsOf(r.Body)
	if !ok {
		r.Close()
		return provider.Answer{}, p.whole(r, nil)
	}
	doubtful := l.first(in)
	if len(doubtful) == 0 && len(l.open) == len(tasks) && len(tasks) > 0 {
		r.Close()
		return provider.Answer{}, p.whole(r, first(in.errs))
	}
	if len(doubtful) > 0 {
		if gone := l.second(ctx, turn, doubtful, &r); gone != nil && len(l.open) == len(tasks) {
			r.Close()
			return provider.Answer{}, gone
		}
	}
	l.Reply = r.Reply
	return l.Answer, nil
}

func first(errs []item) item {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// ask puts one question about many tasks.
func (p *Provider) ask(ctx context.Context, turn *inline.Turn, question string, tasks []string) (reply, *provider.Error) {
	type task struct {
		TaskType string `json:"taskType"`
		TaskUUID string `json:"taskUUID"`
	}
	list := make([]task, len(tasks))
	for i, t := range tasks {
		list[i] = task{question, t}
	}
	return p.post(ctx, turn, encode(list))
}

type looking struct {
	answering
	missing map[string]bool // getResponse may have said that there is no such task
}

// first reads the answer of getResponse and returns the tasks that need a second question.
func (l *looking) first(in parts) (doubtful []string) {
	doubt := func(task, code string) {
		if l.open[task] && !slices.Contains(doubtful, task) {
			doubtful = append(doubtful, task)
			l.missing[task] = missingTask(code)
		}
	}
	sort := func(e item) {
		switch task, code := e.task(), e.text("code"); {
		case task == "" && missingTask(code):
			for _, t := range slices.Sorted(maps.Keys(l.open)) {
				doubt(t, code)
			}
		case task == "" || !l.open[task]:
		case missingTask(code):
			doubt(task, code)
		case e.text("status") == "error":
			l.settle(l.p.failure(task, e))
		case e.text("taskType") == "getResponse":
			// It is about the question, not about the task.
		default:
			l.unmarked(e, doubt)
		}
	}
	for _, i := range in.data {
		if i.word() == failed {
			sort(i.flattened())
		} else {
			l.data(i)
		}
	}
	// Errors that name a task come first: one that names none is about the rest.
	for _, named := range []bool{true, false} {
		for _, e := range in.errs {
			if (e.task() != "") == named {
				sort(e)
			}
		}
	}
	return doubtful
}

// unmarked is an error that does not say whether the task failed or the question did.
func (l *looking) unmarked(e item, doubt func(task, code string)) {
	switch c := classOf(e.text("code")); c {
	case events.Auth, events.Quota, events.RateLimit:
	case events.Server, events.Unknown, events.NotFound:
		doubt(e.task(), e.text("code"))
	default:
		l.settle(l.p.failure(e.task(), e))
	}
}

func (l *looking) settle(r provider.Result) {
	delete(l.open, r.Task)
	l.Results = append(l.Results, r)
}

// second asks getTaskDetails, and adds that answer to the reply of the first.
// An error means that there was none, or none that can be read.
func (l *looking) second(ctx context.Context, turn *inline.Turn, doubtful []string, r *reply) *provider.Error {
	d, gone := l.p.ask(ctx, turn, "getTaskDetails", doubtful)
	if gone != nil {
		return gone
	}
	in, ok := partsOf(d.Body)
	if !ok {
		d.Close()
		return l.p.whole(d, nil)
	}
	shift := len(r.Files)
	r.Files = append(r.Files, d.Files...)
	r.Digest = events.Digest([]byte(r.Digest + d.Digest))
	said := []json.RawMessage{r.Body}
	for _, i := range in.data {
		if task := i.task(); l.open[task] && i.word() != failed {
			said = append(said, fmt.Appendf(nil, `{"taskUUID":%s,"response":%s}`, quote(task), orNull(i["response"])))
			l.detail(task, i["response"], shift)
		} else if i.word() == failed {
			in.errs = append(in.errs, i.flattened())
		}
	}
	for _, e := range in.errs {
		task := e.task()
		if task == "" && len(doubtful) == 1 {
			task = doubtful[0]
		}
		if code := e.text("code"); l.open[task] && l.missing[task] && missingTask(code) {
			delete(l.open, task)
			l.Unknown = append(l.Unknown, task)
			said = append(said, fmt.Appendf(nil, `{"taskUUID":%s,"code":%s}`, quote(task), quote(code)))
		}
	}
	r.Body = join(said)
	return nil
}

// detail reads what getTaskDetails says was answered about one task. That it is
// known at all means that it was taken.
func (l *looking) detail(task string, response json.RawMessage, shift int) {
	in, _ := partsOf(response)
	for _, i := range in.data {
		if w := i.word(); w != finished && w != failed {
			continue
		}
		result := l.p.result(task, i)
		if result.Inline > 0 {
			result.Inline += shift
		}
		l.settle(result)
		return
	}
	for _, e := range in.errs {
		if !duplicate(e) {
			l.settle(l.p.failure(task, e))
			return
		}
	}
	delete(l.open, task)
	l.Accepted = append(l.Accepted, task)
}

func orNull(v json.RawMessage) json.RawMessage {
	if len(v) == 0 {
		return json.RawMessage("null")
	}
	return v
}

func join(list []json.RawMessage) []byte {
	b := []byte{'['}
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, bytes.TrimSpace(v)...)
	}
	return append(b, ']')
}
