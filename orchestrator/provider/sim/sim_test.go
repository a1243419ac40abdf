package sim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
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

func TestDirectivesOfCalls(t *testing.T) {
	for prompt, want := range map[string]string{
		"[[busy 2]]":                  "429,429,200 1,0,1",
		"[[broken]]":                  "5xx,200,400 1,0,1",
		"[[ambiguous]]":               "5xx,400,400 1,0,1",
		"[[refuse]]":                  "400,400,400 0,0,0",
		"[[refuse:2]]":                "ok,400,400 1,0,0", // in the second call all is refused, for one reason or another
		"[[fail:9]] [[unknown word]]": "200,400,400 1,0,1",
		"[[slow 3s]]":                 "200,400,400 1,0,1",
		"[[hang]]":                    "0,400,400 1,0,1",
		"[[stall]]":                   "0,200,400 1,0,1",
	} {
		t.Run(prompt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sim.Config{})
				defer w.close()
				w.client.Timeout = time.Minute
				var codes []string
				for range 3 {
					start := time.Now()
					code, body := w.create("a fox "+prompt, 1, 2)
					switch {
					case code >= 500:
						codes = append(codes, "5xx")
					case strings.Contains(body, `"data":[{`) && strings.Contains(body, "errors"):
						codes = append(codes, "ok")
					default:
						codes = append(codes, fmt.Sprint(code))
					}
					if took := time.Since(start); strings.Contains(prompt, "slow") && took != 3*time.Second {
						t.Errorf("slow took %v", took)
					}
				}
				quiet()
				ledger := sim.Ledger(w.journal())
				got := fmt.Sprintf("%s %d,%d,%d", strings.Join(codes, ","), ledger[uuid(1)].Taken, ledger[uuid(3)].Taken, ledger[uuid(2)].Taken)
				if got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		})
	}
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

func TestTasksOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	synctest.Test(t, func(t *testing.T) {
		cfg := sim.Config{Journal: path, Seed: 3}
		w := newWorld(t, cfg)
		w.codes = slices.Repeat([]int{503}, 2)
		w.create("taken [[take 1s]]", 1)
		w.create("refused at first [[take 1s]]", 2)
		w.create("made later [[take 1m]]", 3)
		w.create("[[busy]]", 4)
		w.create("lost [[lose]] [[take 1s]]", 5)
		time.Sleep(1100 * time.Millisecond) // both webhooks are refused, and due again soon
		w.close()
		before := w.came
		file := func(n int) string { return sim.Ledger(w.journal())[uuid(n)].Output.SHA256 }

		// A last line that was not finished is forgotten.
		if err := appendTo(path, `{"kind":"taken","ta`); err != nil {
			t.Fatal(err)
		}
		w = newWorld(t, cfg)
		if first := file(1); first == "" {
			t.Error("what was made is forgotten")
		}
		_, b, err := w.get("http://sim.test/files/" + uuid(1) + ".png")
		if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != file(1) {
			t.Error("the file is not the one of before")
		}
		if code, body := w.create("taken", 1); code != 400 || !strings.Contains(body, "duplicateTaskUUID") {
			t.Errorf("a known task: %d %s", code, body)
		}
		if code, body := w.create("[[busy]]", 4); code != 200 {
			t.Errorf("the second try of a busy call: %d %s", code, body)
		}
		quiet()
		for n, webhooks := range map[int]int{1: 1, 2: 1, 3: 1, 4: 1, 5: 0} {
			if l := sim.Ledger(w.journal())[uuid(n)]; l.Webhooks != webhooks || l.Output == nil || l.Taken != 1 {
				t.Errorf("task %d: %+v, want %d webhooks", n, l, webhooks)
			}
		}
		if len(before) != 2 || len(w.came) != 4 {
			t.Errorf("%d webhooks before and %d after, want 2 and 4", len(before), len(w.came))
		}
		w.close()

		w = newWorld(t, cfg) // nothing is left to do
		quiet()
		if len(w.came) != 0 {
			t.Errorf("sent again: %v", w.came)
		}
		w.close()
	})
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// fates is what befell each of 200 tasks under heavy faults, created in an order.
func fates(t *testing.T, seed uint64, order []int) map[string]string {
	out := map[string]string{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{Seed: seed, Faults: sim.Faults{
			Busy: 0.1, Broken: 0.1, Refused: 0.1, Ambiguous: 0.1, Failing: 0.3, Lost: 0.2, Doubled: 0.2, Late: 0.2, Flat: 0.5, Reordered: 0.2,
		}})
		defer w.close()
		for _, n := range order {
			w.create("a fox", n)
		}
		quiet()
		for id, l := range sim.Ledger(w.journal()) {
			out[id] = fmt.Sprint(l.Taken, l.Code, l.Webhooks)
		}
	})
	return out
}

func TestChanceDependsOnSeedAndTaskAlone(t *testing.T) {
	var up []int
	for n := range 200 {
		up = append(up, n)
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	first := fates(t, 1, up)
	if !maps.Equal(first, fates(t, 1, down)) {
		t.Error("the order of calls changes what befalls them")
	}
	if maps.Equal(first, fates(t, 2, up)) {
		t.Error("the seed changes nothing")
	}
	seen := map[string]bool{}
	for _, f := range first {
		seen[f] = true
	}
	if len(seen) < 8 {
		t.Errorf("%d kinds of fate among 200 tasks: %v", len(seen), seen)
	}
}

func TestAnswersOfTheWire(t *testing.T) {
	task := func(n int, more string) string {
		return `{"taskType":"imageInference","taskUUID":"` + uuid(n) + `","model":"sim:fox@1","positivePrompt":"x","width":32,"height":32` + more + `}`
	}
	for name, c := range map[string]struct {
		body string
		code int
		want string // in the answer
	}{
		"sync by default":  {`[` + task(1, `,"seed":7`) + `]`, 200, `"imageURL":"http://sim.test/files/` + uuid(1) + `.png"`},
		"sync, base64":     {`[` + task(1, `,"outputType":"base64Data"`) + `]`, 200, `"imageBase64Data":"iVBOR`},
		"sync, data URI":   {`[` + task(1, `,"outputType":"dataURI"`) + `]`, 200, `"imageDataURI":"data:image/png;base64,iVBOR`},
		"async":            {`[` + task(1, `,"deliveryMethod":"async"`) + `]`, 200, `{"data":[{"taskType":"imageInference","taskUUID":"` + uuid(1) + `"}]}`},
		"key in the body":  {`[{"taskType":"authentication","apiKey":"k"},` + task(1, `,"deliveryMethod":"async"`) + `]`, 200, `{"taskType":"authentication"},{"taskType":"imageInference"`},
		"wrong key":        {`[{"taskType":"authentication","apiKey":"x"},` + task(1, ``) + `]`, 401, `"invalidApiKey"`},
		"ping":             {`[{"taskType":"ping","ping":true}]`, 200, `{"data":[{"pong":true,"taskType":"ping"}]}`},
		"unknown kind":     {`[{"taskType":"dance","taskUUID":"x"}]`, 400, `"unsupportedTaskType"`},
		"unknown model":    {`[` + strings.Replace(task(1, ``), "sim:fox@1", "sim:unknown@1", 1) + `]`, 400, `"unknownModel"`},
		"no model":         {`[` + strings.Replace(task(1, ``), "sim:fox@1", "fox", 1) + `]`, 400, `"unknownModel"`},
		"bad width":        {`[` + strings.Replace(task(1, ``), "32", "2", 1) + `]`, 400, `"invalidWidth"`},
		"width as a text":  {`[` + strings.Replace(task(1, ``), "32", `"2"`, 1) + `]`, 400, `"invalidWidth"`},
		"two results":      {`[` + task(1, `,"numberResults":2`) + `]`, 400, `"unsupportedNumberResults"`},
		"bad seed":         {`[` + task(1, `,"seed":-1`) + `]`, 400, `"invalidSeed"`},
		"short ttl":        {`[` + task(1, `,"ttl":59`) + `]`, 400, `"invalidTtl"`},
		"one bad of two":   {`[` + task(1, `,"deliveryMethod":"async"`) + `,` + task(2, `,"outputType":"x"`) + `]`, 0, `"invalidOutputType"`},
		"same task twice":  {`[` + task(1, `,"deliveryMethod":"async"`) + `,` + task(1, ``) + `]`, 0, `"duplicateTaskUUID"`},
		"unknown response": {`[{"taskType":"getResponse","taskUUID":"` + uuid(9) + `"}]`, 400, `"taskFailedOrNotFound"`},
		"not an array":     {`{}`, 400, `"invalidRequest"`},
		"not JSON":         {`x`, 400, `"invalidRequest"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, sim.Config{Key: "k"})
				defer w.close()
				req, _ := http.NewRequestWithContext(context.Background(), "POST", "http://sim.test/anything", strings.NewReader(c.body))
				req.Header.Set("Authorization", "Bearer k")
				resp, err := w.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				b, _ := io.ReadAll(resp.Body)
				if c.code != 0 && resp.StatusCode != c.code || !strings.Contains(string(b), c.want) {
					t.Errorf("%d %s, want %d with %s", resp.StatusCode, b, c.code, c.want)
				}
			})
		})
	}
}

func TestAccountTroubleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, sim.Config{})
		defer w.close()
		w.s.SetAccount(402)
		if code, body := w.create("a fox", 1); code != 402 || !strings.Contains(body, "insufficientCredits") {
			t.Errorf("%d %s", code, body)
		}
		w.s.SetAccount(0)
		if code, body := w.create("a fox", 1); code != 200 {
			t.Errorf("%d %s", code, body)
		}
	})
}
