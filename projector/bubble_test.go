package projector_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"

	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector"
)

// The whole reading side runs on fake time, which also shows that it leaves no
// goroutine: a bubble ends only when all have.
func TestFakeTime(t *testing.T) {
	// Its ticker must not belong to the bubble; finalizers of connections must not run in it.
	ats.Register()
	defer ats.Unregister()
	runtime.GC()
	runtime.GC()
	store, dir := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := natsd.Start(natsd.Config{Dir: store, MaxStore: 1 << 30})
		check(t, err)
		log, err := stream.Open(t.Context(), s.Conn(), stream.Config{Create: true})
		check(t, err)
		w := &world{t, log, rng()}
		p := w.run(projector.Config{Dir: dir})
		w.make(20)
		p.wait(w)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		began := time.Now()
		if err := p.Wait(ctx, w.end()+1); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 24*time.Hour {
			t.Errorf("waited %v: %v", time.Since(began), err)
		}
		check(t, p.Rebuild(t.Context(), nil))
		c, err := projector.Build(t.Context(), log, filepath.Join(dir, "built.db"), w.end())
		check(t, err)
		if dump(t, c) != dump(t, p.Current()) {
			t.Error("live and built differ")
		}
		check(t, c.Close())
		p.stop()
		s.Close()
	})
}
