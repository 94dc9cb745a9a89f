package health

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTimeout limits the queries of a scrape.
const scrapeTimeout = 5 * time.Second

// collector exposes the installation's health as metrics. It reads them from PostgreSQL at each scrape,
// so all processes expose the same values, and a restart does not reset them.
type collector struct {
	store *Store

	up, unstarted, survivors, waived, unmanaged, holds, invalidations, signals *prometheus.Desc
	running, oldest, notBegun, stalled, notAsked                               *prometheus.Desc
	unchained, unsigned, unarchived, sinkFailing                               *prometheus.Desc
	zero, zeroAt, scheduled, passed, failed                                    *prometheus.Desc
}

// NewCollector returns the collector of the store's health.
func NewCollector(store *Store) prometheus.Collector {
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("leaver_"+name, help, labels, nil)
	}
	return &collector{
		store: store,
		up:    gauge("postgresql_up", "Whether PostgreSQL answered this scrape."),
		unstarted: gauge("events_unstarted",
			"Number of lifecycle events older than a minute for which no workflow was started."),
		survivors: gauge("survivors", "Number of credentials and scheduled runs that a cascade failed to end."),
		waived:    gauge("waived", "Number of unrevoked credentials and scheduled runs with a valid waiver."),
		unmanaged: gauge("unmanaged", "Number of credentials that connectors found and that are not registered."),
		holds: gauge("holds_open",
			"Number of tenants with cascades that a deactivation threshold holds for approval."),
		invalidations: gauge("entitlements_stale_seconds",
			"Age of the oldest change of groups, attributes or rules that has not been evaluated."),
		signals: gauge("signals_waiting_seconds", "Age of the oldest undelivered security event of an enabled stream."),
		running: gauge("cascades_running", "Number of cascades that are open and not held by a deactivation threshold."),
		oldest: gauge("cascade_oldest_seconds",
			"Age of the oldest open cascade that is not held by a deactivation threshold."),
		notBegun: gauge("cascades_unbegun",
			"Number of cascades that were started over a minute ago and that no worker has taken up."),
		stalled:   gauge("cascade_stalled_seconds", "Longest time for which an open cascade has made no progress."),
		notAsked:  gauge("cascades_unasked", "Number of failed cascades for which the discovery of a connector failed."),
		unchained: gauge("evidence_unchained", "Number of records of evidence that are not in their hash chain yet."),
		unsigned: gauge("evidence_unsigned_seconds",
			"Age of the oldest last checkpoint of a hash chain that has later records."),
		unarchived: gauge("histories_unarchived",
			"Number of cascades that closed over 10 minutes ago and whose workflow history is not archived."),
		sinkFailing: gauge("audit_sink_failing_seconds", "How long the audit sink has refused evidence."),
		zero: gauge("time_to_zero_seconds",
			"Time from the commit of a deactivation to its last verified death, of the last day's leavers.", "quantile"),
		zeroAt: gauge("connector_time_to_zero_seconds",
			"Time from the commit of a deactivation to the last verified death at a connector, of the last day's leavers.",
			"connector", "quantile"),
		scheduled: gauge("self_test_scheduled_timestamp_seconds",
			"Time at which the reconciler or the drill was first scheduled.", "kind"),
		passed: gauge("self_test_passed_timestamp_seconds", "Time at which the reconciler or the drill last passed.", "kind"),
		failed: gauge("self_test_failed_timestamp_seconds", "Time at which the reconciler or the drill last failed.", "kind"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector. Without PostgreSQL it exposes only leaver_postgresql_up.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	send := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	h, err := c.store.Read(ctx)
	if err != nil {
		send(c.up, 0)
		return
	}
	send(c.up, 1)
	send(c.unstarted, float64(h.Unstarted))
	send(c.survivors, float64(h.Survivors))
	send(c.waived, float64(h.Waived))
	send(c.unmanaged, float64(h.Unmanaged))
	send(c.holds, float64(h.Holds))
	send(c.invalidations, h.Invalidations)
	send(c.signals, h.Signals)
	send(c.running, float64(h.Running))
	send(c.oldest, h.Oldest)
	send(c.notBegun, float64(h.NotBegun))
	send(c.stalled, h.Stalled)
	send(c.notAsked, float64(h.NotAsked))
	send(c.unchained, float64(h.Unchained))
	send(c.unsigned, h.Unsigned)
	send(c.unarchived, float64(h.Unarchived))
	send(c.sinkFailing, h.SinkFailing)
	for quantile, seconds := range map[string]*float64{"0.5": h.ZeroMedian, "0.95": h.ZeroP95, "1": h.ZeroWorst} {
		value := math.NaN() // as a summary without observations
		if seconds != nil {
			value = *seconds
		}
		send(c.zero, value, quantile)
	}
	for _, t := range h.ZeroConnectors {
		for quantile, seconds := range map[string]float64{"0.5": t.Median, "0.95": t.P95, "1": t.Worst} {
			send(c.zeroAt, seconds, t.Connector, quantile)
		}
	}
	for desc, times := range map[*prometheus.Desc]map[Kind]time.Time{
		c.scheduled: h.Scheduled, c.passed: h.Passed, c.failed: h.Failed,
	} {
		for kind, at := range times { // without an entry if it never happened
			send(desc, float64(at.UnixMilli())/1000, string(kind))
		}
	}
}
