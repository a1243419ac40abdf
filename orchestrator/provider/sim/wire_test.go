package sim_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/sim"
)

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
