package sim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/providertest"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// world is a simulated provider with somebody who takes its webhooks.
type world struct {
	*testing.T
	s      *sim.Server
	client *http.Client

	mu    sync.Mutex
	came  []string // bodies of webhooks, in order
	at    []time.Time
	codes []int // the answers to give, one after another, then 200
}

func newWorld(t *testing.T, cfg sim.Config) *world {
	t.Helper()
	w := &world{T: t}
	cfg.BaseURL = func() string { return "http://sim.test" }
	cfg.Webhooks = providertest.Transport(w)
	s, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.s, w.client = s, &http.Client{Transport: providertest.Transport(s)}
	return w
}

// ServeHTTP takes a webhook.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		w.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.came, w.at = append(w.came, string(b)), append(w.at, time.Now())
	if len(w.codes) > 0 {
		rw.WriteHeader(w.codes[0])
		w.codes = w.codes[1:]
	}
}

func (w *world) close() {
	w.Helper()
	if err := w.s.Close(); err != nil {
		w.Error(err)
	}
}

func uuid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

// create makes a call of small tasks with a prompt; the numbers are those of uuid.
func (w *world) create(prompt string, tasks ...int) (int, string) {
	w.Helper()
	var list []map[string]any
	for _, n := range tasks {
		list = append(list, map[string]any{
			"taskType": "imageInference", "taskUUID": uuid(n), "model": "sim:fox@1", "positivePrompt": prompt,
			"width": 32, "height": 32, "deliveryMethod": "async", "includeCost": true, "webhookURL": "http://us.test/hook?token=secret",
		})
	}
	body, err := json.Marshal(list)
	if err != nil {
		w.Fatal(err)
	}
	return w.post(string(body))
}

func (w *world) post(body string) (int, string) {
	w.Helper()
	resp, err := w.client.Post("http://sim.test/v1", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (w *world) get(url string) (*http.Response, []byte, error) {
	resp, err := w.client.Get(url)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, b, err
}

func (w *world) journal() []sim.Entry {
	w.Helper()
	_, b, err := w.get("http://sim.test/journal")
	if err != nil {
		w.Fatal(err)
	}
	entries, err := sim.ReadJournal(bytes.NewReader(b))
	if err != nil {
		w.Fatal(err)
	}
	return entries
}

func quiet() {
	time.Sleep(2 * time.Minute) // of fake time
	synctest.Wait()
}

func TestJournalTellsWhatWasMadeServedAndBilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{})
		defer w.close()
		w.create("a fox [[fail:2]]", 1, 2, 3)
		quiet()
		ledger := sim.Ledger(w.journal())
		for n, good := range map[int]bool{1: true, 2: false, 3: true} {
			l := ledger[uuid(n)]
			if l.Asked != 1 || l.Taken != 1 || l.Webhooks != 1 || (l.Output != nil) != good || (l.Code == "") != good {
				t.Errorf("task %d: %+v", n, l)
			}
			resp, b, err := w.get("http://sim.test/files/" + uuid(n) + ".png")
			if err != nil || (resp.StatusCode == http.StatusOK) != good {
				t.Fatalf("file %d: %v %v", n, resp, err)
			}
			if !good {
				continue
			}
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != l.Output.SHA256 || int64(len(b)) != l.Output.Size {
				t.Errorf("file %d is not the journal's", n)
			}
			if img, err := png.Decode(bytes.NewReader(b)); err != nil || img.Bounds().Dx() != 32 {
				t.Errorf("file %d: %v", n, err)
			}
		}
		if bill := sim.Bill(w.journal()); bill != 2*1269 {
			t.Errorf("bill %d, want 2 outputs of 1269", bill)
		}
		if _, b, _ := w.get("http://sim.test/journal"); bytes.Contains(b, []byte("secret")) {
			t.Error("the webhook's token is served")
		}
	})
}

func TestPicturesDifferBySeedAndPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{})
		defer w.close()
		w.create("a fox", 1, 2)
		w.create("a cat", 3)
		w.post(`[{"taskType":"imageInference","taskUUID":"` + uuid(4) + `","model":"a:b@c","positivePrompt":"x","seed":5,"width":3000,"height":1500,"deliveryMethod":"async"}]`)
		w.post(`[{"taskType":"imageInference","taskUUID":"` + uuid(5) + `","model":"a:b@c","positivePrompt":"x","seed":5,"width":3000,"height":1500,"deliveryMethod":"async"}]`)
		quiet()
		seen := map[string]bool{}
		ledger := sim.Ledger(w.journal())
		for n := 1; n <= 4; n++ {
			seen[ledger[uuid(n)].Output.SHA256] = true
		}
		if len(seen) != 4 {
			t.Errorf("%d different pictures, want 4", len(seen))
		}
		if ledger[uuid(4)].Output.SHA256 != ledger[uuid(5)].Output.SHA256 {
			t.Error("the same prompt and seed make two pictures")
		}
		_, b, err := w.get("http://sim.test/files/" + uuid(4) + ".png")
		if err != nil {
			t.Fatal(err)
		}
		if img, err := png.Decode(bytes.NewReader(b)); err != nil || img.Bounds().Dx() != 512 || img.Bounds().Dy() != 256 {
			t.Errorf("a large picture: %v", err)
		}
	})
}

func TestWebhooksAreRepeatedUntilTaken(t *testing.T) {
	for name, c := range map[string]struct {
		prompt string
		codes  []int
		want   int
	}{
		"taken":           {"", nil, 1},
		"taken at last":   {"", []int{500, 404, 302}, 4},
		"never taken":     {"", slices.Repeat([]int{503}, 20), 8},
		"lost":            {"[[lose]]", nil, 0},
		"doubled":         {"[[double]]", nil, 2},
		"both refused":    {"[[double]]", []int{503, 503}, 4},
		"nothing comes":   {"[[never]]", nil, 0},
		"a failed output": {"[[fail]]", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sim.Config{})
				defer w.close()
				w.codes = c.codes
				w.create("a fox "+c.prompt, 1)
				quiet()
				if len(w.came) != c.want {
					t.Fatalf("%d webhooks, want %d", len(w.came), c.want)
				}
				for i := 1; i < len(w.at); i++ {
					if gap := w.at[i].Sub(w.at[i-1]); gap > 12*time.Second || !strings.Contains(c.prompt, "double") && gap < 125*time.Millisecond {
						t.Errorf("gap %d is %v", i, gap)
					}
				}
				for _, body := range w.came {
					if strings.HasPrefix(body, `{"errors":[`) != strings.Contains(c.prompt, "fail") || !strings.Contains(body, uuid(1)) {
						t.Errorf("webhook %s", body)
					}
				}
			})
		})
	}
}

func TestWebhookWithoutAnswerIsRepeatedAfterFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		s, err := sim.New(sim.Config{BaseURL: func() string { return "" }, Webhooks: providertest.Transport(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			at = append(at, time.Now())
			if len(at) == 1 {
				<-r.Context().Done()
			}
		}))})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{T: t, s: s, client: &http.Client{Transport: providertest.Transport(s)}}
		defer w.close()
		w.create("a fox", 1)
		quiet()
		if len(at) != 2 || at[1].Sub(at[0]) < 5*time.Second || at[1].Sub(at[0]) > 6*time.Second {
			t.Errorf("webhooks at %v", at)
		}
	})
}

func TestDirectivesOfFiles(t *testing.T) {
	const whole, cut, gone, page, endless = "whole", "cut", "gone", "page", "endless"
	for prompt, want := range map[string][]string{
		"":                {whole, whole},
		"[[cut]]":         {cut, whole},
		"[[cut 2]]":       {cut, cut, whole},
		"[[html]]":        {page, whole},
		"[[endless]]":     {endless, whole},
		"[[expire 1s]]":   {gone, gone},
		"[[trickle 20s]]": {whole},
		"[[mistype]]":     {whole},
		"[[cut:2]]":       {whole},
	} {
		t.Run(prompt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sim.Config{})
				defer w.close()
				w.create("a fox "+prompt, 1)
				quiet()
				size := sim.Ledger(w.journal())[uuid(1)].Output.Size
				for i, kind := range want {
					start := time.Now()
					resp, b, err := w.get("http://sim.test/files/" + uuid(1) + ".png")
					var got string
					switch {
					case errors.Is(err, io.ErrUnexpectedEOF):
						got = cut
					case err != nil:
						got = err.Error()
					case resp.StatusCode == http.StatusNotFound:
						got = gone
					case bytes.Contains(b, []byte("<html>")):
						got = page
					case int64(len(b)) > size:
						got = endless
					case int64(len(b)) == size:
						got = whole
					}
					if got != kind {
						t.Errorf("download %d: %s, want %s", i+1, got, kind)
					}
					if took := time.Since(start); strings.Contains(prompt, "trickle") && took != 20*time.Second {
						t.Errorf("it took %v", took)
					}
					if err == nil && strings.Contains(prompt, "mistype") == (resp.Header.Get("Content-Type") == "image/png") && got == whole {
						t.Errorf("type %s", resp.Header.Get("Content-Type"))
					}
				}
			})
		})
	}
}
