package orchestrator_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// crowded is an orchestrator that runs and answers over NATS, on a provider that
// nobody is.
type crowded struct {
	*orchestrator.Orchestrator
	log  *stream.Log
	conn *nats.Conn
}

func newCrowded(t *testing.T, cfg orchestrator.Config, full func() error) crowded {
	t.Helper()
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Full: full})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log, cfg.Alone = l, true
	cfg.Providers = []orchestrator.Instance{{Name: "runware", Provider: runware.New(runware.Config{Name: "runware", BaseURL: "http://127.0.0.1:1"})}}
	c := crowded{orchestrator.New(cfg), l, nil}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func() error{func() error { return c.Run(ctx) }, func() error { return c.Serve(ctx, s.Conn()) }} {
		running.Go(func() {
			if err := run(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	if c.conn, err = nats.Connect(s.URL(), nats.UserInfo("requester", "r")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.conn.Close)
	for !c.Recovered() || c.create(t).Header.Get("Nats-Service-Error-Code") != "422" { // both are there
		<-time.After(time.Millisecond)
	}
	return c
}

// create asks over NATS, for nothing unless it is told what.
func (c crowded) create(t *testing.T, id ...string) *nats.Msg {
	t.Helper()
	m := nats.NewMsg(orchestrator.CreateSubject)
	m.Data = []byte(`{}`)
	if len(id) > 0 {
		m.Header.Set(orchestrator.HeaderID, id[0])
		m.Data = body
	}
	for {
		answer, err := c.conn.RequestMsg(m, 10*time.Second)
		if err == nil {
			return answer
		}
		if !errors.Is(err, nats.ErrNoResponders) {
			t.Fatal(err)
		}
	}
}

var body = []byte(`{"model":"runware:101@1","input":{"positivePrompt":"a fox","width":512,"height":512},"deadline":"1h"}`)

func newID() string { return string(streamtest.NewID()) }

// busy fails unless a requester was told to come again, by each way.
func (c crowded) busy(t *testing.T) {
	t.Helper()
	before, _, err := c.log.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check := func(way string, m *nats.Msg) {
		t.Helper()
		var p orchestrator.Problem
		if err := json.Unmarshal(m.Data, &p); err != nil || p.Type != "urn:genstream:problem:busy" {
			t.Errorf("%s: %s, %v: want busy", way, m.Data, err)
		}
		if code, after := m.Header.Get("Nats-Service-Error-Code"), m.Header.Get("Retry-After"); code != "503" || after != "1" {
			t.Errorf("%s: code %q, Retry-After %q", way, code, after)
		}
	}
	check("over NATS", c.create(t, newID()))
	m := nats.NewMsg(orchestrator.CreateSubject)
	m.Data = body
	answer, err := c.Answer(t.Context(), m) // as the API of this process asks
	if err != nil {
		t.Fatal(err)
	}
	check("over HTTP", answer)
	if after, _, err := c.log.Size(t.Context()); after != before || err != nil {
		t.Errorf("the log grew from %d to %d messages, %v", before, after, err)
	}
}

// A create that finds no place is refused at once, and leaves nothing behind.
func TestCreatesBeyondTheirPlacesAreRefused(t *testing.T) {
	const places = 3
	at, gate := make(chan struct{}, places), make(chan struct{})
	c := newCrowded(t, orchestrator.Config{MaxCreates: places}, func() error {
		select {
		case at <- struct{}{}:
		default: // the other appends of an orchestrator are none of ours
		}
		<-gate
		return nil
	})
	answers := make(chan *nats.Msg, places)
	for range places {
		go func() { answers <- c.create(t, newID()) }()
	}
	for range places {
		<-at
	}
	c.busy(t)
	close(gate)
	for range places {
		if m := <-answers; m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Errorf("one that had a place: %s", m.Data)
		}
	}
	if m := c.create(t, newID()); m.Header.Get("Nats-Service-Error-Code") != "" {
		t.Errorf("when there were places again: %s", m.Data)
	}
}

// No generation is accepted beyond those that may be open.
func TestOpenGenerationsAreBounded(t *testing.T) {
	const most = 4
	c := newCrowded(t, orchestrator.Config{MaxOpen: most}, nil)
	for i := range most {
		if m := c.create(t, newID()); m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("create %d of %d: %s", i+1, most, m.Data)
		}
	}
	if n := c.OpenCount(); n != most {
		t.Fatalf("%d are open", n)
	}
	for i := range 3 {
		if m := c.create(t, newID()); m.Header.Get("Nats-Service-Error-Code") != "503" || m.Header.Get("Retry-After") == "" {
			t.Errorf("create %d: %v %s", most+i+1, m.Header, m.Data)
		}
	}
	if n := c.OpenCount(); n != most {
		t.Errorf("%d are open, want %d", n, most)
	}
}
