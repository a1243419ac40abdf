package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbage is how many bytes a server may leave for the collector at least: with a
// small heap, Go's default would collect many times a second and take a tenth of the CPU.
const garbage = 48 << 20

// spaceGarbage keeps the collector's pace at "as much garbage as there is live heap,
// and garbage at least" until ctx ends. An operator's GOGC is left alone.
func spaceGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // tests have more than one server
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		metrics.Read(live)
		debug.SetGCPercent(int(max(100, 100*garbage/max(live[0].Value.Uint64(), 1<<20))))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
