package runware_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/providertest"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// bodies are answers and webhooks in every envelope there is.
func bodies() []string {
	return []string{
		`{"data":[{"taskType":"imageInference","taskUUID":"<A>","imageURL":"https://im.test/a.png","seed":9223372036854776000,"cost":0.0013}]}`,
		`{"taskUUID":"<A>","imageBase64Data":"$inline:1","NSFWContent":true,"steps":1e2}`,
		`[{"data":[{"taskUUID":"<A>","status":"processing","progress":50}]},{"errors":[{"code":"inferenceError","taskUUID":"<B>","status":"error"}]}]`,
		`{"errors":[{"code":"invalidApiKey","message":"sk-secret is none"}]}`,
		`{"errors":[{"code":"taskFailedOrNotFound","taskUUID":"<B>","status":"error"}],"data":[{"taskUUID":"<A>"}]}`,
		`{"error":{"code":"rateLimitExceeded","message":"slow down"}}`,
		`{"error":"no","taskUUID":"<A>"}`,
		`{"errors":{"code":"duplicateTaskUUID","parameter":["taskUUID"],"taskUUID":"<A>"}}`,
		`{"data":[{"taskType":"getTaskDetails","taskUUID":"<B>","response":{"data":[{"taskUUID":"<B>","outputs":{"files":[{"url":"https://im.test/b"}]}}]}}]}`,
		`{"data":[{"taskUUID":"<A>","imageURL":"file:///etc/passwd"},{"taskUUID":"<B>","imageDataURI":"$inline:0"}]}`,
		`<html><title>502 Bad Gateway</title></html>`,
		`null`, `[]`, `{"data":null}`, `{"data":[null,7,"x",{}]}`, ``,
	}
}

// FuzzParse: whatever is taken from a webhook can be stored and fetched, or is a failure.
func FuzzParse(f *testing.F) {
	for _, b := range bodies() {
		f.Add([]byte(fill(b)))
	}
	p := runware.New(runware.Config{Name: "x", Key: "sk-secret"})
	f.Fuzz(func(t *testing.T, body []byte) {
		results, err := p.Parse(body)
		if err != nil && len(results) > 0 {
			t.Fatalf("%+v besides %v", results, err)
		}
		for _, r := range results {
			sound(t, r)
		}
	})
}

// sound checks one result, which must be of exactly one kind.
func sound(t *testing.T, r provider.Result) {
	t.Helper()
	kinds := 0
	if r.URL != "" {
		kinds++
		if u, err := url.Parse(r.URL); err != nil || u.Host == "" || !strings.EqualFold(u.Scheme, "http") && !strings.EqualFold(u.Scheme, "https") || len(r.URL) > events.MaxURL {
			t.Errorf("URL %q", r.URL)
		}
	}
	if r.Inline > 0 {
		kinds++
	}
	if r.Error != nil {
		kinds++
		if r.Error.Code == "" || r.Error.Message == "" || r.Error.Fit() != *r.Error || strings.Contains(r.Error.Code+r.Error.Message, "sk-secret") {
			t.Errorf("error %+v", *r.Error)
		}
	}
	if kinds != 1 || r.Task == "" || r.Inline < 0 || r.Cost != nil && *r.Cost < 0 || strings.Trim(r.Seed, "0123456789") != "" || len(r.Seed) > 20 {
		t.Errorf("result %+v", r)
	}
	if r.Metadata != nil && (!json.Valid(r.Metadata) || len(r.Metadata) > events.MaxNote) {
		t.Errorf("metadata %s", r.Metadata)
	}
}

// FuzzAnswer: whatever answers a call, with whatever HTTP code, each task is told
// one thing, of a task that was not asked about nothing is said, and the key shows nowhere.
func FuzzAnswer(f *testing.F) {
	for i, b := range bodies() {
		f.Add([]byte(fill(b)), uint16(i), "7", i%2 == 0)
	}
	f.Add([]byte(fill(bodies()[3])), uint16(401), "Wed, 21 Oct 2099 07:28:00 GMT", false)
	f.Add([]byte(`{}`), uint16(429), "-1", true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body []byte, code uint16, after string, look bool) {
		p := runware.New(runware.Config{
			Name: "x", BaseURL: "http://api.test/v1", Key: "sk-secret", SpoolDir: dir,
			Transport: providertest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(200 + int(code)%400)
				w.Write(body)
			})),
		})
		asked := []string{a, b}
		var answer provider.Answer
		var err error
		if look {
			answer, err = p.Look(t.Context(), asked)
		} else {
			answer, err = p.Create(t.Context(), call(`{"positivePrompt":"x"}`))
		}
		if err != nil {
			var e *provider.Error
			if !errors.As(err, &e) || e.After < 0 || e.After > 10*time.Minute || strings.Contains(e.Err.Message+e.Err.Code, "sk-secret") {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		defer answer.Reply.Close()
		if strings.Contains(string(answer.Reply.Body), "sk-secret") {
			t.Errorf("the key is in the reply that is kept")
		}
		told := map[string]int{}
		for _, list := range [][]string{answer.Accepted, answer.Unknown, keys(answer.Refused), keys(answer.Declined)} {
			for _, task := range list {
				told[task]++
			}
		}
		for _, r := range answer.Results {
			sound(t, r)
			told[r.Task]++
		}
		for task, n := range told {
			if n > 1 || !slices.Contains(asked, task) {
				t.Errorf("%d things are said of task %q", n, task)
			}
		}
		if !look && len(answer.Unknown) > 0 {
			t.Errorf("an answer to a create call makes tasks unknown: %v", answer.Unknown)
		}
	})
}

func keys(m map[string]provider.ErrorOnce) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// FuzzInput: an input that is let through says nothing of what is genstream's own
// to say in the call that is made of it.
func FuzzInput(f *testing.F) {
	f.Add([]byte(`{"positivePrompt":"a fox","seed":7,"width":1e3}`), "runware:101@1")
	f.Add([]byte(`{"outputType":"dataURI","taskType":"videoInference","lora":[{"model":"x"}]}`), "a:b@c")
	f.Add([]byte(`{"webhookURL":"https://evil.test","\u0077ebhookURL":"x","WEBHOOKURL":1}`), "a:b@c")
	f.Add([]byte(`{"taskUUID":"x"}`), "a:b@c")
	f.Add([]byte(`{"seed":9223372036854775807}`), "a:b@c")
	f.Fuzz(func(t *testing.T, input []byte, model string) {
		if !utf8.ValidString(model) {
			return // a request is UTF-8
		}
		var sent []byte
		p := against(t, func(w http.ResponseWriter, r *http.Request) {
			sent, _ = io.ReadAll(r.Body)
			io.WriteString(w, fill(`{"data":[{"taskUUID":"<A>"},{"taskUUID":"<B>"}]}`))
		})
		if err := p.Check(model, input, 2); err != nil {
			var invalid *provider.Invalid
			if !errors.As(err, &invalid) || invalid.Field == "" || invalid.Reason == "" {
				t.Errorf("%T %v", err, err)
			}
			return
		}
		c := call(string(input))
		c.Model, c.Webhook = model, "https://us.test/h"
		if _, err := p.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		var tasks []struct {
			Model, TaskUUID, WebhookURL, DeliveryMethod string
			NumberResults                               int
			IncludeCost                                 bool
			APIKey                                      *json.RawMessage
		}
		d := json.NewDecoder(strings.NewReader(string(sent)))
		if err := d.Decode(&tasks); err != nil || len(tasks) != 2 {
			t.Fatalf("sent %s: %v", sent, err)
		}
		for i, task := range []string{a, b} {
			x := tasks[i]
			if x.TaskUUID != task || x.Model != model || x.WebhookURL != c.Webhook || x.DeliveryMethod != "async" || x.NumberResults != 1 || !x.IncludeCost || x.APIKey != nil {
				t.Errorf("sent %s", sent)
			}
		}
	})
}
