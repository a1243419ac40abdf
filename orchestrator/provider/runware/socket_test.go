package runware_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/genstream/genstream/orchestrator/provider/inline"
	"github.com/genstream/genstream/orchestrator/provider/runware"
	"github.com/genstream/genstream/orchestrator/provider/sim"
)

func TestTheSameOverRealSockets(t *testing.T) {
	bodies := make(chan []byte, 2)
	us := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reply, err := inline.Read(r.Body, inline.Limits{})
		if err != nil {
			t.Error(err)
		}
		bodies <- reply.Body
	}))
	defer us.Close()
	var base string
	s, err := sim.New(sim.Config{Key: "sk-secret", BaseURL: func() string { return base }, Latency: sim.Range{Max: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	them := httptest.NewServer(s)
	defer them.Close()
	base = them.URL
	defer s.Close()
	p := runware.New(runware.Config{BaseURL: base + "/v1", Key: "sk-secret"})
	c := call(`{"positivePrompt":"a fox","width":64,"height":64}`)
	c.Webhook = us.URL + "/hook"
	x, err := p.Create(t.Context(), c)
	if err != nil || said(x) != "+a +b" {
		t.Fatalf("create: %q, %v", said(x), err)
	}
	x.Reply.Close()
	for range 2 {
		results, err := p.Parse(<-bodies)
		if err != nil || len(results) != 1 || results[0].Error != nil {
			t.Fatalf("webhook: %+v, %v", results, err)
		}
		resp, err := http.Get(results[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		file, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || http.DetectContentType(file) != "image/png" {
			t.Errorf("file: %d, %v", resp.StatusCode, err)
		}
	}
	x, err = p.Look(t.Context(), []string{a, b})
	if err != nil || said(x) != "=a =b" {
		t.Fatalf("look: %q, %v", said(x), err)
	}
	x.Reply.Close()
}
