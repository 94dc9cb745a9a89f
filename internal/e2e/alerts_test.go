package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// samples returns the values of leaver's metrics from /metrics, by series.
func (i *installation) samples() map[string]string {
	i.t.Helper()
	recorder := httptest.NewRecorder()
	i.app.Metrics().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	body, err := io.ReadAll(recorder.Body)
	if err != nil || recorder.Code != http.StatusOK {
		i.t.Fatalf("/metrics answered %d (%v)", recorder.Code, err)
	}
	samples := make(map[string]string)
	for line := range strings.Lines(string(body)) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(series, "leaver_") {
			samples[series] = value
		}
	}
	return samples
}

// alertsEnd is when the alerts are evaluated, in promtool's time, which begins at 0.
const alertsEnd = 119 * time.Minute

// wantAlerts evaluates the rules in deploy/alerts.yaml with samples that are constant for two
// hours, and fails unless exactly the wanted alerts fire.
func (i *installation) wantAlerts(samples map[string]string, want ...string) {
	i.t.Helper()
	rules, err := filepath.Abs("../../deploy/alerts.yaml")
	if err != nil {
		i.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%s]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n", rules)
	for series, value := range samples {
		if value == "NaN" { // promtool's samples are numbers
			continue
		}
		if strings.Contains(series, "timestamp_seconds") {
			at, err := strconv.ParseFloat(value, 64)
			if err != nil {
				i.t.Fatal(err)
			}
			value = strconv.FormatFloat(alertsEnd.Seconds()-float64(time.Now().Unix())+at, 'f', 0, 64)
		}
		fmt.Fprintf(&b, "  - {series: '%s', values: '%sx120'}\n", series, value)
	}
	fmt.Fprintf(&b, "  promql_expr_test:\n  - expr: group by (alertname) (ALERTS{alertstate=\"firing\"})\n"+
		"    eval_time: %s\n    exp_samples: [", alertsEnd)
	for _, name := range want {
		fmt.Fprintf(&b, "{labels: '{alertname=\"%s\"}', value: 1}, ", name)
	}
	b.WriteString("]\n")
	file := filepath.Join(i.t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		i.t.Fatal(err)
	}
	if out, err := exec.CommandContext(i.t.Context(), "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		i.t.Errorf("%v\n%s", err, out)
	}
}

func TestAlerts_FireOnlyInMatchingState(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed (Debian's package prometheus)")
	}
	schedule := func(i *installation, kinds ...health.Kind) {
		if err := health.Schedule(t.Context(), i.connect(), kinds...); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a fresh installation is silent", func(t *testing.T) {
		i := install(t)
		schedule(i, health.Reconcile, health.Drill)
		i.awaitPollers()
		i.wantAlerts(i.samples())
	})
	t.Run("no run has passed since they were scheduled", func(t *testing.T) {
		i := install(t)
		schedule(i, health.Reconcile, health.Drill)
		i.sql(`update self_test_schedules set since = now() - interval '2 days'`)
		i.awaitPollers()
		i.wantAlerts(i.samples(), "LeaverDrillNotPassed", "LeaverReconcilerNotPassed")
	})
	t.Run("no worker runs", func(t *testing.T) {
		i := installAPI(t)
		ada := i.createUser("ada@example.com")
		i.deactivate(ada)
		i.sql(`update lifecycle_events
			set started_at = now() - interval '5 minutes', created_at = now() - interval '5 minutes' where kind = 'leaver'`)
		samples := i.samples()
		// Tests share the namespace, so that another test's worker may have polled.
		samples[`leaver_queue_pollers{queue="leaver"}`] = "0"
		i.wantAlerts(samples, "LeaverNoWorker", "LeaverQueueNotPolled")
	})
	t.Run("a cascade makes no progress", func(t *testing.T) {
		i := install(t)
		i.awaitPollers()
		i.openCascade()
		i.wantAlerts(i.samples(), "LeaverCascadeOld", "LeaverCascadeStalled")
	})
	t.Run("evidence is neither signed nor archived nor sent", func(t *testing.T) {
		i := install(t)
		i.awaitPollers()
		event := i.openCascade()
		if _, err := i.app.Cascades().Close(t.Context(), i.tenant.ID, event, lifecycle.Leaver, true); err != nil {
			t.Fatal(err)
		}
		if err := i.app.Chain().Extend(t.Context(), i.tenant.ID); err != nil {
			t.Fatal(err)
		}
		i.sql(`update lifecycle_events set closed_at = now() - interval '1 hour' where kind = 'leaver'`)
		i.sql(`update evidence_heads set signed_at = now() - interval '3 hours'`)
		i.sql(`insert into audit_positions (tenant_id, sink, claimed_until, failed_at)
			select tenant_id, 'siem', now(), now() - interval '1 hour' from evidence_heads`)
		i.wantAlerts(i.samples(), "LeaverAuditSinkFailing", "LeaverEvidenceNotSigned", "LeaverHistoriesNotArchived")
	})
	t.Run("a metric is beyond its limit", func(t *testing.T) {
		i := install(t)
		i.awaitPollers()
		samples := i.samples()
		for series, c := range map[string]struct{ value, alert string }{
			"leaver_events_unstarted": {"1", "LeaverEventsUnstarted"}, "leaver_survivors": {"1", "LeaverSurvivors"},
			"leaver_entitlements_stale_seconds": {"601", "LeaverEntitlementsStale"},
			"leaver_signals_waiting_seconds":    {"3601", "LeaverSignalsWaiting"},
			"leaver_evidence_unchained":         {"10001", "LeaverEvidenceNotChained"},
			"leaver_holds_open":                 {"1", "LeaverDeactivationsHeld"}, "leaver_postgresql_up": {"0", "LeaverDatabaseDown"},
			"leaver_payloads_unopened_total":            {"0+1", "LeaverPayloadsUnopened"},
			"leaver_temporal_minimum_retention_seconds": {"1000000000", "LeaverRetentionShort"},
		} {
			if _, exposed := samples[series]; !exposed {
				t.Errorf("leaver does not expose %s", series)
			}
			beyond := maps.Clone(samples)
			beyond[series] = c.value
			i.wantAlerts(beyond, c.alert)
		}
	})
	t.Run("a connector could not be asked", func(t *testing.T) {
		i := install(t)
		i.awaitPollers()
		event := i.openCascade()
		if _, err := i.app.Cascades().Close(t.Context(), i.tenant.ID, event, lifecycle.Leaver, false,
			cascade.NotAsked{Connector: "crm", Reason: "refused"}); err != nil {
			t.Fatal(err)
		}
		i.wantAlerts(i.samples(), "LeaverConnectorNotAsked")
	})
}

// awaitPollers waits until the worker polls the workflows' task queue.
func (i *installation) awaitPollers() {
	i.t.Helper()
	stacktest.Eventually(i.t, time.Minute, "a worker that polls", func() bool {
		n := i.samples()[`leaver_queue_pollers{queue="leaver"}`]
		return n != "" && n != "0"
	})
}

// openCascade inserts an open leaver event that began two hours ago and has no workflow.
func (i *installation) openCascade() uuid.UUID {
	i.t.Helper()
	ada := i.createUser("ada@example.com")
	event := uuid.Must(uuid.NewV7())
	i.sql(`insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, workflow_id,
		  due_at, created_at, started_at, begun_at)
		values ($1, $2, 'leaver', $3, 'User', 'patch', 'test', 'w',
		  now(), now() - interval '2 hours', now() - interval '2 hours', now() - interval '2 hours')`,
		i.tenant.ID, event, ada)
	return event
}

// TestMetrics_IncludeThoseOfTemporalsSDK runs a cascade, and looks for the SDK's metrics of its workflow and activities,
// which name no workflow.
func TestMetrics_IncludeThoseOfTemporalsSDK(t *testing.T) {
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	i.closed(ada)
	recorder := httptest.NewRecorder()
	i.app.Metrics().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	body := recorder.Body.String()
	for _, series := range []string{"temporal_request_total{", "temporal_workflow_task_execution_latency_seconds_bucket{", "temporal_num_pollers{"} {
		if !strings.Contains(body, series) {
			t.Errorf("/metrics lacks %s", series)
		}
	}
	if strings.Contains(body, ada) || strings.Contains(body, "ada@example.com") || strings.Contains(body, i.tenant.ID.String()) {
		t.Error("/metrics names a principal or a tenant")
	}
}

// TestDashboard_NamesMetricsThatExist compares the metrics that the dashboard and the alerts name with those that an
// installation exposes, and parses each expression.
func TestDashboard_NamesMetricsThatExist(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "a")
	i.deactivate(ada)
	i.closed(ada)
	if err := health.Schedule(t.Context(), i.connect(), health.Drill, health.Reconcile); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []health.Kind{health.Drill, health.Reconcile} {
		for _, passed := range []bool{true, false} {
			if err := health.NewStore(i.app.DB).Record(t.Context(), kind, passed, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	exposed := make(map[string]bool)
	for series := range i.samples() {
		name, _, _ := strings.Cut(series, "{")
		exposed[name] = true
	}
	named := regexp.MustCompile(`leaver_[a-z_]+`)
	for _, file := range []string{"dashboard.json", "alerts.yaml"} {
		raw, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		names := named.FindAllString(string(raw), -1)
		if len(names) < 15 {
			t.Errorf("%s names %d metrics only", file, len(names))
		}
		for _, name := range names {
			if !exposed[name] {
				t.Errorf("%s names %s, which leaver does not expose", file, name)
			}
		}
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	raw, err := os.ReadFile("../../deploy/dashboard.json")
	if err == nil {
		err = json.Unmarshal(raw, &dashboard)
	}
	if err != nil || len(dashboard.Panels) == 0 {
		t.Fatalf("the dashboard has %d panels: %v", len(dashboard.Panels), err)
	}
	if _, err := exec.LookPath("promtool"); err != nil {
		t.Skip("promtool is not installed (Debian's package prometheus)")
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for n, panel := range dashboard.Panels {
		for m, target := range panel.Targets {
			rules += fmt.Sprintf("  - {record: %q, expr: %q}\n", fmt.Sprintf("panel:%d_%d", n, m), target.Expr)
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("an expression of the dashboard is not valid: %v\n%s", err, out)
	}
}
