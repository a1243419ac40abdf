// Package prooftest lets a long test be part of `genstream prove`.
//
// # Usage
//
//	run := prooftest.Begin(t, "disk")
//	for i := range run.Cases(100) {
//		if !t.Run(…) {
//			run.Violated(i)
//		}
//	}
//
// GENSTREAM_FROM is the first case, GENSTREAM_FOR how long cases are begun, and at
// the end of the test its line is logged for [proof.Told] to read. An interrupt is
// the end of the time, too, if GENSTREAM_FOR is set: cases that have begun end.
package prooftest

import (
	"context"
	"iter"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/genstream/genstream/cmd/genstream/proof"
)

// Run is what a test has tried. Its methods may be called from several goroutines.
type Run struct {
	From int64 // the first case, 0 or more

	t    *testing.T
	long bool
	ctx  context.Context // ends with the time

	mu     sync.Mutex
	report proof.Report
	void   int64
}

// Begin begins a run of a kind, and logs its line when the test has ended. An
// environment that it cannot read fails the test.
func Begin(t *testing.T, kind string) *Run {
	t.Helper()
	r := &Run{t: t, report: proof.Report{Kind: kind, Figures: map[string]int64{}}, ctx: t.Context()}
	var err error
	if from := os.Getenv(proof.From); from != "" {
		if r.From, err = strconv.ParseInt(from, 10, 64); err != nil || r.From < 0 {
			t.Fatalf("%s=%s is no number of a case", proof.From, from)
		}
	}
	if long := os.Getenv(proof.For); long != "" {
		limit, err := time.ParseDuration(long)
		if err != nil {
			t.Fatalf("%s: %v", proof.For, err)
		}
		ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
		ctx, cancel := context.WithTimeout(ctx, limit)
		t.Cleanup(func() { cancel(); stop() })
		r.ctx, r.long = ctx, true
	}
	t.Cleanup(r.end)
	return r
}

// Long says whether the time is given, and the number of cases may be anything.
func (r *Run) Long() bool { return r.long }

// More says whether a case may still begin.
func (r *Run) More() bool { return r.ctx.Err() == nil }

// Cases is the numbers of n cases from the first, as long as they may begin. Each
// counts as tried, and the test must have it end.
func (r *Run) Cases(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range n {
			if !r.More() || !r.yield(int(r.From)+i, yield) {
				return
			}
		}
	}
}

func (r *Run) yield(i int, yield func(int) bool) bool {
	r.Tried(1)
	return yield(i)
}

// Tried counts n more cases, those after the ones that were counted before.
func (r *Run) Tried(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Cases += int64(n)
}

// Void takes back n cases that were counted as tried: what came of them says nothing,
// and the next run goes on behind them all the same.
func (r *Run) Void(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Cases -= int64(n)
	r.void += int64(n)
}

// Violated counts a case in which something did not hold.
func (r *Run) Violated(i int) {
	r.t.Helper()
	r.mu.Lock()
	r.report.Violations++
	r.mu.Unlock()
	r.t.Logf("case %d failed; GENSTREAM_FROM=%d repeats it", i, i)
}

// Figure adds to something else that the test counts, such as operations.
func (r *Run) Figure(word string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Figures[word] += int64(n)
}

// end logs the line. A test that failed for whatever reason has shown nothing.
func (r *Run) end() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Next = r.From + r.report.Cases + r.void
	if r.t.Failed() {
		r.report.Violations = max(1, r.report.Violations)
	}
	if r.t.Skipped() {
		return
	}
	r.t.Log(r.report)
}
