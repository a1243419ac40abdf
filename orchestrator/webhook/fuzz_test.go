package webhook_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	_ "gocloud.dev/blob/memblob"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/webhook"
)

// ingress is a handler on a log and a bucket of its own.
type ingress struct {
	http.Handler
	log  *stream.Log
	keys webhook.Keys
}

func newIngress(t testing.TB) ingress {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	log, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := blob.Open(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bucket.Close() })
	keys := webhook.Keys{[]byte("0123456789abcdef")}
	return ingress{log: log, keys: keys, Handler: webhook.New(webhook.Config{
		Log: log, Bucket: bucket, Keys: keys, Logger: slog.New(slog.DiscardHandler), Spool: t.TempDir(),
		Providers: map[string]provider.Provider{"p": runware.New(runware.Config{Name: "p", Key: "k"})},
	})}
}

// request has an ID begin in the log, with two slots.
func (in ingress) request(t testing.TB, id events.ID) events.ID {
	t.Helper()
	if _, _, err := in.log.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 2)); err != nil {
		t.Fatal(err)
	}
	return id
}

// FuzzAddress: nothing is served but a POST to an address that was given to a
// provider; all else is 404, whatever it looks like.
func FuzzAddress(f *testing.F) {
	in := newIngress(f)
	id := in.request(f, "0190a5c1-7a00-7000-8000-000000000001") // the same in each process that fuzzes
	good := strings.TrimPrefix(in.keys.URL("http://hooks", "p", id), "http://hooks")
	token := good[strings.LastIndexByte(good, '/')+1:]
	for _, path := range []string{
		good, good + "/", "/" + good, "/x/.." + good, "/hooks/./p" + strings.TrimPrefix(good, "/hooks/p"), strings.Replace(good, "p", "%70", 1), good + "?x", good + "#x",
		"/", "", "/hooks", "/hooks/p/" + string(id) + "/", "/hooks/p/*/" + token, "/hooks/q/" + string(id) + "/" + token, "/v1/generations", "/metrics", "/healthz",
		"/hooks/p/" + string(id) + "/" + strings.ToUpper(token), "/debug/pprof/", "/hooks/p/" + string(id) + "%2f/" + token,
	} {
		f.Add(http.MethodPost, path)
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE", "post"} {
		f.Add(method, good)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || u.Path == "" {
			return // the server refuses it before there is a handler
		}
		r := httptest.NewRequest(http.MethodPost, "http://hooks/", strings.NewReader(`{}`))
		r.Method, r.URL, r.RequestURI = method, u, path
		w := httptest.NewRecorder()
		in.ServeHTTP(w, r)
		given := method == http.MethodPost && slices.Equal(strings.Split(u.Path, "/"), strings.Split(good, "/"))
		if given != (w.Code != http.StatusNotFound) {
			t.Errorf("%s %q: %d", method, path, w.Code)
		}
		if !given && w.Header().Get("Location") != "" {
			t.Errorf("%s %q leads to %q", method, path, w.Header().Get("Location"))
		}
	})
}

// FuzzDelivery: whatever comes to an address that was given out, the answer is one
// of the table, and the log holds nothing that cannot be read.
func FuzzDelivery(f *testing.F) {
	in := newIngress(f)
	const a, b = "<A>", "<B>"
	for _, body := range []string{
		`{"data":[{"taskType":"imageInference","taskUUID":"<A>","imageURL":"https://example.com/a.png","cost":0.0013}]}`,
		`{"data":[{"taskUUID":"<A>","imageBase64Data":"iVBORw0KGgoAAAANSUhEUgAA"},{"taskUUID":"<B>","imageDataURI":"data:image/png;base64,PGh0bWw+"}]}`,
		`{"errors":[{"code":"contentPolicyViolation","message":"no\r\nGen-Version: 9","taskUUID":"<B>"}]}`,
		`{"taskUUID":"<A>","imageURL":"$inline:1"}`, `[]`, `null`, ``, `{"data":[{"taskUUID":"*","imageURL":"https://x/y"}]}`,
	} {
		f.Add([]byte(body))
	}
	id := in.request(f, streamtest.NewID())
	f.Fuzz(func(t *testing.T, body []byte) {
		body = []byte(strings.NewReplacer(a, events.TaskID(id, 0, 1), b, events.TaskID(id, 1, 1)).Replace(string(body)))
		w := httptest.NewRecorder()
		in.ServeHTTP(w, httptest.NewRequest(http.MethodPost, in.keys.URL("http://hooks", "p", id), bytes.NewReader(body)))
		switch w.Code {
		case 204, 400, 413:
		case http.StatusTooManyRequests: // it has had enough
			id = in.request(t, streamtest.NewID())
		default:
			t.Errorf("answered %d", w.Code)
		}
		if w.Body.Len() > 0 {
			t.Errorf("answered %q", w.Body)
		}
		if _, _, err := in.log.Load(t.Context(), id); err != nil {
			t.Errorf("the log cannot be read: %v", err)
		}
	})
}
