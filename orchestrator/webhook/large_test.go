package webhook_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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

// noise is a PNG of several megabytes, which does not compress.
func noise(t *testing.T) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	img := image.NewNRGBA(image.Rect(0, 0, 1024, 1024))
	for i := range img.Pix {
		img.Pix[i] = byte(rng.Uint32())
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.NoCompression}).Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A picture of 4 MB inside a webhook is in the bucket before the answer. Of many
// large bodies at once some are told to come again, and then they are taken.
func TestLargeWebhooksComeInTurn(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	log, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := blob.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	keys := webhook.Keys{[]byte("0123456789abcdef")}
	server := httptest.NewServer(webhook.New(webhook.Config{
		Log: log, Bucket: bucket, Keys: keys, Logger: slog.New(slog.DiscardHandler), Spool: t.TempDir(),
		Providers: map[string]provider.Provider{"p": runware.New(runware.Config{Name: "p", Key: "k"})},
	}))
	defer server.Close()
	picture := noise(t)

	type sender struct {
		id   events.ID
		body []byte
		pipe *io.PipeWriter
		code chan int
	}
	send := func(id events.ID, body io.Reader) int {
		res, err := http.Post(keys.URL(server.URL, "p", id), "application/json", body)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer res.Body.Close()
		if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return res.StatusCode
	}
	// Eight hold their places with a body that is under way, so the ninth has none.
	var holding []sender
	for range 8 {
		id := streamtest.NewID()
		if _, _, err := log.Append(t.Context(), id, stream.Head{}, events.Now(), streamtest.Request(id, 1)); err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		h := sender{id: id, pipe: w, code: make(chan int, 1)}
		h.body = fmt.Appendf(nil, `{"data":[{"taskType":"imageInference","taskUUID":%q,"imageBase64Data":%q}]}`,
			events.TaskID(id, 0, 1), base64.StdEncoding.EncodeToString(picture))
		go func() { h.code <- send(id, r) }()
		if _, err := w.Write(h.body[:1<<20]); err != nil {
			t.Fatal(err)
		}
		holding = append(holding, h)
	}
	late := holding[0]
	refused := false
	for range 50 { // until the eight have all come as far as their places
		if refused = send(late.id, io.MultiReader(bytes.NewReader(late.body))) == http.StatusServiceUnavailable; refused {
			break
		}
	}
	if !refused {
		t.Error("a ninth large body was never told to come again")
	}
	for _, h := range holding {
		if _, err := h.pipe.Write(h.body[1<<20:]); err != nil {
			t.Fatal(err)
		}
		h.pipe.Close()
		if code := <-h.code; code != http.StatusNoContent {
			t.Errorf("a large body: %d, want 204", code)
		}
	}
	if code := send(late.id, io.MultiReader(bytes.NewReader(late.body))); code != http.StatusNoContent {
		t.Errorf("come again: %d, want 204", code)
	}
	for _, h := range holding {
		g, _, err := log.Load(t.Context(), h.id)
		if err != nil {
			t.Fatal(err)
		}
		if r := g.Slots[0].Result; r == nil || r.File == nil || r.File.Size != int64(len(picture)) {
			t.Errorf("generation=%s: %+v, want the picture of %d bytes", h.id, r, len(picture))
		}
	}
}
