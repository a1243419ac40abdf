package providertest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/inline"
)

func accepted(r *rig) {
	c := r.call(3, "a fox")
	c.Webhook = "http://us.test/accepted"
	a := r.mustCreate(c)
	r.same("accepted", append(a.Accepted, tasksOf(a.Results)...), ids(c))
	if now := r.look(ids(c)...); len(now.Accepted)+len(now.Results) != 3 || len(now.Unknown) > 0 {
		r.Errorf("a look at once: %+v", now)
	}
	var seen []string
	for _, p := range r.delivered("/accepted") {
		for _, x := range p.results {
			seen = append(seen, x.Task)
			r.download(x)
		}
	}
	r.same("delivered", seen, ids(c))
	r.same("results of a look", tasksOf(r.look(ids(c)...).Results), ids(c))
}

// download holds a result's URL against what the journal says of its file.
func (r *rig) download(x provider.Result) {
	r.Helper()
	if x.Error != nil || x.URL == "" {
		r.Fatalf("result %+v: want a URL", x)
	}
	resp, err := (&http.Client{Transport: Transport(r.sim)}).Get(x.URL)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		r.Fatalf("GET %s: %d", x.URL, resp.StatusCode)
	}
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		r.Fatal(err)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != r.ledger()[x.Task].Output.SHA256 {
		r.Errorf("task %s: the file is %s, and by the journal %s", x.Task, sum, r.ledger()[x.Task].Output.SHA256)
	}
}

func refused(r *rig) {
	c := r.call(3, "a fox [[refuse:2]]")
	a := r.mustCreate(c)
	r.same("accepted", a.Accepted, []string{c.Tasks[0].ID, c.Tasks[2].ID})
	no, ok := a.Refused[c.Tasks[1].ID]
	if !ok || no.Error.Class != events.Validation || no.Error.Code == "" || no.Error.Message == "" {
		r.Errorf("refused: %+v", a.Refused)
	}
	c = r.call(2, "a cat [[refuse:1 rateLimitExceeded]]")
	c.Tasks[0].ID, c.Tasks[1].ID = events.TaskID(Generation, 10, 1), events.TaskID(Generation, 11, 1)
	a = r.mustCreate(c)
	if no, ok := a.Declined[c.Tasks[0].ID]; !ok || no.Error.Class != events.RateLimit || len(a.Refused) > 0 {
		r.Errorf("declined: %+v, refused: %+v", a.Declined, a.Refused)
	}
}

func refusedWhole(r *rig) {
	c := r.call(2, "a fox")
	c.Model = "sim:unknown@1"
	a, err := r.create(c)
	if e := provider.AsError(err); err != nil && e.Kind != provider.Refused {
		r.Fatalf("create: %v", err)
	} else if err == nil && len(a.Refused) != 2 {
		r.Fatalf("answer %+v: want 2 refused", a)
	}
	r.same("unknown afterwards", r.look(ids(c)...).Unknown, ids(c))
}

func busy(r *rig) {
	c := r.call(2, "a fox [[busy]]")
	if e := r.fails(c, provider.Busy); e.After != time.Second || e.Err.Class != events.RateLimit {
		r.Errorf("error %+v: want rate_limit, and again after 1 s", e)
	}
	r.same("accepted then", r.mustCreate(c).Accepted, ids(c))
}

func account(r *rig) {
	for code, class := range map[int]events.Class{401: events.Auth, 402: events.Quota, 403: events.Auth} {
		r.sim.SetAccount(code)
		if e := r.fails(r.call(2, "a fox"), provider.Account); e.Err.Class != class {
			r.Errorf("%d: class %s, want %s", code, e.Err.Class, class)
		}
	}
	r.sim.SetAccount(0)
	c := r.call(2, "a fox")
	r.same("accepted then", r.mustCreate(c).Accepted, ids(c))
}

func ambiguous(r *rig) {
	c := r.call(2, "a fox [[ambiguous]]")
	r.fails(c, provider.Ambiguous)
	r.same("found", r.look(ids(c)...).Accepted, ids(c))
	time.Sleep(time.Minute)
	r.same("made", tasksOf(r.look(ids(c)...).Results), ids(c))
}

func silence(r *rig) {
	c := r.call(2, "a fox [[hang]]")
	r.fails(c, provider.Ambiguous)
	r.same("made", tasksOf(r.look(ids(c)...).Results), ids(c))
}

func broken(r *rig) {
	c := r.call(2, "a fox [[broken]]")
	r.fails(c, provider.Ambiguous)
	r.same("not found", r.look(ids(c)...).Unknown, ids(c))
	r.same("accepted then", r.mustCreate(c).Accepted, ids(c))
}

func unknown(r *rig) {
	c := r.call(1, "a fox")
	r.mustCreate(c)
	stranger := events.TaskID(Generation, 7, 1)
	a := r.look(c.Tasks[0].ID, stranger)
	r.same("unknown", a.Unknown, []string{stranger})
	r.same("known", append(a.Accepted, tasksOf(a.Results)...), ids(c))
	r.same("alone", r.look(stranger).Unknown, []string{stranger})
}

func vague(r *rig) {
	c := r.call(3, "a fox [[vague]] [[fail:2]] [[take:3 1h]]")
	r.mustCreate(c)
	time.Sleep(time.Minute)
	stranger := events.TaskID(Generation, 7, 1)
	a := r.look(append(ids(c), stranger)...)
	r.same("unknown", a.Unknown, []string{stranger})
	r.same("finished", tasksOf(a.Results), []string{c.Tasks[0].ID, c.Tasks[1].ID})
	r.same("being made", a.Accepted, []string{c.Tasks[2].ID})
	for _, x := range a.Results {
		if good := x.Task == c.Tasks[0].ID; good != (x.Error == nil) {
			r.Errorf("result %+v", x)
		}
	}
	if strings.Contains(string(a.Reply.Body), "positivePrompt") {
		r.Errorf("the request is repeated in %s", a.Reply.Body)
	}
}

func twice(r *rig) {
	c := r.call(2, "a fox")
	r.mustCreate(c)
	again := r.mustCreate(c)
	r.same("accepted again", append(again.Accepted, tasksOf(again.Results)...), ids(c))
	time.Sleep(time.Minute)
	for _, t := range ids(c) {
		if l := r.ledger()[t]; l.Taken != 1 || l.Asked != 2 || l.Output == nil {
			r.Errorf("task %s: %+v, want taken once", t, l)
		}
	}
}

func failing(r *rig) {
	c := r.call(3, "a fox [[fail:2 timeoutProvider]] [[fail:3]] [[flat:3]]")
	c.Webhook = "http://us.test/failing"
	r.mustCreate(c)
	want := map[string]events.Class{c.Tasks[0].ID: "", c.Tasks[1].ID: events.Timeout, c.Tasks[2].ID: events.Safety}
	check := func(results []provider.Result) {
		r.Helper()
		for _, x := range results {
			if class := want[x.Task]; class == "" && x.Error != nil || class != "" && (x.Error == nil || x.Error.Class != class || x.URL != "") {
				r.Errorf("result %+v, want class %q", x, class)
			}
		}
	}
	var seen []provider.Result
	for _, p := range r.delivered("/failing") {
		seen = append(seen, p.results...)
	}
	r.same("delivered", tasksOf(seen), ids(c))
	check(seen)
	a := r.look(ids(c)...)
	r.same("looked at", tasksOf(a.Results), ids(c))
	check(a.Results)
}

func answered(r *rig) {
	c := r.call(2, "a fox [[sync]]")
	a := r.mustCreate(c)
	r.same("in the answer", tasksOf(a.Results), ids(c))
	for _, x := range a.Results {
		r.download(x)
	}
}

func inlined(r *rig) {
	for i, kind := range []string{"base64Data", "dataURI"} {
		c := r.call(1, "a fox [[sync]]", `"outputType":"`+kind+`"`)
		c.Tasks[0].ID = events.TaskID(Generation, i, 2)
		c.Webhook = "http://us.test/" + kind
		check := func(way string, reply inline.Reply, results []provider.Result) {
			r.Helper()
			if len(results) != 1 || results[0].Error != nil || results[0].URL != "" {
				r.Fatalf("%s: results %+v", way, results)
			}
			sum := sha256.Sum256(r.read(reply, results[0].Inline))
			if got := hex.EncodeToString(sum[:]); got != r.ledger()[c.Tasks[0].ID].Output.SHA256 {
				r.Errorf("%s: the file differs from the journal's", way)
			}
		}
		a := r.mustCreate(c)
		check("create", a.Reply, a.Results)
		posts := r.delivered("/" + kind)
		if len(posts) != 1 {
			r.Fatalf("%d webhooks, want 1", len(posts))
		}
		check("webhook", posts[0].reply, posts[0].results)
		a = r.look(ids(c)...)
		check("look", a.Reply, a.Results)
	}
}

func exact(r *rig) {
	const seed = "9007199254740993" // 2^53 + 1
	c := r.call(1, "a fox", `"seed":`+seed)
	c.Input = []byte(strings.Replace(string(c.Input), `"width":64`, `"width":1000`, 1))
	r.mustCreate(c)
	time.Sleep(time.Minute)
	a := r.look(ids(c)...)
	if len(a.Results) != 1 {
		r.Fatalf("results %+v", a.Results)
	}
	x, line := a.Results[0], r.ledger()[c.Tasks[0].ID]
	if x.Seed != seed || line.Output.Seed != seed {
		r.Errorf("seed %s, by the journal %s, want %s", x.Seed, line.Output.Seed, seed)
	}
	if x.Cost == nil || *x.Cost != line.Output.Cost || *x.Cost != 79345 {
		r.Errorf("cost %v, by the journal %d, want 79345", x.Cost, line.Output.Cost)
	}
}

func seeds(r *rig) {
	c := r.call(3, "a fox", `"seed":41`)
	c.Tasks = c.Tasks[1:] // a retry of slots 1 and 2
	r.mustCreate(c)
	time.Sleep(time.Minute)
	for _, x := range r.look(ids(c)...).Results {
		if want := map[string]string{c.Tasks[0].ID: "42", c.Tasks[1].ID: "43"}[x.Task]; x.Seed != want {
			r.Errorf("task %s has seed %s, want %s", x.Task, x.Seed, want)
		}
	}
}

func alien(r *rig) {
	for _, body := range []string{``, `null`, `7`, `"x"`, `[1]`, `{"hello":"world"}`} {
		if got, err := r.p.Parse([]byte(body)); err == nil {
			r.Errorf("%s: results %+v, want an error", body, got)
		}
	}
}
