package orchestrator

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
)

// FuzzRequest: a request is refused with a problem of the requester's, or is
// within every limit, can be stored, and means the same when it is sent again.
func FuzzRequest(f *testing.F) {
	for _, body := range []string{
		plain, `null`, `[]`, ``, `{"model":"a:b@c","input":{"x":1}} x`,
		`{"model":"runware:101@1","count":20,"provider":"second","deadline":"1m30s","labels":{"user":"42"},"input":{"a":{"$file":"inputs/` + strings.Repeat("0", 64) + `"}}}`,
		`{"model":"runware:101@1","deadline":"24h0m0.5s","input":{"seed":1,"\u0077ebhookURL":"x"}}`,
		`{"model":"runware:101@1","deadline":"-1ns","input":{"x":"\r\nGen-Version: 9"},"labels":{"a":"\r\n"}}`,
		`{"MODEL":"runware:101@1","Model":"x:y@z","input":{"n":1e999}}`,
		`{"model":"runware:101@1","count":1e0,"input":{"n":1E400,"m":-0.0}}`,
	} {
		f.Add([]byte(body))
	}
	o, now := asker(), events.Now()
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := o.parse(body, now)
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) || p.Code < 400 || p.Code > 499 || !json.Valid(p.JSON()) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		given := r.Deadline.Sub(now)
		if r.ExpectedCount < 1 || r.ExpectedCount > events.MaxCount || given < events.MinDeadline || given > events.MaxDeadline ||
			o.lanes[r.Provider] == nil || len(r.Labels) > events.MaxLabels || len(r.Digest) != 32 || !json.Valid(r.Input) || r.Input[0] != '{' {
			t.Errorf("taken: %+v", r)
		}
		if strings.ContainsAny(r.Model, " \r\n") {
			t.Errorf("model %q", r.Model)
		}
		again, err := o.parse(body, now)
		if err != nil || again.Digest != r.Digest {
			t.Errorf("sent again: %s, %v; before: %s", again.Digest, err, r.Digest)
		}
		for range r.ExpectedCount {
			r.Tasks = append(r.Tasks, events.TaskID("x", 0, 1))
		}
		stored, err := events.Encode(now, []events.Event{r})
		if err != nil {
			t.Fatalf("taken, and cannot be stored: %v", err)
		}
		_, back, err := events.Decode(stored)
		if err != nil {
			t.Fatalf("taken, and cannot be read again: %v", err)
		}
		// Only what JSON has no other spelling for is kept by the letter.
		if got := back[0].(events.Requested); got.Digest != r.Digest || got.Model != r.Model || got.Provider != r.Provider {
			t.Errorf("%+v comes back as %+v", r, got)
		}
	})
}

// FuzzIdentify: whatever stands in the headers of a submission, its ID is one that
// ParseID makes, of today or derived, or there is a problem of the requester's.
func FuzzIdentify(f *testing.F) {
	now := time.Now()
	f.Add(string(events.SubmittedID("x", 1, now)), "", "", []byte(`{"id":"x"}`))
	f.Add("", "order-17", "alice", []byte(events.SubmittedID("x", 1, now)))
	f.Add("*", "", "\r\n", []byte(`{"id":"gen.>"}`))
	f.Add(string(events.DerivedID("", "k")), "k", "", []byte(`{"id":7}`))
	f.Fuzz(func(t *testing.T, id, key, requester string, body []byte) {
		refused := func(err error) bool {
			var p *Problem
			if err != nil && (!errors.As(err, &p) || p.Code != 422) {
				t.Fatalf("%T %v", err, err)
			}
			return err != nil
		}
		if got, fresh, err := identify(Submission{ID: id, Key: key, Requester: requester}, now); !refused(err) {
			if _, err := events.ParseID(string(got)); err != nil {
				t.Fatalf("%q is made of %q", got, id)
			}
			switch {
			case id != "" && (got != events.ID(id) || fresh || key != ""):
				t.Errorf("%q becomes %q", id, got)
			case id == "" && key != "" && got != events.DerivedID(requester, key):
				t.Errorf("key %q becomes %q", key, got)
			case id == "" && key == "" && !fresh:
				t.Errorf("%q is minted, and not fresh", got)
			}
		}
		if got, err := idOf(body); !refused(err) {
			if _, err := events.ParseID(string(got)); err != nil {
				t.Errorf("%q is read as %q", body, got)
			}
		}
	})
}
