package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/genstream/genstream/projector/api"
)

// BenchmarkRead measures the handler alone: no socket, 60 generations.
func BenchmarkRead(b *testing.B) {
	var handler http.Handler
	w := loneWorld(b, func(c *api.Config) { handler = api.New(*c) })
	var last *made
	for range 60 {
		last = w.whole(1)
	}
	for _, path := range []string{"/v1/generations", "/v1/artifacts", "/v1/counts", "/v1/generations/" + string(last.id), "/"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rec := httptest.NewRecorder()
				handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
				if rec.Code != http.StatusOK {
					b.Fatal(rec.Code)
				}
			}
		})
	}
}
