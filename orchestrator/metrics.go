package orchestrator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/genstream/genstream/events"
)

// Metrics counts what the orchestrator does. No label ever holds an ID. What the
// appends themselves came to is counted by the log; docs/metrics.md has them all.
type Metrics struct {
	Events     *prometheus.CounterVec // appended, by type
	Parked     prometheus.Counter
	Refused    *prometheus.CounterVec   // requests by reason
	Calls      *prometheus.HistogramVec // seconds, by provider, call (create, look) and fate
	Deliveries *prometheus.CounterVec   // in answers to calls, by provider, source and fate
	Fetches    *prometheus.CounterVec   // by fate
	Bytes      prometheus.Counter       // downloaded and kept
	Done       *prometheus.CounterVec   // completed generations, by whether they have artifacts
	open       prometheus.GaugeFunc
	oldest     prometheus.GaugeFunc
	trouble    prometheus.GaugeFunc
}

func newMetrics(o *Orchestrator) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "genstream_" + name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "genstream_" + name, Help: help}, labels)
	}
	return &Metrics{
		Events:  vector("events_total", "Events appended by the orchestrator, by type.", "type"),
		Parked:  counter("parked_total", "Commits and submissions that could not be processed and were parked."),
		Refused: vector("requests_refused_total", "Requests that were refused, by the problem's type.", "problem"),
		Calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "genstream_provider_call_seconds", Help: "Calls to providers, by provider, call and fate.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 30},
		}, []string{"provider", "call", "fate"}),
		Deliveries: vector("deliveries_total", "Results found in answers to calls, by provider, source and fate; webhooks are counted apart.", "provider", "source", "fate"),
		Fetches:    vector("fetches_total", "Downloads of outputs, by fate.", "fate"),
		Bytes:      counter("fetched_bytes_total", "Bytes of outputs downloaded and kept."),
		Done:       vector("completed_total", "Generations completed, by whether they have artifacts.", "artifacts"),
		open: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "genstream_open_generations", Help: "Generations that are not completed yet."},
			func() float64 { return float64(o.table.len()) }),
		oldest: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "genstream_oldest_open_seconds", Help: "Age of the oldest generation that is not completed yet; 0 = none is open."},
			func() float64 { return o.table.age(time.Now()).Seconds() }),
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

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{
		m.Events, m.Parked, m.Refused, m.Calls, m.Deliveries, m.Fetches, m.Bytes, m.Done, m.open, m.oldest, m.trouble,
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// committed counts a commit that is in the log, and tells it: one line each, and
// no other line is about a decision.
func (o *Orchestrator) committed(c events.Commit) {
	told := []any{"generation", c.ID, "types", events.Types(c.Events), "version", c.Version, "sequence", c.Sequence}
	for _, e := range c.Events {
		o.Metrics.Events.WithLabelValues(e.Type()).Inc()
		if done, ok := e.(events.Completed); ok {
			g := done.Generation
			with := "some"
			if g.ArtifactCount() == 0 {
				with = "none"
			}
			o.Metrics.Done.WithLabelValues(with).Inc()
			told = append(told, "model", g.Model, "artifacts", g.ArtifactCount(), "outputs", g.ExpectedCount, "took", g.CompletedAt.Sub(g.CreatedAt))
		}
	}
	o.log.Info("committed", told...)
}

// age is how long the oldest open generation has been open, 0 if none is.
func (t *table) age(now time.Time) time.Duration {
	var oldest time.Duration
	for _, e := range t.all() {
		e.mu.Lock()
		if e.shown.Requested() && !e.gone {
			oldest = max(oldest, now.Sub(e.shown.CreatedAt))
		}
		e.mu.Unlock()
	}
	return oldest
}

func (m *Metrics) called(provider, call, fate string, started time.Time) {
	m.Calls.WithLabelValues(provider, call, fate).Observe(time.Since(started).Seconds())
}

// delivered counts the results that came in the answer to a call.
func (m *Metrics) delivered(provider, source string, err error) {
	fate := "taken"
	if err != nil {
		fate = "lost"
	}
	m.Deliveries.WithLabelValues(provider, source, fate).Inc()
}

func (m *Metrics) fetched(err error, size int64) {
	if err != nil {
		m.Fetches.WithLabelValues("failed").Inc()
		return
	}
	m.Fetches.WithLabelValues("kept").Inc()
	m.Bytes.Add(float64(size))
}
