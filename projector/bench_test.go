package projector_test

import (
	"testing"

	"github.com/genstream/genstream/projector"
)

// BenchmarkRebuild reads a log of 1,000 generations, of which every fifth is open.
func BenchmarkRebuild(b *testing.B) {
	w := newWorld(b)
	w.make(1000)
	p, err := projector.New(b.Context(), projector.Config{Log: w.log, Dir: b.TempDir()})
	check(b, err)
	defer p.Close()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		check(b, p.Rebuild(b.Context(), nil))
		n++
	}
	b.ReportMetric(float64(800*n)/b.Elapsed().Seconds(), "generations/s")
}
