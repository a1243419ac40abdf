package stream_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/genstream/genstream/events"
	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/events/stream/streamtest"
)

// BenchmarkAppend is what a request costs until it may be answered: the append, and
// the wait until it is on disk.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []string{"gate", "always"} {
		for _, writers := range []int{1, 16, 64, 256} {
			b.Run(fmt.Sprintf("fsync=%s/writers=%d", mode, writers), func(b *testing.B) {
				s, err := natsd.Start(natsd.Config{Dir: b.TempDir(), Gate: mode == "gate"})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				cfg := stream.Config{Create: true}
				if mode == "gate" {
					cfg.Sync, cfg.SyncAll = s.SyncLog, s.SyncAll
				}
				l, err := stream.Open(b.Context(), s.Conn(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				appendAll(b, l, writers)
			})
		}
	}
}

func appendAll(b *testing.B, l *stream.Log, writers int) {
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := appendOne(b.Context(), l); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}

func appendOne(ctx context.Context, l *stream.Log) error {
	id := streamtest.NewID()
	c, _, err := l.Append(ctx, id, stream.Head{}, events.Now(), streamtest.Request(id, 1))
	if err != nil {
		return err
	}
	return l.Await(ctx, c.Sequence)
}
