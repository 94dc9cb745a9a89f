package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/temporal"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/worker"
	"github.com/leaverhq/leaver/workflows"
)

// reconcile runs the reconciler now.
func (i *installation) reconcile() activities.Reconciled {
	i.t.Helper()
	options := client.StartWorkflowOptions{ID: "reconcile-" + uuid.NewString(), TaskQueue: workflows.TaskQueue}
	run, err := i.app.Temporal.ExecuteWorkflow(i.t.Context(), options, workflows.Reconcile, workflows.ReconcileInput{})
	if err != nil {
		i.t.Fatal(err)
	}
	var found activities.Reconciled
	if err := run.Get(i.t.Context(), &found); err != nil {
		i.t.Fatal(err)
	}
	return found
}

// reconcileTenant runs the reconciler's activity for the tenant, outside of a workflow.
func (i *installation) reconcileTenant() activities.Reconciled {
	i.t.Helper()
	a := i.app.Activities()
	value, err := i.activity(a).ExecuteActivity(a.ReconcileTenant, i.tenant.ID)
	if err != nil {
		i.t.Fatal(err)
	}
	var found activities.Reconciled
	if err := value.Get(&found); err != nil {
		i.t.Fatal(err)
	}
	return found
}

// probeExpired runs the reconciler's activity that probes expired credentials, outside of a workflow.
func (i *installation) probeExpired(connector string) {
	i.t.Helper()
	a := i.app.Activities()
	if _, err := i.activity(a).ExecuteActivity(a.ProbeExpired,
		activities.PageInput{Tenant: i.tenant.ID, Connector: connector}); err != nil {
		i.t.Fatal(err)
	}
}

func (i *installation) activity(a *activities.Activities) *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(a)
	return env
}

// sql runs a statement as the schema's owner, to create states that a bug or a
// restored backup would leave.
func (i *installation) sql(statement string, args ...any) {
	i.t.Helper()
	if _, err := i.connect().Exec(i.t.Context(), statement, args...); err != nil {
		i.t.Fatalf("%s: %v", statement, err)
	}
}

func TestReconciler_EndsLiveCredentialOfRestrictedPrincipal(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "key")
	i.deactivate(ada)
	i.closed(ada)
	// A bug or a restored backup could leave this state.
	p.issue("key")
	i.sql(`update credentials set state = 'live' where id = $1`, id)
	if found := i.reconcile(); found.Ended != 1 {
		t.Errorf("found %+v; want one principal ended again", found)
	}
	stacktest.Eventually(t, 20*time.Second, "the end", func() bool { return i.state(id) == "verified" })
	if c := i.closed(ada); c.Trigger != "reconcile" || c.Outcome != "completed" {
		t.Errorf("cascade %+v; want a completed one of the reconciler's", c)
	}
	if found := i.reconcile(); found.Ended != 0 {
		t.Errorf("the second run found %+v, want nothing", found)
	}
}

func TestReconciler_RestartsLostCascade(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "key")
	p.refuseRevocation("key", http.StatusServiceUnavailable)
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the first attempt", func() bool {
		return p.called("credential.revoke", "key") > 0
	})
	cascade := i.cascades(ada)[0]
	i.loseWorkflow(cascade)
	p.interceptWith(nil)
	i.sql(`update lifecycle_events set started_at = now() - interval '1 hour' where id = $1`, cascade.ID)
	if found := i.reconcile(); found.Restarted != 1 {
		t.Errorf("found %+v; want one cascade restarted", found)
	}
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(id))
	}
}

func TestReconciler_EndsWaivedAndExpiredCredentials(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	waived, expired, alive := i.hold(p, ada, "", "waived"), i.hold(p, ada, "", "expired"), i.hold(p, ada, "", "alive")
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" {
			w.WriteHeader(http.StatusForbidden)
		}
		return kind == "credential.revoke"
	})
	i.deactivate(ada)
	i.closed(ada)
	i.sql(`update credentials set state = 'waived', waived_until = now() - interval '1 minute' where id = $1`, waived)
	i.sql(`update credentials set expires_at = now() - interval '1 minute' where id in ($1, $2)`, expired, alive)
	p.refuseRevocation("alive", http.StatusForbidden)
	p.mu.Lock()
	p.alive["expired"] = false
	p.mu.Unlock()
	if found := i.reconcile(); found.Waivers != 1 || found.Expired != 1 || found.Ended != 1 {
		t.Errorf("found %+v; want a waiver, an expired survivor, and one principal ended again", found)
	}
	stacktest.Eventually(t, 20*time.Second, "the end of the waived one", func() bool {
		return i.state(waived) == "verified"
	})
	if s := i.state(expired); s != "expiring" {
		t.Errorf("the expired survivor is %s, want expiring", s)
	}
	// The expiry was registered by the platform and may be wrong: a credential that a probe finds
	// alive stays a survivor.
	i.becomesState(alive, "failed") // once the new cascade has tried it
	if !p.isAlive("alive") {
		t.Error("the survivor past its expiry is dead, although its revocation was refused")
	}
}

func TestHealth_CountsUnstartedEvents(t *testing.T) {
	i := installAPI(t, func(c *config.Config) { c.Temporal.Address = contract.Closed(t) })
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	i.sql(`update lifecycle_events set created_at = now() - interval '1 hour' where kind = 'leaver'`)
	if health, err := i.app.Activities().Health.Read(t.Context()); err != nil || health.Unstarted != 1 {
		t.Errorf("health %+v, %v; want one event without a workflow", health, err)
	}
}

// drillStack returns an installation whose connectors allow drills; as wraps the database's
// connector.
func drillStack(t *testing.T, as func(*crm) connectors.Connector) (*installation, *crm) {
	t.Helper()
	i := installAPI(t)
	d := i.newCRM()
	at := i.cfg.Temporal
	schedules, err := temporal.New(temporal.Config{Address: at.Address, Namespace: at.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(schedules.Close)
	i.app.Connectors["crm"] = registry.Entry{Connector: as(d), Tenants: []string{"leaver-drill"}}
	i.app.Connectors["runs"] = registry.Entry{Connector: schedules, Tenants: []string{"leaver-drill"}}
	i.work()
	return i, d
}

func (i *installation) drill(tenant string) (activities.Drilled, error) {
	i.t.Helper()
	options := client.StartWorkflowOptions{ID: "drill-" + uuid.NewString(), TaskQueue: workflows.TaskQueue}
	run, err := i.app.Temporal.ExecuteWorkflow(i.t.Context(), options,
		workflows.Drill, workflows.DrillInput{Tenant: tenant, Timeout: time.Minute})
	if err != nil {
		i.t.Fatal(err)
	}
	var d activities.Drilled
	return d, run.Get(i.t.Context(), &d)
}

func TestDrill_EndsCredentialOnEachAllowedConnector(t *testing.T) {
	long(t)
	i, d := drillStack(t, func(d *crm) connectors.Connector { return d })
	drilled, err := i.drill("leaver-drill")
	if err != nil || len(drilled.Issued) != 2 || drilled.Verified != 2 {
		t.Fatalf("%+v, %v; want two issued and verified; logs:\n%s", drilled, err, i.logs)
	}
	for _, issued := range drilled.Issued {
		if issued.Connector == "crm" && d.exists(issued.Reference) {
			t.Errorf("the role %s is left behind", issued.Reference)
		}
	}
	health, err := i.app.Activities().Health.Read(t.Context())
	if err != nil || health.Passed["drill"].IsZero() || !health.Failed["drill"].IsZero() {
		t.Errorf("health %+v, %v; want a drill that passed", health, err)
	}
}

func TestDrill_FailsIfCredentialSurvives(t *testing.T) {
	long(t)
	i, _ := drillStack(t, func(d *crm) connectors.Connector { return immortal{d} })
	if drilled, err := i.drill("leaver-drill"); err == nil {
		t.Errorf("%+v; want the drill to fail", drilled)
	}
	health, err := i.app.Activities().Health.Read(t.Context())
	if err != nil || health.Failed["drill"].IsZero() || !health.Passed["drill"].IsZero() {
		t.Errorf("health %+v, %v; want a drill that failed", health, err)
	}
}

func TestDrill_FailsIfNoConnectorAllowsIt(t *testing.T) {
	long(t)
	i := install(t)
	if drilled, err := i.drill("leaver-drill"); err == nil ||
		!strings.Contains(err.Error(), "no connector allows a drill") {
		t.Errorf("%+v, %v; want it to say that no connector allows one", drilled, err)
	}
}

func TestMigrate_SchedulesReconcilerAndDrill(t *testing.T) {
	i := installAPI(t)
	cfg := *i.cfg
	cfg.SelfTest.ReconcileEvery, cfg.SelfTest.DrillCron, cfg.SelfTest.DrillTenant = time.Hour, "0 3 * * *", "leaver-drill"
	cfg.Connectors = []config.Connector{{Name: "crm", Tenants: []string{"leaver-drill"}}}
	schedules := i.app.Temporal.ScheduleClient()
	for range 2 {
		done, err := worker.EnsureSchedules(t.Context(), &cfg, i.app.Sealer, i.app.Log)
		if want := []worker.Schedule{{ID: worker.ReconcileID}, {ID: worker.DrillID}}; err != nil || !cmp.Equal(done, want) {
			t.Fatalf("scheduled %v (%v), want both", done, err)
		}
	}
	cfg.Connectors = nil
	done, err := worker.EnsureSchedules(t.Context(), &cfg, i.app.Sealer, i.app.Log)
	if err != nil || len(done) != 2 || !strings.Contains(done[1].Reason, "no connector names the tenant leaver-drill") {
		t.Errorf("scheduled %v (%v), want the reason why there is no drill", done, err)
	}
	cfg.Connectors = []config.Connector{{Name: "crm", Tenants: []string{"leaver-drill"}}}
	if _, err := worker.EnsureSchedules(t.Context(), &cfg, i.app.Sealer, i.app.Log); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{worker.ReconcileID, worker.DrillID} {
		if _, err := schedules.GetHandle(t.Context(), id).Describe(t.Context()); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	cfg.SelfTest.ReconcileEvery, cfg.SelfTest.DrillCron = 0, ""
	for range 2 {
		if _, err := worker.EnsureSchedules(t.Context(), &cfg, i.app.Sealer, i.app.Log); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := schedules.GetHandle(t.Context(), worker.DrillID).Describe(t.Context()); err == nil {
		t.Error("a disabled drill is still scheduled")
	}
}

// TestMetrics_IncludeMetricsOfAlerts checks that every metric in deploy/alerts.yaml is served.
func TestMetrics_IncludeMetricsOfAlerts(t *testing.T) {
	i := installAPI(t)
	if err := health.Schedule(t.Context(), i.connect(), health.Reconcile); err != nil {
		t.Fatal(err)
	}
	// The timestamps are served only after a run has passed and one has failed.
	i.sql(`insert into self_tests (kind, passed, result) values ('reconcile', true, '{}'), ('reconcile', false, '{}')`)
	recorder := httptest.NewRecorder()
	i.app.Metrics().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	body, err := io.ReadAll(recorder.Body)
	if err != nil || recorder.Code != http.StatusOK {
		t.Fatalf("/metrics answered %d, %v", recorder.Code, err)
	}
	rules, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`leaver_[a-z_]+`).FindAllString(string(rules), -1)
	if len(named) == 0 {
		t.Fatal("the alerts name no metric")
	}
	for _, name := range named {
		if !strings.Contains(string(body), "\n"+name) {
			t.Errorf("no metric %s is served", name)
		}
	}
	if strings.Contains(string(body), "acme") {
		t.Error("the metrics name a tenant")
	}
}
