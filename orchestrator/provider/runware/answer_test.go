package runware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/providertest"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

const generation = events.ID("01890a5d-ac96-774b-bcce-b302099a8057")

// a and b are the tasks of every call here.
var a, b = events.TaskID(generation, 0, 1), events.TaskID(generation, 1, 1)

func call(input string) provider.Call {
	return provider.Call{
		Generation: generation, Model: "sim:fox@1", Input: json.RawMessage(input),
		Tasks: []events.Task{{Slot: 0, Try: 1, ID: a}, {Slot: 1, Try: 1, ID: b}},
	}
}

// against is a client of a server that is one function.
func against(t *testing.T, h http.HandlerFunc) *runware.Provider {
	return runware.New(runware.Config{Name: "x", BaseURL: "http://api.test/v1", Key: "sk-secret", Transport: providertest.Transport(h), SpoolDir: t.TempDir()})
}

func answering(t *testing.T, code int, body string) *runware.Provider {
	return against(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(code)
		io.WriteString(w, fill(body))
	})
}

// fill puts the tasks' IDs in the place of A and B.
func fill(body string) string { return strings.NewReplacer("<A>", a, "<B>", b).Replace(body) }

func TestCreateSendsTheInputAsItWasWritten(t *testing.T) {
	var got []byte
	var header http.Header
	p := against(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		header = r.Header
		io.WriteString(w, fill(`{"data":[{"taskUUID":"<A>"},{"taskUUID":"<B>"}]}`))
	})
	c := call(`{"positivePrompt":"a <fox> & more","CFGScale":3.50,"seed":9007199254740993,"lora":[{"weight":1e0}]}`)
	c.Webhook = "https://us.test/h?t=1&u=2"
	if _, err := p.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	want := fill(`[{"CFGScale":3.50,"deliveryMethod":"async","includeCost":true,"lora":[{"weight":1e0}],"model":"sim:fox@1","numberResults":1,` +
		`"outputType":"URL","positivePrompt":"a <fox> & more","seed":9007199254740993,"taskType":"imageInference","taskUUID":"<A>","ttl":86400,"webhookURL":"https://us.test/h?t=1&u=2"},` +
		`{"CFGScale":3.50,"deliveryMethod":"async","includeCost":true,"lora":[{"weight":1e0}],"model":"sim:fox@1","numberResults":1,` +
		`"outputType":"URL","positivePrompt":"a <fox> & more","seed":9007199254740994,"taskType":"imageInference","taskUUID":"<B>","ttl":86400,"webhookURL":"https://us.test/h?t=1&u=2"}]`)
	if string(got) != want {
		t.Errorf("sent\n%s, want\n%s", got, want)
	}
	if header.Get("Authorization") != "Bearer sk-secret" || header.Get("Content-Type") != "application/json" {
		t.Errorf("header %v", header)
	}
	if _, err := p.Create(t.Context(), call(`{"outputType":"base64Data"}`)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), `"ttl"`) || strings.Contains(string(got), "webhookURL") {
		t.Errorf("a ttl goes with URLs only, and a webhook only where there is one: %s", got)
	}
}

// said is an answer in one line: +accepted -refused ~declined ?unknown =result !failure, in the order a, b.
func said(x provider.Answer) string {
	var out []string
	for _, task := range []struct{ id, name string }{{a, "a"}, {b, "b"}} {
		if slices.Contains(x.Accepted, task.id) {
			out = append(out, "+"+task.name)
		}
		if no, ok := x.Refused[task.id]; ok {
			out = append(out, "-"+task.name+":"+no.Error.Code)
		}
		if no, ok := x.Declined[task.id]; ok {
			out = append(out, "~"+task.name+":"+no.Error.Code)
		}
		if slices.Contains(x.Unknown, task.id) {
			out = append(out, "?"+task.name)
		}
		for _, r := range x.Results {
			switch {
			case r.Task != task.id:
			case r.Error != nil:
				out = append(out, "!"+task.name+":"+r.Error.Code)
			default:
				out = append(out, "="+task.name)
			}
		}
	}
	return strings.Join(out, " ")
}

// failure is an error in one line.
func failure(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *provider.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *provider.Error", err)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, e, e.Err), "secret") {
		t.Errorf("the key is in %v", err)
	}
	out := map[provider.Kind]string{
		provider.Ambiguous: "ambiguous", provider.Refused: "refused", provider.Busy: "busy",
		provider.Account: "account", provider.Unreachable: "unreachable",
	}[e.Kind] + " " + e.Err.Code + " " + string(e.Err.Class)
	if e.After > 0 {
		out += " " + e.After.String()
	}
	return out
}

func TestCreateReadsEveryAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		body string
		want string
	}{
		"acknowledged":              {200, `{"data":[{"taskType":"imageInference","taskUUID":"<A>"},{"taskUUID":"<B>"}]}`, "+a +b"},
		"with authentication":       {200, `{"data":[{"taskType":"authentication","connectionSessionUUID":"x"},{"taskUUID":"<A>"},{"taskUUID":"<B>"}],"errors":[]}`, "+a +b"},
		"bare array":                {200, `[{"taskUUID":"<A>"},{"taskUUID":"<B>"}]`, "+a +b"},
		"finished and processing":   {200, `{"data":[{"taskUUID":"<A>","imageURL":"https://x/1.png"},{"taskUUID":"<B>","status":"processing"}]}`, "=a +b"},
		"200 with errors":           {200, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"invalidWidth","message":"m","taskUUID":"<B>"}]}`, "+a -b:invalidWidth"},
		"400 with data":             {400, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"invalidWidth","message":"m","taskUUID":"<B>"}]}`, "+a -b:invalidWidth"},
		"error for the rest":        {400, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"invalidWidth","message":"m"}]}`, "+a -b:invalidWidth"},
		"rest declined":             {429, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"rateLimitExceeded"}]}`, "+a ~b:rateLimitExceeded"},
		"one without credit":        {402, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"insufficientCredits","taskUUID":"<B>"}]}`, "+a ~b:insufficientCredits"},
		"no server for one":         {200, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"noAvailableServer","taskUUID":"<B>"}]}`, "+a ~b:noAvailableServer"},
		"one failed":                {200, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"timeoutProvider","taskUUID":"<B>"}]}`, "+a !b:timeoutProvider"},
		"one failed inside data":    {200, `{"data":[{"taskUUID":"<A>"},{"taskUUID":"<B>","status":"error","error":{"code":"promptBlocked","message":"m"}}]}`, "+a !b:promptBlocked"},
		"5xx about one":             {500, `{"data":[{"taskUUID":"<A>"}],"errors":[{"code":"internalServerError","taskUUID":"<B>"}]}`, "+a"},
		"5xx about both":            {503, `{"errors":[{"code":"serviceUnavailable","taskUUID":"<A>"},{"code":"serviceUnavailable","taskUUID":"<B>"}]}`, "ambiguous serviceUnavailable server"},
		"one left out":              {200, `{"data":[{"taskUUID":"<A>"}]}`, "+a"},
		"duplicate by code":         {400, `{"errors":[{"code":"duplicateTaskUUID","taskUUID":"<A>"},{"code":"duplicateTaskUUID","taskUUID":"<B>"}]}`, "+a +b"},
		"duplicate by parameter":    {400, `{"errors":[{"code":"duplicateValue","parameter":"taskUUID","taskUUID":"<A>"},{"code":"conflict","parameter":["taskUUID"],"taskUUID":"<B>"}]}`, "+a +b"},
		"duplicate of what":         {400, `{"errors":[{"code":"duplicateTaskUUID"}]}`, "refused duplicateTaskUUID validation"},
		"duplicate of another kind": {400, `{"errors":[{"code":"duplicateLora","taskUUID":"<A>"},{"code":"duplicateLora","taskUUID":"<B>"}]}`, "-a:duplicateLora -b:duplicateLora"},
		"flat error":                {400, `{"error":{"code":"invalidModel","message":"m"}}`, "refused invalidModel validation"},
		"flat error of a task":      {400, `{"error":{"code":"invalidModel","message":"m"},"taskUUID":"<B>"}`, "-b:invalidModel"},
		"bare array of errors":      {400, `[{"code":"invalidModel","message":"m"}]`, "refused invalidModel validation"},
		"error as a text":           {400, `{"error":"no"}`, "refused http400 validation"},
		"all without credit":        {200, `{"errors":[{"code":"insufficientCredits","taskUUID":"<A>"},{"code":"insufficientCredits","taskUUID":"<B>"}]}`, "account insufficientCredits quota"},
		"all too fast":              {200, `{"errors":[{"code":"rateLimitExceeded","taskUUID":"<A>"},{"code":"rateLimitExceeded","taskUUID":"<B>"}]}`, "busy rateLimitExceeded rate_limit 7s"},
		"key echoed":                {401, `{"errors":[{"code":"invalidApiKey","message":"Invalid key sk-secret."}]}`, "account invalidApiKey auth"},
		"401 web page":              {401, `<html>`, "account http401 auth"},
		"402 empty":                 {402, ``, "account http402 quota"},
		"403, but by the content":   {403, `{"errors":[{"code":"contentPolicyViolation"}]}`, "refused contentPolicyViolation safety"},
		"403 of an unknown kind":    {403, `{"errors":[{"code":"strangeThing"}]}`, "account strangeThing auth"},
		"429 web page":              {429, `slow down`, "busy http429 rate_limit 7s"},
		"404 web page":              {404, `<html>`, "unreachable unreachable connection"},
		"redirect":                  {308, ``, "unreachable unreachable connection"},
		"413 web page":              {413, `<html>`, "refused http413 validation"},
		"500 empty":                 {500, ``, "ambiguous http500 server"},
		"502 web page":              {502, `<html>`, "ambiguous http502 server"},
		"504":                       {504, `{}`, "ambiguous http504 timeout"},
		"500 with a plain no":       {500, `{"errors":[{"code":"unsupportedDuration"}]}`, "refused unsupportedDuration validation"},
		"200 with a server's error": {200, `{"errors":[{"code":"internalServerError"}]}`, "ambiguous internalServerError server"},
		"200 with an unknown code":  {200, `{"errors":[{"code":"strangeThing"}]}`, "ambiguous strangeThing unknown"},
		"200 with nothing":          {200, `{"data":[]}`, "ambiguous unreadableAnswer server"},
		"200 cut":                   {200, `{"data":[{"taskUU`, "ambiguous unreadableAnswer server"},
		"200 about somebody else":   {200, `{"data":[{"taskUUID":"x"}]}`, "ambiguous unreadableAnswer server"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := answering(t, c.code, c.body).Create(t.Context(), call(`{}`))
			got := failure(t, err)
			if err == nil {
				got = said(x)
				if x.Reply.Digest != events.Digest([]byte(fill(c.body))) {
					t.Errorf("the reply's digest is not of the body")
				}
				x.Reply.Close()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSingleDuplicateWithoutNameIsAccepted(t *testing.T) {
	c := call(`{}`)
	c.Tasks = c.Tasks[:1]
	x, err := answering(t, 400, `{"errors":[{"code":"duplicateTaskUUID"}]}`).Create(t.Context(), c)
	if err != nil || said(x) != "+a" {
		t.Errorf("got %q, %v", said(x), err)
	}
}

func TestWhatWasNeverSentIsUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for name, base := range map[string]string{"closed port": "http://" + l.Addr().String(), "no address": "http://\x00", "no scheme": "x://y"} {
		_, err := runware.New(runware.Config{BaseURL: base, Key: "sk-secret"}).Create(t.Context(), call(`{}`))
		if got := failure(t, err); !strings.HasPrefix(got, "unreachable ") && name != "no scheme" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// refusing is a transport that reports nothing of its connections.
type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
}

func TestWhatNeverGotAConnectionIsUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		defer close(over)
		slow := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			<-over
			return nil, errors.New("too late")
		}}
		for name, transport := range map[string]http.RoundTripper{"silent dial": slow, "no trace": refusing{}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := runware.New(runware.Config{BaseURL: "http://api.test", Transport: transport}).Create(ctx, call(`{}`))
			cancel()
			if got := failure(t, err); !strings.HasPrefix(got, "unreachable ") {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
}

func TestReplyHoldsNoKey(t *testing.T) {
	x, err := answering(t, 200, `{"data":[{"taskUUID":"<A>","apiKey":"sk-secret"}]}`).Create(t.Context(), call(`{}`))
	if err != nil || strings.Contains(string(x.Reply.Body), "secret") {
		t.Errorf("%v: reply %s", err, x.Reply.Body)
	}
}

func TestWhatWasSentAndNotAnsweredIsAmbiguous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, h := range map[string]http.HandlerFunc{
			"cut before the answer": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"cut inside the answer": func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, fill(`{"data":[{"taskUUID":"<A>"}`))
				panic(http.ErrAbortHandler)
			},
			"silence": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := against(t, h).Create(ctx, call(`{}`))
			cancel()
			if got := failure(t, err); !strings.HasPrefix(got, "ambiguous ") {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
}

func TestLookReadsEveryAnswer(t *testing.T) {
	const unknown = `{"errors":[{"code":"taskFailedOrNotFound","taskUUID":"<A>"},{"code":"taskFailedOrNotFound","taskUUID":"<B>"}]}`
	for name, c := range map[string]struct {
		code    int
		body    string
		details string // answer to getTaskDetails; empty = it must not be asked
		want    string
	}{
		"done and processing":   {200, `{"data":[{"taskUUID":"<A>","status":"success","imageURL":"http://x/y"},{"taskUUID":"<B>","status":"processing","progress":40}]}`, "", "=a +b"},
		"failed in errors":      {200, `{"data":[{"taskUUID":"<A>","status":"processing"}],"errors":[{"code":"insufficientCredits","status":"error","taskUUID":"<B>"}]}`, "", "+a !b:insufficientCredits"},
		"failed in data":        {200, `{"data":[{"taskUUID":"<A>","status":"error","error":{"code":"promptBlocked"}},{"taskUUID":"<B>","status":"processing"}]}`, "", "!a:promptBlocked +b"},
		"one too fast":          {200, `{"data":[{"taskUUID":"<A>","status":"processing"}],"errors":[{"code":"rateLimitExceeded","taskUUID":"<B>"}]}`, "", "+a"},
		"about the question":    {200, `{"data":[{"taskUUID":"<A>","status":"processing"}],"errors":[{"code":"invalidValue","taskType":"getResponse","taskUUID":"<B>"}]}`, "", "+a"},
		"neither knows":         {400, unknown, `{"errors":[{"code":"taskNotFound","taskUUID":"<A>"},{"code":"taskNotFound","taskUUID":"<B>"}]}`, "?a ?b"},
		"details know":          {400, unknown, `{"data":[{"taskUUID":"<A>","response":{"errors":[{"code":"promptBlocked"}]}},{"taskUUID":"<B>","response":{"data":[{"taskUUID":"<B>","imageURL":"http://x/y"}]}}]}`, "!a:promptBlocked =b"},
		"details know no more":  {400, unknown, `{"data":[{"taskUUID":"<A>","request":[]},{"taskUUID":"<B>","response":{"data":[{"taskUUID":"<B>"}]}}]}`, "+a +b"},
		"details of a repeat":   {400, unknown, `{"data":[{"taskUUID":"<A>","response":{"errors":[{"code":"duplicateTaskUUID"}]}}]}`, "+a"},
		"details say nothing":   {400, unknown, `{"data":[]}`, ""},
		"details too fast":      {400, unknown, `{"errors":[{"code":"rateLimitExceeded","taskUUID":"<A>"}]}`, ""},
		"without a name":        {400, `{"errors":[{"code":"taskFailedOrNotFound"}]}`, `{"errors":[{"code":"taskNotFound","taskUUID":"<A>"}]}`, "?a"},
		"a server's error":      {200, `{"errors":[{"code":"internalServerError","taskUUID":"<A>"}],"data":[{"taskUUID":"<B>","status":"processing"}]}`, `{"errors":[{"code":"taskNotFound","taskUUID":"<A>"}]}`, "+b"},
		"account":               {401, `{"errors":[{"code":"invalidApiKey"}]}`, "", "account invalidApiKey auth"},
		"busy":                  {429, ``, "", "busy http429 rate_limit 7s"},
		"down":                  {502, `<html>`, "", "ambiguous http502 server"},
		"nothing":               {200, `{"data":[]}`, "", "ambiguous unreadableAnswer server"},
		"details are forbidden": {400, unknown, `HTTP 403`, "account http403 auth"},
	} {
		t.Run(name, func(t *testing.T) {
			p := against(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "7")
				body, _ := io.ReadAll(r.Body)
				switch {
				case strings.Contains(string(body), "getResponse"):
					if want := fill(`[{"taskType":"getResponse","taskUUID":"<A>"},{"taskType":"getResponse","taskUUID":"<B>"}]`); string(body) != want {
						t.Errorf("asked %s, want %s", body, want)
					}
					w.WriteHeader(c.code)
					io.WriteString(w, fill(c.body))
				case c.details == "":
					t.Errorf("asked for more: %s", body)
				case c.details == "HTTP 403":
					w.WriteHeader(403)
				default:
					io.WriteString(w, fill(c.details))
				}
			})
			x, err := p.Look(t.Context(), []string{a, b})
			got := failure(t, err)
			if err == nil {
				got = said(x)
				if !json.Valid(x.Reply.Body) {
					t.Errorf("reply body %s", x.Reply.Body)
				}
				x.Reply.Close()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFilesOfBothAnswersKeepTheirNumbers(t *testing.T) {
	p := against(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "getResponse") {
			io.WriteString(w, fill(`{"data":[{"taskUUID":"<A>","imageBase64Data":"YWFh"}],"errors":[{"code":"taskFailedOrNotFound","taskUUID":"<B>"}]}`))
			return
		}
		io.WriteString(w, fill(`{"data":[{"taskUUID":"<B>","request":[{"webhookURL":"https://us/?token=1"}],"response":{"data":[{"imageBase64Data":"YmJi"}]}}]}`))
	})
	x, err := p.Look(t.Context(), []string{a, b})
	if err != nil || said(x) != "=a =b" {
		t.Fatalf("got %q, %v", said(x), err)
	}
	defer x.Reply.Close()
	for _, r := range x.Results {
		f, err := x.Reply.Files[r.Inline-1].Open()
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(f)
		if want := map[string]string{a: "aaa", b: "bbb"}[r.Task]; string(content) != want {
			t.Errorf("task %s has file %q, want %q", r.Task, content, want)
		}
	}
	if strings.Contains(string(x.Reply.Body), "token") || !json.Valid(x.Reply.Body) {
		t.Errorf("reply body %s", x.Reply.Body)
	}
}
