package blob_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/genstream/genstream/blob"
)

func TestProbeLeavesNothing(t *testing.T) {
	onEveryBucket(t, func(t *testing.T, b *blob.Bucket) {
		for range 2 {
			p, err := b.Probe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if p.Write <= 0 || p.Read <= 0 || p.Range <= 0 || p.Delete <= 0 {
				t.Errorf("a step took no time: %+v", p)
			}
		}
		isEmpty(t, b)
	})
	dir := t.TempDir()
	if _, err := open(t, dir).Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "probes")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder of the probes is still there: %v", err)
	}
}

func TestProbeSaysWhichStepFails(t *testing.T) {
	for step, spoil := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"write: ": func(_ http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPut },
		"read: ": func(_ http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodGet && r.Header.Get("Range") == "bytes=0-262143"
		},
		"read a range: ": func(_ http.ResponseWriter, r *http.Request) bool {
			return strings.HasPrefix(r.Header.Get("Range"), "bytes=131072-")
		},
		"delete: ": func(_ http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodDelete },
	} {
		t.Run(strings.TrimSuffix(step, ": "), func(t *testing.T) {
			real := s3Server(t)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if spoil(w, r) {
					http.Error(w, "no", http.StatusForbidden)
					return
				}
				real.Config.Handler.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			b := open(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+front.URL)
			_, err := b.Probe(t.Context())
			if !errors.Is(err, blob.ErrBucket) || !strings.HasPrefix(err.Error(), step) {
				t.Errorf("%v, want %sand ErrBucket", err, step)
			}
		})
	}
}

// A server that ignores ranges sends the beginning of a file instead of its middle.
func TestProbeComparesTheRange(t *testing.T) {
	real := s3Server(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		real.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	b := open(t, "s3://things?region=us-east-1&use_path_style=true&endpoint="+front.URL)
	if _, err := b.Probe(t.Context()); !errors.Is(err, blob.ErrBucket) || !strings.HasPrefix(err.Error(), "read a range: ") {
		t.Errorf("%v, want a failed range", err)
	}
}
