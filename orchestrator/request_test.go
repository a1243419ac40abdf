package orchestrator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// asker is enough of an orchestrator to read requests: two instances of the real
// Runware client, which is never called.
func asker() *Orchestrator {
	o := &Orchestrator{lanes: map[string]*lane{}}
	for _, name := range []string{"first", "second"} {
		p := runware.New(runware.Config{Name: name})
		o.cfg.Providers = append(o.cfg.Providers, Instance{Name: name, Provider: p})
		o.lanes[name] = newLane(name, p, Limits{})
	}
	return o
}

const plain = `{"model":"runware:101@1","input":{"positivePrompt":"a red fox"}}`

func TestWhatIsLeftOutHasADefault(t *testing.T) {
	now := events.Now()
	r, err := asker().parse([]byte(plain), now)
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "runware:101@1" || r.ExpectedCount != 1 || r.Provider != "first" || string(r.Input) != `{"positivePrompt":"a red fox"}` ||
		!r.Deadline.Equal(now.Add(10*time.Minute)) || r.Labels != nil || len(r.Digest) != 32 {
		t.Errorf("request is %+v", r)
	}
}

func TestWhatIsSaidIsKept(t *testing.T) {
	now := events.Now()
	r, err := asker().parse([]byte(` {"model":"runware:101@1","count":20,"provider":"second","deadline":"1m30s","labels":{"user":"42","a.b-c_9":""},
		"input": { "positivePrompt" : "<b> & \u2028", "width": 1024.0, "seed": 7 } } `), now)
	if err != nil {
		t.Fatal(err)
	}
	if r.ExpectedCount != 20 || r.Provider != "second" || !r.Deadline.Equal(now.Add(90*time.Second)) || r.Labels["user"] != "42" ||
		string(r.Input) != `{"positivePrompt":"<b> & \u2028","width":1024.0,"seed":7}` {
		t.Errorf("request is %+v, input %s", r, r.Input)
	}
}

func TestBadRequestIsToldWhichField(t *testing.T) {
	with := func(field string) string { return strings.TrimSuffix(plain, "}") + "," + field + "}" }
	input := func(text string) string { return `{"model":"runware:101@1","input":` + text + `}` }
	labels := func(n int) string {
		all := map[string]string{}
		for i := range n {
			all[fmt.Sprint("label", i)] = "x"
		}
		b, _ := json.Marshal(all)
		return with(`"labels":` + string(b))
	}
	malformed, invalid, large := http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge
	for _, c := range []struct {
		name, body string
		code       int
		location   string
	}{
		{"nothing", "", malformed, "body"},
		{"not JSON", "a red fox", malformed, "body"},
		{"cut off", plain[:20], malformed, "body"},
		{"something behind", plain + "{}", malformed, "body"},
		{"an array", "[]", invalid, "body"},
		{"null", "null", invalid, "body.model"},
		{"no model", `{"input":{"a":1}}`, invalid, "body.model"},
		{"empty model", `{"model":"","input":{"a":1}}`, invalid, "body.model"},
		{"model a number", `{"model":7,"input":{"a":1}}`, invalid, "body.model"},
		{"model of no form", `{"model":"fox","input":{"a":1}}`, invalid, "body.model"},
		{"no input", `{"model":"runware:101@1"}`, invalid, "body.input"},
		{"input null", input("null"), invalid, "body.input"},
		{"input an array", input("[1]"), invalid, "body.input"},
		{"input a string", input(`"fox"`), invalid, "body.input"},
		{"input empty", input("{ }"), invalid, "body.input"},
		{"a key that is ours", input(`{"taskUUID":"x"}`), invalid, "body.input.taskUUID"},
		{"webhook of their own", input(`{"webhookURL":"https://evil.example"}`), invalid, "body.input.webhookURL"},
		{"a seed that is none", input(`{"seed":"abc"}`), invalid, "body.input.seed"},
		{"a file", input(`{"seedImage":{"$file":"inputs/x"}}`), invalid, "body.input.seedImage"},
		{"an inline file", input(`{"seedImage":"` + strings.Repeat("QUJD", 2000) + `"}`), invalid, "body.input.seedImage"},
		{"unknown field", with(`"colour":"red"`), invalid, "body.colour"},
		{"count 0", with(`"count":0`), invalid, "body.count"},
		{"count -1", with(`"count":-1`), invalid, "body.count"},
		{"count 21", with(`"count":21`), invalid, "body.count"},
		{"count a string", with(`"count":"4"`), invalid, "body.count"},
		{"count a fraction", with(`"count":1.5`), invalid, "body.count"},
		{"count enormous", with(`"count":99999999999999999999`), invalid, "body.count"},
		{"unknown provider", with(`"provider":"third"`), invalid, "body.provider"},
		{"deadline a number", with(`"deadline":600`), invalid, "body.deadline"},
		{"deadline no duration", with(`"deadline":"soon"`), invalid, "body.deadline"},
		{"deadline too short", with(`"deadline":"999ms"`), invalid, "body.deadline"},
		{"deadline too long", with(`"deadline":"24h1s"`), invalid, "body.deadline"},
		{"deadline negative", with(`"deadline":"-10m"`), invalid, "body.deadline"},
		{"labels an array", with(`"labels":["a"]`), invalid, "body.labels"},
		{"label a number", with(`"labels":{"user":42}`), invalid, "body.labels"},
		{"too many labels", labels(9), invalid, "body.labels"},
		{"label key upper case", with(`"labels":{"User":"42"}`), invalid, "body.labels"},
		{"label key empty", with(`"labels":{"":"42"}`), invalid, "body.labels"},
		{"label key too long", with(`"labels":{"` + strings.Repeat("a", 33) + `":"42"}`), invalid, "body.labels"},
		{"label value too long", with(`"labels":{"user":"` + strings.Repeat("a", 129) + `"}`), invalid, "body.labels.user"},
		{"over 32 KiB", input(`{"positivePrompt":"` + strings.Repeat("a ", events.MaxRequest/2) + `"}`), large, "body"},
		{"over 1 MiB", strings.Repeat(" ", MaxBody+1), large, "body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := asker().parse([]byte(c.body), events.Now())
			var p *Problem
			if !errors.As(err, &p) {
				t.Fatalf("%v, want a problem", err)
			}
			if p.Code != c.code || len(p.Errors) != 1 || p.Errors[0].Location != c.location {
				t.Errorf("problem is %d %+v, want %d at %s", p.Code, p.Errors, c.code, c.location)
			}
			if p.Errors[0].Message == "" || len(p.JSON()) > 2048 || !strings.HasPrefix(p.Type, "urn:genstream:problem:") {
				t.Errorf("problem is %s", p.JSON())
			}
		})
	}
}

func TestLimitsThemselvesAreAllowed(t *testing.T) {
	long := strings.Repeat("a ", (events.MaxRequest-len(plain))/2)
	for name, body := range map[string]string{
		"32 KiB":       strings.Replace(plain, "a red fox", "a red fox"+long, 1),
		"1 s":          strings.TrimSuffix(plain, "}") + `,"deadline":"1s"}`,
		"24 h":         strings.TrimSuffix(plain, "}") + `,"deadline":"24h"}`,
		"20 outputs":   strings.TrimSuffix(plain, "}") + `,"count":20}`,
		"a long label": strings.TrimSuffix(plain, "}") + `,"labels":{"` + strings.Repeat("k", 32) + `":"` + strings.Repeat("v", 128) + `"}}`,
	} {
		if _, err := asker().parse([]byte(body), events.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDigestIsOfTheMeaning: a client may encode its request anew for each try,
// but not ask for something else under the same ID.
func TestDigestIsOfTheMeaning(t *testing.T) {
	of := func(body string) string {
		t.Helper()
		r, err := asker().parse([]byte(body), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return r.Digest
	}
	const base = `{"model":"runware:101@1","count":2,"input":{"a":1,"b":[1,2],"n":9007199254740993},"labels":{"x":"1","y":"2"}}`
	for name, same := range map[string]string{
		"as it is":        base,
		"in another form": ` { "labels":{"y":"2","x":"1"}, "input":{"n":9007199254740993,"b":[1, 2],"a":1}, "count":2, "model":"runware:101\u00401"}`,
		"defaults said":   strings.TrimSuffix(base, "}") + `,"provider":"first","deadline":"600s"}`,
	} {
		if of(same) != of(base) {
			t.Errorf("%s: another digest", name)
		}
	}
	for name, other := range map[string]string{
		"model":        strings.Replace(base, "101", "100", 1),
		"count":        strings.Replace(base, `"count":2`, `"count":3`, 1),
		"input":        strings.Replace(base, `"a":1`, `"a":2`, 1),
		"order":        strings.Replace(base, "[1,2]", "[2,1]", 1),
		"a big number": strings.Replace(base, "9007199254740993", "9007199254740992", 1),
		"label":        strings.Replace(base, `"x":"1"`, `"x":"2"`, 1),
		"no labels":    strings.Replace(base, `,"labels":{"x":"1","y":"2"}`, "", 1),
		"provider":     strings.TrimSuffix(base, "}") + `,"provider":"second"}`,
		"deadline":     strings.TrimSuffix(base, "}") + `,"deadline":"11m"}`,
	} {
		if of(other) == of(base) {
			t.Errorf("another %s: the same digest", name)
		}
	}
}

func TestIdentifySettlesWhoseIDItIs(t *testing.T) {
	now := time.Now()
	mine := events.SubmittedID("x", 1, now)
	for _, c := range []struct {
		name     string
		s        Submission
		want     events.ID
		location string
	}{
		{"their own", Submission{ID: string(mine)}, mine, ""},
		{"almost a day old", Submission{ID: string(events.SubmittedID("x", 1, now.Add(-24*time.Hour+time.Minute)))}, events.SubmittedID("x", 1, now.Add(-24*time.Hour+time.Minute)), ""},
		{"over a day old", Submission{ID: string(events.SubmittedID("x", 1, now.Add(-25*time.Hour)))}, "", "path.id"},
		{"of tomorrow", Submission{ID: string(events.SubmittedID("x", 1, now.Add(25*time.Hour)))}, "", "path.id"},
		{"version 4", Submission{ID: "7c9e6679-7425-40de-944b-e07fc1f90ae7"}, "", "path.id"},
		{"version 8, which only we derive", Submission{ID: string(events.DerivedID("", "key"))}, "", "path.id"},
		{"a wildcard", Submission{ID: ">"}, "", "path.id"},
		{"a key", Submission{Key: "order-17", Requester: "alice"}, events.DerivedID("alice", "order-17"), ""},
		{"a key that is too long", Submission{Key: strings.Repeat("k", 256)}, "", "header.Idempotency-Key"},
		{"ID and key", Submission{ID: string(mine), Key: "order-17"}, "", "header.Idempotency-Key"},
		{"from the queue", Submission{Derived: mine}, mine, ""},
		{"from the queue, with its own key", Submission{Derived: mine, Key: "order-17"}, events.DerivedID("", "order-17"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, fresh, err := identify(c.s, now)
			if c.location == "" {
				if err != nil || id != c.want || fresh {
					t.Fatalf("%s, fresh %v, %v; want %s", id, fresh, err, c.want)
				}
				return
			}
			var p *Problem
			if !errors.As(err, &p) || p.Code != http.StatusUnprocessableEntity || p.Errors[0].Location != c.location {
				t.Errorf("%v, want a problem at %s", err, c.location)
			}
		})
	}
	a, fresh, err := identify(Submission{}, now)
	b, _, _ := identify(Submission{}, now)
	if err != nil || !fresh || a == b || a.Time().Sub(now).Abs() > time.Minute {
		t.Errorf("minted %s and %s, %v", a, b, err)
	}
}
