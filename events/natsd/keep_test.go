package natsd_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// small is a file system of its own of so many MiB, and a function that fills it
// up but for some bytes.
func small(t *testing.T, size string) (dir string, fill func(leave int64), empty func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NO DISK WAS FULL: mounting one needs root")
	}
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("NO DISK WAS FULL: mount: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	ballast := filepath.Join(dir, "ballast")
	fill = func(leave int64) {
		t.Helper()
		free, _, err := natsd.Free(dir)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(make([]byte, max(free-leave, 0))); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return dir, fill, func() { os.Remove(ballast) }
}

// kept is a log on a small disk whose server is watched over.
func kept(t *testing.T, dir string, gate bool) (*natsd.Server, *stream.Log) {
	t.Helper()
	s := start(t, natsd.Config{Dir: filepath.Join(dir, "nats"), Gate: gate})
	cfg := stream.Config{Create: true, Own: true, SyncAll: s.SyncAll, Full: s.Full}
	if gate {
		cfg.Sync = s.SyncLog
	}
	l, err := stream.Open(t.Context(), s.Conn(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Keep(ctx, l.Reopened) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("keep: %v", err)
		}
	})
	return s, l
}

// A disk that fills up under the server refuses appends, and says so, until there
// is room; nothing that was acknowledged is lost, and nobody starts anything again.
func TestFullDiskIsWaitedOut(t *testing.T) {
	for name, gate := range map[string]bool{"gate": true, "always": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, fill, empty := small(t, "32m")
			s, l := kept(t, dir, gate)
			var acked []events.ID
			one := func(limit time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				id := streamtest.NewID()
				c, _, err := l.Append(ctx, id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
				if err == nil {
					err = l.Await(ctx, c.Sequence)
				}
				if err == nil {
					acked = append(acked, id)
				}
				return err
			}
			followed := make(chan int, 1)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() {
				n := 0
				_ = l.Follow(ctx, 0, func(batch []stream.Entry) error { n += len(batch); return nil })
				followed <- n
			}()
			for range 100 {
				if err := one(5 * time.Second); err != nil {
					t.Fatal(err)
				}
			}
			for round := range 2 {
				fill(int64(round) * 10_000)
				until := time.Now().Add(30 * time.Second)
				for s.Full() == nil {
					if err := one(time.Second); err != nil {
						t.Logf("round %d, after %d: %v", round, len(acked), err)
					}
					if time.Now().After(until) {
						t.Fatal("the full disk is not noticed")
					}
				}
				if err := one(time.Second); !errors.Is(err, stream.ErrFull) {
					t.Errorf("append on a full disk: %v, want ErrFull at once", err)
				}
				if g, _, err := l.Load(t.Context(), acked[0]); err != nil || !g.Requested() {
					t.Errorf("load on a full disk: %v", err)
				}
				empty()
				for began := time.Now(); ; {
					err := one(5 * time.Second)
					if err == nil {
						t.Logf("round %d: goes on after %s", round, time.Since(began).Round(time.Millisecond))
						break
					}
					if time.Since(began) > 30*time.Second {
						t.Fatal(err)
					}
				}
				for range 50 {
					if err := one(5 * time.Second); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, id := range acked {
				if g, _, err := l.Load(t.Context(), id); err != nil || !g.Requested() {
					t.Errorf("generation=%s was acknowledged: %v", id, err)
				}
			}
			end, err := l.Refresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if int(end) < len(acked) {
				t.Errorf("the log ends at %d, %d were acknowledged", end, len(acked))
			}
			caught, stopScan := context.WithTimeout(t.Context(), 10*time.Second)
			defer stopScan()
			n := 0
			if err := l.Scan(caught, 0, end, func(b []stream.Entry) error { n += len(b); return nil }); err != nil || n != int(end) {
				t.Errorf("scan: %d of %d, %v", n, end, err)
			}
			<-time.After(2 * time.Second)
			stop()
			if n := <-followed; n != int(end) {
				t.Errorf("a follower through all of it saw %d of %d", n, end)
			}
		})
	}
}
