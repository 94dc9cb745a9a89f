package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leaverhq/leaver/worker"
)

// temporalTimeout bounds the requests of one scrape to Temporal.
const temporalTimeout = 3 * time.Second

// temporalCollector collects metrics from Temporal: the namespace's retention, and the number of
// pollers of each task queue. While Temporal is down it emits neither.
type temporalCollector struct {
	app *App

	pollers, retention, minimum *prometheus.Desc
}

func newTemporalCollector(a *App) *temporalCollector {
	return &temporalCollector{
		app: a,
		pollers: prometheus.NewDesc("leaver_queue_pollers",
			"Number of workers that have recently polled a task queue of this process's configuration.", []string{"queue"}, nil),
		retention: prometheus.NewDesc("leaver_temporal_retention_seconds", "How long Temporal keeps closed workflows.",
			nil, nil),
		minimum: prometheus.NewDesc("leaver_temporal_minimum_retention_seconds", "The setting temporal.minimum_retention.",
			nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *temporalCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
}

// Collect implements prometheus.Collector.
func (c *temporalCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), temporalTimeout)
	defer cancel()
	emit := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	emit(c.minimum, c.app.Config.Temporal.MinimumRetention.Seconds())
	namespace, err := worker.CheckNamespace(ctx, c.app.Temporal, c.app.Config.Temporal)
	if err != nil {
		return
	}
	emit(c.retention, namespace.Retention.Seconds())
	for _, q := range c.app.queues() {
		if n, err := worker.Pollers(ctx, c.app.Temporal, q.name, q.kind); err == nil {
			emit(c.pollers, float64(n), q.name)
		}
	}
}
