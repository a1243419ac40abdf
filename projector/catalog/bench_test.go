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

func BenchmarkList(b *testing.B) {
	c := create(b)
	for n := 0; n < 20_000; n += 500 {
		entries := make([]catalog.Entry, 500)
		for i := range entries {
			entries[i] = entry(n+i+1, (n+i)%10, fmt.Sprintf("runware:%d@1", i%7), nil)
		}
		insert(b, c, entries...)
	}
	failed := true
	for name, f := range map[string]catalog.GenerationFilter{
		"newest": {}, "model": {Model: "runware:3@1"}, "failed": {Failed: &failed}, "200": {Limit: 200},
	} {
		b.Run("generations/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if page, err := c.Generations(b.Context(), f); err != nil || page.Next == "" {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("artifacts/newest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if page, err := c.Artifacts(b.Context(), catalog.ArtifactFilter{}); err != nil || page.Next == "" {
				b.Fatal(err)
			}
		}
	})
}
