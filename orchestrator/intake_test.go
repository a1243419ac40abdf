package orchestrator_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// TestAnswersGoToInboxesOnly: a requester who gives a generation's subject as his
// reply subject has nothing written there, and is not answered.
func TestAnswersGoToInboxesOnly(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Admin: "a", Requester: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	o := orchestrator.New(orchestrator.Config{
		Log: l, Providers: []orchestrator.Instance{{Name: "runware", Provider: runware.New(runware.Config{Name: "runware"})}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- o.Serve(ctx, s.Conn()) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	nc, err := nats.Connect(s.URL(), nats.UserInfo("requester", "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()

	// Serve is not there at once: a request that nobody takes says so.
	ask := func(subject string) *nats.Msg {
		t.Helper()
		for {
			m, err := nc.Request(subject, []byte("not JSON"), 5*time.Second)
			if err == nil {
				return m
			}
			if !errors.Is(err, nats.ErrNoResponders) {
				t.Fatal(err)
			}
		}
	}
	for _, subject := range []string{"genstream.generations.create", "genstream.generations.get"} {
		ask(subject)
		for range 20 {
			if err := nc.PublishRequest(subject, "gen."+uuid.Must(uuid.NewV7()).String(), []byte("not JSON")); err != nil {
				t.Fatal(err)
			}
		}
		// This one comes after them, and is answered: not with a 2xx.
		if m := ask(subject); m.Header.Get("Nats-Service-Error-Code") == "" {
			t.Errorf("%s answers %q", subject, m.Data)
		}
	}
	if commits, _, err := l.Size(t.Context()); commits != 0 || err != nil {
		t.Errorf("the log holds %d messages, %v", commits, err)
	}
}
