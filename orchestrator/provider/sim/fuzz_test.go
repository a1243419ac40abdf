package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/genstream/genstream/orchestrator/provider/sim"
)

// FuzzCall: whatever is sent to the API is answered with JSON or not at all, and
// the journal can be read afterwards. The caller has left already, so that
// nothing waits for him.
func FuzzCall(f *testing.F) {
	for _, b := range []string{
		`[{"taskType":"imageInference","taskUUID":"` + uuid(1) + `","model":"sim:fox@1","positivePrompt":"a fox [[fail:1 x]] [[late 5s]]","width":64,"height":64,"seed":7}]`,
		`[{"taskType":"imageInference","taskUUID":"` + uuid(1) + `","model":"sim:fox@1","positivePrompt":"[[sync]] [[heavy -1]] [[take:1,2 -5s]]","width":"64","seed":1.5}]`,
		`[{"taskType":"videoInference","taskUUID":"` + uuid(2) + `","model":"sim:fox@1","outputType":"dataURI","ttl":59,"numberResults":2}]`,
		`[{"taskType":"authentication","apiKey":"k"},{"taskType":"getResponse","taskUUID":"x"},{"taskType":"getTaskDetails"},{"taskType":"ping"},{"taskType":"?"}]`,
		`[{"taskType":"imageInference","taskUUID":"` + uuid(3) + `","model":"sim:fox@1","seedImage":"data:image/png;base64,aGk=","masks":["https://x.test/y"]}]`,
		`[{}]`, `[null]`, `[]`, `{}`, `[{"seed":"x"}]`, ``,
	} {
		f.Add([]byte(b))
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := sim.New(sim.Config{Seed: 1, BaseURL: func() string { return "http://sim.test" }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for range 2 { // the second time its tasks are known
			w := httptest.NewRecorder()
			if called(s, w, httptest.NewRequestWithContext(gone, http.MethodPost, "/v1", bytes.NewReader(body))) {
				html := w.Header().Get("Content-Type") == "text/html" // of what stands in front of it
				if !html && !json.Valid(w.Body.Bytes()) || w.Code < 200 {
					t.Errorf("answered %d %q", w.Code, w.Body)
				}
			}
		}
		var journal bytes.Buffer
		if err := s.WriteJournal(&journal); err != nil {
			t.Fatal(err)
		}
		if _, err := sim.ReadJournal(&journal); err != nil {
			t.Errorf("journal %q: %v", &journal, err)
		}
	})
}

// called reports false if the handler did not answer.
func called(h http.Handler, w http.ResponseWriter, r *http.Request) (answered bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	h.ServeHTTP(w, r)
	return true
}

// FuzzReadJournal: what is read of a journal can be added up.
func FuzzReadJournal(f *testing.F) {
	f.Add([]byte(`{"at":"2026-07-01T12:00:00Z","kind":"create","call":1,"tasks":["a"]}` + "\n"))
	f.Add([]byte(`{"kind":"output","task":"a","cost":-1}` + "\n" + `{"kind":"file","task":"a","http":200}`))
	f.Add([]byte("null\n\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := sim.ReadJournal(bytes.NewReader(text))
		if err != nil {
			return
		}
		sim.Ledger(entries)
		sim.Bill(entries)
	})
}
