package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/worker"
)

// shown returns a principal's last cascade from the operators' API.
func (i *installation) shown(principal string) api.ShownCascade {
	i.t.Helper()
	cascades := i.cascades(principal)
	if len(cascades) == 0 {
		return api.ShownCascade{}
	}
	return get[api.ShownCascade](i, "/v1/tenants/acme/cascades/"+cascades[0].ID.String())
}

// get sends a GET request with the operator's token and decodes the response.
func get[T any](i *installation, path string) T {
	i.t.Helper()
	status, raw := i.raw("GET", path, i.operator, "")
	var into T
	if err := json.Unmarshal(raw, &into); err != nil || status != http.StatusOK {
		i.t.Fatalf("GET %s answered %d: %s (%v)", path, status, raw, err)
	}
	return into
}

func TestCascade_ShowsWhatIsDoneAndWhatItWaitsFor(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Policy.InitialInterval, c.Policy.MaximumInterval = 2*time.Second, 2*time.Second
	})
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("hers", ada)
	i.hold(p, ada, agent, "good")
	down := i.hold(p, ada, agent, "down")
	p.refuseRevocation("down", http.StatusServiceUnavailable)
	i.deactivate(ada)
	var c api.ShownCascade
	stacktest.Eventually(t, 30*time.Second, "a pending item with its answer and next attempt", func() bool {
		c = i.shown(ada)
		return len(c.Waiting) == 1 && c.Waiting[0].NextTry != nil && strings.Contains(c.Waiting[0].Answer, "503")
	})
	w := c.Waiting[0]
	if c.Outcome != "running" || c.Verified != 1 || c.Ending != 1 || c.PrincipalName != "ada@example.com" {
		t.Errorf("the cascade is %+v; want 1 verified and 1 ending of Ada's", c)
	}
	if w.Item == nil || w.Item.String() != down || w.Connector != "platform" || w.Attempts == 0 || w.Deadline == nil {
		t.Errorf("the pending item is %+v", w)
	}
	for query, want := range map[string]int{
		"principal=ada@example.com": 1, "agent=hers": 1, "agent=" + agent: 1, "connector=platform": 1,
		"outcome=running,failed": 1, "outcome=failed": 0, "connector=other": 0,
		"since=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): 0,
	} {
		if got := len(i.must("GET", "/v1/tenants/acme/cascades?"+query, i.operator, "")["items"].([]any)); got != want {
			t.Errorf("the list with %s has %d, want %d", query, got, want)
		}
	}
	items := get[struct{ Items []api.ShownItem }](
		i,
		"/v1/tenants/acme/credentials?principal=ada@example.com&agent=hers&connector=platform&state=ending,failed",
	).Items
	if len(items) != 1 || items[0].PrincipalName != "ada@example.com" || items[0].AgentName != "hers" {
		t.Errorf("got the credentials %+v", items)
	}
	shown := get[api.Shown](i, "/v1/tenants/acme/principals/"+ada)
	if len(shown.Credentials) != 2 || len(shown.Cascades) != 1 || len(shown.Agents) != 1 || shown.Restriction == nil {
		t.Errorf("the principal is %+v", shown)
	}
	p.interceptWith(nil)
	if c := i.closed(ada); c.Outcome != "completed" || c.Ending != 0 || c.Verified != 2 {
		t.Errorf("cascade %+v, want completed", c)
	}
	logs := i.logs.String()
	for _, want := range []string{"deactivation committed", "cascade began", "cascade closed"} {
		if strings.Count(logs, `"msg":"`+want+`"`) != 1 {
			t.Errorf("the log has %q %d times, want once", want, strings.Count(logs, want))
		}
	}
	for line := range strings.Lines(logs) {
		// Other failures, such as a database without a free connection, are logged as errors.
		if strings.Contains(line, `"msg":"Activity error."`) && strings.Contains(line, "503") {
			t.Errorf("an attempt that the downstream refused, and that is retried, is logged as an error: %s", line)
		}
	}
}

func TestAttempt_RetryAfterOfAProbeHoldsForTheWholeAttempt(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "key")
	var mu sync.Mutex
	var probed, revoked time.Time
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case reference == "key" && kind == "credential.verify" && probed.IsZero():
			probed = time.Now()
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case reference == "key" && kind == "credential.revoke" && revoked.IsZero():
			revoked = time.Now()
		}
		return false
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != 1 {
		t.Errorf("cascade %+v, want completed", c)
	}
	mu.Lock()
	defer mu.Unlock()
	if wait := revoked.Sub(probed); wait < 1900*time.Millisecond {
		t.Errorf("the revocation came %s after the probe's Retry-After of 2 s, want at least 2 s", wait)
	}
}

func TestCascade_SaysThatNoWorkerHasTakenItUp(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	stacktest.Eventually(t, 30*time.Second, "the hint", func() bool {
		c := i.shown(ada)
		return len(c.Waiting) == 1 && strings.Contains(c.Waiting[0].Answer, "start `leaver worker`")
	})
}

func TestCascade_NamesTheConnectorThatCouldNotBeAsked(t *testing.T) {
	i := installAPI(t)
	i.app.Connectors["silent"] = registry.Entry{Connector: unwilling{}, Tenants: []string{"acme"}}
	i.work()
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	c := i.closed(ada)
	if c.Outcome != "failed" || len(c.NotAsked) != 1 || c.NotAsked[0].Connector != "silent" || c.NotAsked[0].Reason == "" {
		t.Fatalf("cascade %+v; want failed with the reason of the connector", c)
	}
	if got := i.must("GET", "/v1/tenants/acme/cascades?connector=silent&outcome=failed",
		i.operator, "")["items"].([]any); len(got) != 1 {
		t.Errorf("the list by connector has %d cascades, want 1", len(got))
	}
	if got := i.samples()["leaver_cascades_unasked"]; got != "1" {
		t.Errorf("leaver_cascades_unasked is %s, want 1", got)
	}
}

func TestCascade_UnknownReferenceIsAbsent(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "key")
	misspelt := i.must("POST", "/v1/credentials", i.platform,
		`{"principalId":"`+ada+`","kind":"api_key","connector":"platform","reference":"kye"}`)["id"].(string)
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != 1 || c.Absent != 1 || c.Revoked != 0 {
		t.Errorf("cascade %+v; want 1 verified and 1 absent", c)
	}
	if got := i.must("GET", "/v1/tenants/acme/credentials/"+misspelt,
		i.operator, ""); got["state"] != string(credential.Absent) {
		t.Errorf("the misspelt one is %v: %v", got["state"], got["reason"])
	}
}

func TestImport_ChecksAndSkips(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("hers", ada)
	i.hold(p, ada, "", "key")
	p.issue("second")
	line := func(reference string) string {
		return fmt.Sprintf(
			`{"principal":"ADA@example.com","agent":"hers","kind":"api_key","connector":"platform","reference":%q}`, reference)
	}
	status, bad, _ := i.importNDJSON(i.operator, "/v1/tenants/acme/import?check=true", line("second"), line("secnod"))
	if status != http.StatusUnprocessableEntity || len(bad) != 1 || !strings.Contains(bad[2], "no such live credential") {
		t.Errorf("a check answered %d: %v", status, bad)
	}
	if status, _, body := i.importNDJSON(
		i.operator,
		"/v1/tenants/acme/import?check=true",
		line("second"),
	); status != http.StatusOK ||
		body["good"] != 1.0 ||
		i.count("live") != 1 {
		t.Errorf("a check of a good file answered %d: %v; %d are live", status, body, i.count("live"))
	}
	own := `{"principalId":"` + ada + `","kind":"api_key","connector":"platform","reference":"key"}`
	if status, bad, _ := i.importNDJSON(i.operator, "/v1/tenants/acme/import",
		own, line("second")); status != http.StatusUnprocessableEntity || len(bad) != 1 {
		t.Errorf("an import of one that is registered answered %d: %v", status, bad)
	}
	status, _, body := i.importNDJSON(i.operator, "/v1/tenants/acme/import?skipExisting=true", own, line("second"))
	if status != http.StatusCreated || body["registered"] != 1.0 || body["skipped"] != 1.0 {
		t.Errorf("skipping answered %d: %v", status, body)
	}
	items := get[struct{ Items []api.ShownItem }](i, "/v1/tenants/acme/credentials?agent="+agent).Items
	if len(items) != 1 || items[0].Reference != "second" || items[0].Principal.String() != ada {
		t.Errorf("the agent holds %+v", items)
	}
	status, bad, _ = i.importNDJSON(i.operator, "/v1/tenants/acme/import",
		strings.Replace(line("third"), "hers", "nobody's", 1))
	if status != http.StatusUnprocessableEntity || !strings.Contains(bad[1], `no user or agent named "nobody's"`) {
		t.Errorf("an unknown agent answered %d: %v", status, bad)
	}
}

func TestReady_VerboseNamesTheProblems(t *testing.T) {
	i := installAPI(t)
	i.app.Config.Temporal.MinimumRetention = 10 * 365 * 24 * time.Hour
	status, raw := i.raw("GET", "/readyz?verbose", i.operator, "")
	var body struct {
		Status   string
		Problems []string
	}
	if err := json.Unmarshal(raw, &body); err != nil || status != http.StatusOK || body.Status != "ok" {
		t.Fatalf("answered %d: %s (%v)", status, raw, err)
	}
	all := strings.Join(body.Problems, "\n")
	if want := "temporal operator namespace update --retention 3650d"; !strings.Contains(all, want) {
		t.Errorf("the problems are %q; want %q among them", all, want)
	}
}

func TestTenant_IsNamedByItsIDToo(t *testing.T) {
	i := installAPI(t)
	i.must("GET", "/v1/tenants/"+i.tenant.ID.String()+"/cascades", i.operator, "")
	if status, _ := i.call("GET", "/v1/tenants/00000000-0000-4000-8000-000000000000/cascades",
		i.operator, ""); status != http.StatusNotFound {
		t.Errorf("an unknown tenant answered %d, want 404", status)
	}
}

func TestCredential_FailedRegistrationIsCorrected(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	wrong := i.hold(p, ada, "", "wrong")
	p.issue("right")
	other := i.hold(p, ada, "", "other")
	p.refuseRevocation("wrong", http.StatusForbidden)
	i.deactivate(ada)
	failed := i.closed(ada)
	if failed.Survivors != 1 {
		t.Fatalf("cascade %+v, want one survivor", failed)
	}
	inventoryPath := "/v1/tenants/acme/credentials/"
	corrected := i.must("POST", inventoryPath+wrong+"/correct", i.operator, `{"reference":"right","reason":"a typo"}`)
	if corrected["state"] != "failed" || corrected["cascadeId"] != failed.ID.String() {
		t.Errorf("the corrected registration is %v", corrected)
	}
	if got := i.must("GET", inventoryPath+wrong, i.operator, ""); got["state"] != "released" {
		t.Errorf("the wrong registration is %v", got["state"])
	}
	if status, _ := i.call("POST", inventoryPath+other+"/release", i.operator,
		`{"reason":"x"}`); status != http.StatusConflict {
		t.Errorf("releasing what is verified answered %d, want 409", status)
	}
	i.must("POST", "/v1/tenants/acme/cascades/"+failed.ID.String()+"/rerun", i.operator, `{"reason":"corrected"}`)
	if c := i.closed(ada); c.Outcome != "completed" || p.isAlive("right") {
		t.Errorf("cascade %+v; the right credential is alive: %t", c, p.isAlive("right"))
	}
	acts := i.must("GET", "/v1/tenants/acme/acts", i.operator, "")["items"].([]any)
	if last := acts[len(acts)-1].(map[string]any); last["verb"] != "credential.correct" {
		t.Errorf("the last act is %v", last)
	}
}

// TestCredential_ClaimStartsCascadeForClaimedCredentialOnly checks that a credential that is bound to a
// restricted principal is ended by a separate cascade, which does not change the survivors and the
// reports of earlier cascades.
func TestCredential_ClaimStartsCascadeForClaimedCredentialOnly(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	d := i.newCRM()
	i.work()
	ada := i.createUser("ada@example.com")
	role, _ := d.account()
	d.exec("comment on role " + role + " is 'leaver:principal=" + ada + "'")
	plan := get[api.Plan](i, "/v1/tenants/acme/principals/"+ada+"/plan")
	if len(plan.Unmanaged) != 1 || plan.Unmanaged[0].Reference != role || len(plan.NotAsked) != 0 {
		t.Errorf("the plan has the unmanaged accounts %+v, want the role", plan.Unmanaged)
	}
	stubborn := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	first := i.closed(ada)
	if c := i.shown(ada); len(c.Unmanaged) != 1 {
		t.Errorf("the cascade has %+v unmanaged, want the role", c.Unmanaged)
	}
	found := i.must("GET", "/v1/tenants/acme/unmanaged", i.operator, "")["items"].([]any)
	if len(found) != 1 {
		t.Fatalf("found %v, want the role", found)
	}
	shown := get[api.Shown](i, "/v1/tenants/acme/principals/"+ada)
	if len(shown.Unmanaged) != 1 {
		t.Errorf("the principal has %+v unmanaged, want the role", shown.Unmanaged)
	}
	i.must(
		"POST",
		"/v1/tenants/acme/unmanaged/"+found[0].(map[string]any)["id"].(string)+"/claim",
		i.operator,
		`{"principalId":"`+ada+`","reason":"hers"}`,
	)
	if c := i.closed(ada); c.ID == first.ID || c.Outcome != "completed" || c.Survivors != 0 {
		t.Errorf("the cascade of what was bound is %+v, want completed without survivors", c)
	}
	items := get[struct{ Items []api.ShownItem }](i, "/v1/tenants/acme/credentials?cascade="+first.ID.String()).Items
	if len(items) != 1 || items[0].ID.String() != stubborn || items[0].State != credential.Failed {
		t.Errorf("the first cascade has %+v, want its survivor", items)
	}
	// A later cascade takes over the survivor. The first cascade still lists it, and acts still find it.
	i.sql(`update credentials
		set event_id = (select id from lifecycle_events where trigger = 'claimed'), state = 'ending' where id = $1`, stubborn)
	i.sql(`update credentials set state = 'failed', reason = 'later' where id = $1`, stubborn)
	items = get[struct{ Items []api.ShownItem }](i, "/v1/tenants/acme/credentials?cascade="+first.ID.String()).Items
	if len(items) != 1 || items[0].State != credential.Failed || items[0].Reason == "later" {
		t.Errorf("the first cascade has %+v, want its survivor as it reported it", items)
	}
	i.must("POST", "/v1/tenants/acme/cascades/"+first.ID.String()+"/waive", i.operator, fmt.Sprintf(
		`{"itemId":%q,"reason":"known","until":%q}`, stubborn, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
}

func TestStart_EndsWhereNoRetryHelps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   error
	}{
		"a missing namespace": {
			func(c *config.Config) { c.Temporal.Namespace = "missing-" + uuid.NewString() }, worker.ErrMisconfigured,
		},
		"a wrong database": {func(c *config.Config) {
			c.Database.URL = strings.Replace(c.Database.URL, databaseOf(t, c.Database.URL), "missing", 1)
		}, database.ErrMisconfigured},
		"the owner's role": {func(c *config.Config) { c.Database.URL = c.Database.MigrateURL }, database.ErrMisconfigured},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newConfig(t, c.change)
			installed, err := app.New(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer installed.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // for a process that wrongly keeps running
			defer cancel()
			if err := installed.Work(ctx); !errors.Is(err, c.want) {
				t.Errorf("the worker ended with %v, want %v", err, c.want)
			}
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := installed.Serve(ctx, listener, nil); !errors.Is(err, c.want) {
				t.Errorf("serve ended with %v, want %v", err, c.want)
			}
		})
	}
}

func databaseOf(t *testing.T, address string) string {
	t.Helper()
	parsed, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Database
}
