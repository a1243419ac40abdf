package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/genstream/genstream/events/natsd"
	"github.com/genstream/genstream/events/stream"
	"github.com/genstream/genstream/projector"
)

// collection is several metrics that are registered as one. What they are, and
// all others, is in docs/metrics.md.
type collection []prometheus.Collector

// Describe implements prometheus.Collector.
func (c collection) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c {
		m.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c collection) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c {
		m.Collect(ch)
	}
}

func gauge(name, help string, read func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "genstream_" + name, Help: help}, read)
}

// logMetrics is what became of this process's appends, whichever role made them.
func logMetrics(l *stream.Log) collection {
	count := func(name, help string, labels prometheus.Labels, read func(stream.Counts) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "genstream_" + name, Help: help, ConstLabels: labels},
			func() float64 { return float64(read(l.Counts())) })
	}
	const unknown, about = "unknown_results_total", "Appends whose answer was lost, by what was found out about them."
	return collection{
		count("commits_total", "Commits appended to the log.", nil, func(c stream.Counts) uint64 { return c.Commits }),
		count("conflicts_total", "Appends that somebody else's commit came before.", nil, func(c stream.Counts) uint64 { return c.Conflicts }),
		count(unknown, about, prometheus.Labels{"fate": "found"}, func(c stream.Counts) uint64 { return c.Found }),
		count(unknown, about, prometheus.Labels{"fate": "missing"}, func(c stream.Counts) uint64 { return c.Missing }),
		count(unknown, about, prometheus.Labels{"fate": "unknown"}, func(c stream.Counts) uint64 { return c.Unknown }),
		gauge("appends_under_way", "Appends that the log's server has not acknowledged yet.", func() float64 { return float64(l.Counts().UnderWay) }),
		gauge("durable_lag", "Commits in the log that are not known to be on disk yet.", func() float64 { return float64(l.Lag()) }),
		gauge("durable_sequence", "Stream sequence up to which this process knows the log to be on disk.", func() float64 { return float64(l.Durable()) }),
	}
}

// projection is how far the catalog is.
func projection(p *projector.Projector) collection {
	return collection{
		gauge("projection_lag", "Commits of the log that the catalog has not read yet.", func() float64 { return float64(p.Lag()) }),
		gauge("projection_skipped", "Completing commits that could not be read and have no row in this catalog.", func() float64 { return float64(p.Skipped()) }),
	}
}

// room is how much there is left where the data directory is.
func room(dir string) collection {
	size := func(read func(free, total int64) int64) func() float64 {
		return func() float64 {
			free, total, err := natsd.Free(dir)
			if err != nil {
				return -1
			}
			return float64(read(free, total))
		}
	}
	return collection{
		gauge("disk_free_bytes", "Bytes left on the file system of the data directory; -1 = it cannot be asked.", size(func(free, _ int64) int64 { return free })),
		gauge("disk_bytes", "Size in bytes of the file system of the data directory; -1 = it cannot be asked.", size(func(_, total int64) int64 { return total })),
	}
}

// timing is how long generations take to enter the catalog.
type timing struct {
	since                time.Time // what was completed before is being caught up with, and says nothing
	requested, completed prometheus.Histogram
}

func newTiming(since time.Time) *timing {
	return &timing{
		since: since,
		requested: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "genstream_request_to_row_seconds", Help: "From a request to its row in the catalog.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 2400},
		}),
		completed: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "genstream_completed_to_row_seconds", Help: "From a generation's completion to its row in the catalog.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 5, 30},
		}),
	}
}

// entered is told by the projector.
func (t *timing) entered(created, completed time.Time) {
	if completed.Before(t.since) {
		return
	}
	t.requested.Observe(time.Since(created).Seconds())
	t.completed.Observe(time.Since(completed).Seconds())
}
