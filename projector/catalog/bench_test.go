package catalog_test

import (
	"fmt"
	"testing"

	"github.com/genstream/genstream/projector/catalog"
)

func BenchmarkInsert(b *testing.B) {
	for _, batch := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			c := create(b)
			n := 0
			for b.Loop() {
				entries := make([]catalog.Entry, batch)
				for i := range entries {
					n++
					entries[i] = entry(n, 2, "runware:101@1", map[string]string{"user": fmt.Sprint(n % 1000)})
				}
				insert(b, c, entries...)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "generations/s")
		})
	}
}
