package orchestrator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/genstream/genstream/events"
)

// Metrics counts what the orchestrator does. No label ever holds an ID.
type Metrics struct {
	Commits   *prometheus.CounterVec // by event type
	Conflicts prometheus.Counter
	Parked    prometheus.Counter
	Refused   *prometheus.CounterVec   // requests by reason
	Calls     *prometheus.HistogramVec // seconds, by provider, call (create, look) and fate
	Fetches   *prometheus.CounterVec   // by fate
	Bytes     prometheus.Counter       // downloaded and kept
	Done      *prometheus.CounterVec   // completed generations, by whether they have artifacts
	open      prometheus.GaugeFunc
	trouble   prometheus.GaugeFunc
}

func newMetrics(o *Orchestrator) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "genstream_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "genstream_" + name, Help: help}, labels)
	}
	return &Metrics{
		Commits:   vector("events_total", "Events appended, by type.", "type"),
		Conflicts: counter("conflicts_total", "Appends that somebody else's commit came before."),
		Parked:    counter("parked_total", "Commits and submissions that could not be processed and were parked."),
		Refused:   vector("requests_refused_total", "Requests that were refused, by the problem's type.", "problem"),
		Calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "genstream_provider_call_seconds", Help: "Calls to providers, by provider, call and fate.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 30},
		}, []string{"provider", "call", "fate"}),
		Fetches: vector("fetches_total", "Downloads of outputs, by fate.", "fate"),
		Bytes:   counter("fetched_bytes_total", "Bytes of outputs downloaded and kept."),
		Done:    vector("completed_total", "Generations completed, by whether they have artifacts.", "artifacts"),
		open: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "genstream_open_generations", Help: "Generations that are not completed yet."},
			func() float64 { return float64(o.table.len()) }),
		trouble: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "genstream_providers_in_trouble", Help: "Providers that are not being called."},
			func() float64 {
				n := 0.0
				for _, l := range o.lanes {
					if l.Trouble() != nil {
						n++
					}
				}
				return n
			}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{
		m.Commits, m.Conflicts, m.Parked, m.Refused, m.Calls, m.Fetches, m.Bytes, m.Done, m.open, m.trouble,
	} {
		c.Collect(ch)
	}
}

func (m *Metrics) committed(evs []events.Event) {
	for _, e := range evs {
		m.Commits.WithLabelValues(e.Type()).Inc()
		if c, ok := e.(events.Completed); ok {
			with := "some"
			if c.Generation.ArtifactCount() == 0 {
				with = "none"
			}
			m.Done.WithLabelValues(with).Inc()
		}
	}
}

func (m *Metrics) called(provider, call, fate string, started time.Time) {
	m.Calls.WithLabelValues(provider, call, fate).Observe(time.Since(started).Seconds())
}

func (m *Metrics) fetched(err error, size int64) {
	if err != nil {
		m.Fetches.WithLabelValues("failed").Inc()
		return
	}
	m.Fetches.WithLabelValues("kept").Inc()
	m.Bytes.Add(float64(size))
}
