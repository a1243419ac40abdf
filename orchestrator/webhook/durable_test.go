package webhook_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/webhook"
)

// A webhook that says what the log holds already is answered 2xx only once the
// log has it on disk: the provider will not come a third time. (Found by a power
// cut between the two copies of one webhook.)
func TestNoWebhookIsAnsweredBeforeTheDiskHasIt(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var broken atomic.Bool
	disk := func() error {
		if broken.Load() {
			return errors.New("the disk does not answer")
		}
		return nil
	}
	log, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Sync: disk, SyncAll: disk})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := blob.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	keys := webhook.Keys{[]byte("0123456789abcdef")}
	h := webhook.New(webhook.Config{
		Log: log, Bucket: bucket, Keys: keys, Logger: slog.New(slog.DiscardHandler), Spool: t.TempDir(),
		Providers: map[string]provider.Provider{"p": runware.New(runware.Config{Name: "p", Key: "k"})},
	})
	hook := func(id events.ID) int {
		body := `{"data":[{"taskType":"imageInference","taskUUID":"` + events.TaskID(id, 0, 1) + `","imageURL":"https://example.com/a.png"}]}`
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, keys.URL("http://hooks", "p", id), strings.NewReader(body)))
		return w.Code
	}
	request := func(more ...events.Event) events.ID {
		t.Helper()
		id := streamtest.NewID()
		if _, _, err := log.Append(t.Context(), id, stream.Head{}, events.Now(), append([]events.Event{streamtest.Request(id, 1)}, more...)...); err != nil {
			t.Fatal(err)
		}
		return id
	}
	good := request()
	for range 2 {
		if code := hook(good); code != http.StatusNoContent {
			t.Fatalf("with a good disk: %d, want 204", code)
		}
	}
	fresh, completed := request(), request(events.Completed{Error: &events.Error{Code: "refused"}})
	broken.Store(true)
	for _, c := range []struct {
		name string
		id   events.ID
	}{{"first", fresh}, {"repeated", fresh}, {"late", completed}} {
		if code := hook(c.id); code != http.StatusServiceUnavailable {
			t.Errorf("%s webhook, nothing on disk: %d, want 503", c.name, code)
		}
	}
	if head, err := log.Head(t.Context(), fresh); err != nil || head.Deliveries() != 1 {
		t.Errorf("the log has %d deliveries (%v), want the first alone", head.Deliveries(), err)
	}
}
