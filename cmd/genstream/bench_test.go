package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// benched runs a verb of bench in this process; what it starts beside is the test
// binary as the program.
func benched(t *testing.T, into any, args ...string) {
	t.Helper()
	t.Setenv(asGenstream, "1")
	var out, errs bytes.Buffer
	if code := run(append(append([]string{"bench"}, args...), "--json", "--data", t.TempDir()), &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
}

func TestBenchMeasuresBothPrograms(t *testing.T) {
	for _, how := range []string{"--inline", "--url"} {
		t.Run(strings.TrimLeft(how, "-"), func(t *testing.T) {
			var r benchReport
			benched(t, &r, how, "--clients", "4", "--outputs", "2", "--rounds", "1", "--for", "500ms")
			for _, b := range []benchRound{r.Genstream, r.Floor} {
				if b.PerSecond <= 0 || b.P50 <= 0 || b.P99 < b.P50 || b.CPU <= 0 || b.DriverCPU <= 0 || b.LogBytes <= 0 || b.CatalogBytes <= 0 {
					t.Errorf("%s: something was not measured: %+v", b.Who, b)
				}
				if b.BucketBytes != 2*8192 {
					t.Errorf("%s: %.0f bytes of files per generation, want 2 of 8 KiB", b.Who, b.BucketBytes)
				}
				if b.Refused > 0 {
					t.Errorf("%s: %d webhooks were refused", b.Who, b.Refused)
				}
			}
			if r.AppendsSynced <= 0 || r.AppendsUnsynced <= 0 || r.Inserts <= 0 || r.OfFloor <= 0 {
				t.Errorf("a floor was not measured: %+v", r)
			}
		})
	}
}

func TestBenchReadsWhatItFilled(t *testing.T) {
	var r readReport
	benched(t, &r, "read", "--generations", "1000", "--for", "100ms", "--clients", "2")
	if len(r.Reads) != 5 || r.CatchUp <= 0 {
		t.Fatalf("something was not measured: %+v", r)
	}
	for _, l := range r.Reads {
		if l.PerSecond <= 0 || l.P99 < l.P50 {
			t.Errorf("%+v", l)
		}
	}
}

func TestBenchRestartFindsEverythingInFlight(t *testing.T) {
	var r restartReport
	benched(t, &r, "restart", "--in-flight", "50")
	if r.First <= 0 || r.All < r.First || r.Memory <= 0 {
		t.Errorf("something was not measured: %+v", r)
	}
	if r.Refused > 0 {
		t.Errorf("%d webhooks were refused by a server that was there", r.Refused)
	}
}

func TestBenchRebuildsWhatItFilled(t *testing.T) {
	var r rebuildReport
	benched(t, &r, "rebuild", "--generations", "500")
	if r.Commits != 3*500 || r.PerSecond <= 0 || r.LogBytes <= 0 || r.RowBytes <= 0 {
		t.Errorf("something was not measured: %+v", r)
	}
}

func TestBenchLoadMeasuresEachSize(t *testing.T) {
	var r loadReport
	benched(t, &r, "load", "--sizes", "100,300", "--for", "100ms")
	if len(r.Sizes) != 2 {
		t.Fatalf("sizes: %+v", r)
	}
	for i, l := range r.Sizes {
		if l.Generations != []int{100, 300}[i] || l.CatchUp <= 0 || l.ByID.PerSecond <= 0 || l.Newest.PerSecond <= 0 ||
			l.Memory <= 0 || l.Restart <= 0 || l.Restarted <= 0 || l.LogBytes <= 0 || l.RowBytes <= 0 {
			t.Errorf("something was not measured: %+v", l)
		}
	}
}
