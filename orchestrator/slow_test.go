package orchestrator

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/orchestrator/provider/runware"
)

// A requester whose promise does not reach the disk in time is told to ask again,
// under the same ID or key; not that something went wrong here.
func TestSlowDiskIsAReasonToAskAgain(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir(), Gate: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var slow atomic.Bool
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, SyncAll: s.SyncAll, Sync: func() error {
		if slow.Load() {
			<-release
		}
		return s.SyncLog()
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := New(Config{Log: l, Providers: []Instance{{Name: "runware", Provider: runware.New(runware.Config{Name: "runware"})}}})
	background, stop := context.WithCancel(t.Context())
	o.background = background
	defer o.wg.Wait()
	defer stop() // before the disk is quick again: nobody is called
	slow.Store(true)
	ask := Submission{Key: "slow", Body: []byte(`{"model":"runware:101@1","input":{"positivePrompt":"x","width":512,"height":512}}`)}
	for _, name := range []string{"the first time", "the second time"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err = o.Create(ctx, ask)
		cancel()
		var p *Problem
		if !errors.As(err, &p) || p.Code != http.StatusServiceUnavailable || p.kind() != string(ProblemUnavailable) {
			t.Errorf("%s: %v, want %s", name, err, ProblemUnavailable)
		}
	}
}

// A panic in the middle of a create, which a server of HTTP survives, costs that
// requester an answer and nothing else: he asks again, and is answered.
func TestPanicInACreateIsOverWithIt(t *testing.T) {
	s, err := natsd.Start(natsd.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var well atomic.Bool
	l, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true, Own: true, Full: func() error {
		if !well.Load() {
			panic("on purpose")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := New(Config{Log: l, Providers: []Instance{{Name: "runware", Provider: runware.New(runware.Config{Name: "runware"})}}})
	background, stop := context.WithCancel(t.Context())
	o.background = background
	defer o.wg.Wait()
	defer stop()
	ask := Submission{Key: "panic", Body: []byte(`{"model":"runware:101@1","input":{"positivePrompt":"x","width":512,"height":512}}`)}
	func() {
		defer func() { _ = recover() }()
		_, err := o.Create(t.Context(), ask)
		t.Errorf("no panic, but %v", err)
	}()
	o.wg.Wait()
	stop() // what is accepted now is not worked on: nobody is called
	well.Store(true)
	if _, err := o.Create(t.Context(), ask); err != nil {
		t.Errorf("asked again: %v", err)
	}
}
