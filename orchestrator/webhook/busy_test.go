package webhook_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/blob"
	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator/provider"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/webhook"
)

// knows is a log that knows every generation; nothing is appended to it.
type knows struct{ webhook.Log }

func (knows) Head(context.Context, events.ID) (stream.Head, error) { return stream.Head{}, nil }

// A webhook that finds no place is told to come again before its sender gives up.
func TestWebhookWithoutAPlaceIsToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := webhook.Keys{[]byte("0123456789abcdef")}
		h := webhook.New(webhook.Config{
			Log: knows{}, Bucket: &blob.Bucket{}, Keys: keys, Logger: slog.New(slog.DiscardHandler), Spool: t.TempDir(),
			Providers: map[string]provider.Provider{"p": runware.New(runware.Config{Name: "p", Key: "k"})},
		})
		hook := func(body io.Reader) *httptest.ResponseRecorder {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, keys.URL("http://hooks", "p", streamtest.NewID()), body)
			req.ContentLength = 10
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			return w
		}
		body, never := io.Pipe()
		var slow sync.WaitGroup
		for range 256 {
			slow.Go(func() { hook(body) })
		}
		synctest.Wait()
		began := time.Now()
		w := hook(strings.NewReader("0123456789"))
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || took > 5*time.Second {
			t.Errorf("%d after %s, Retry-After %q: want 503 within 5 s", w.Code, took, w.Header().Get("Retry-After"))
		}
		never.Close()
		slow.Wait()
		if w := hook(strings.NewReader("0123456789")); w.Code != http.StatusBadRequest {
			t.Errorf("when there were places again: %d, want that the body is none", w.Code)
		}
	})
}
