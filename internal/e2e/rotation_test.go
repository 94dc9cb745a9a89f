package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
)

// crm is a downstream database with a connector that publishes new secrets to the
// test and panics at the test's failpoint.
type crm struct {
	*postgres.Connector
	t     testing.TB
	owner string

	mu        sync.Mutex
	crashAt   string
	crashed   bool
	refuse    bool // Publish fails
	busy      int  // number of times that Retire fails with open sessions
	published []connectors.Publication
}

// newCRM adds the connector `crm` to an installation whose workers do not run yet.
func (i *installation) newCRM() *crm {
	i.t.Helper()
	d := &crm{t: i.t, owner: stacktest.NewDownstream(i.t)}
	i.t.Setenv("TEST_CRM", d.owner)
	connector, err := postgres.New(postgres.Config{URL: "env:TEST_CRM"})
	if err != nil {
		i.t.Fatal(err)
	}
	d.Connector = connector
	i.app.Connectors["crm"] = registry.Entry{Connector: d, Type: "postgres", Tenants: []string{"acme"}}
	return d
}

// reach panics at the test's failpoint, once: no code of the attempt runs after it.
func (d *crm) reach(point string) {
	d.mu.Lock()
	crash := d.crashAt == point && !d.crashed
	d.crashed = d.crashed || crash
	d.mu.Unlock()
	if crash {
		panic("failpoint " + point)
	}
}

func (d *crm) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	d.reach("begun")
	answer, err := d.Connector.Renew(ctx, t)
	d.reach("made")
	return answer, err
}

func (d *crm) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	vitality, detail, err := d.Connector.Probe(ctx, t)
	switch {
	case t.NewReference == "":
	case t.Reference == t.NewReference:
		d.reach("proven")
	default:
		d.reach("dead")
	}
	return vitality, detail, err
}

func (d *crm) Publish(_ context.Context, p connectors.Publication) (connectors.Answer, error) {
	d.mu.Lock()
	refuse := d.refuse
	if !refuse {
		d.published = append(d.published, p)
	}
	d.mu.Unlock()
	if refuse {
		return connectors.Answer{}, connectors.Permanent("the holders' platform refuses")
	}
	d.reach("published")
	return connectors.Answer{Outcome: connectors.Done}, nil
}

func (d *crm) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	d.mu.Lock()
	busy := d.busy > 0
	if busy {
		d.busy--
	}
	d.mu.Unlock()
	if busy {
		return connectors.Answer{}, connectors.RetryableAfter(3*time.Second, "sessions are still open")
	}
	answer, err := d.Connector.Retire(ctx, t)
	d.reach("retired")
	return answer, err
}

func (d *crm) exec(sql string) {
	d.t.Helper()
	conn, err := pgx.Connect(context.Background(), d.owner)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		d.t.Fatalf("%s: %v", sql, err)
	}
}

// account creates a login role with a password.
func (d *crm) account() (role, password string) {
	d.t.Helper()
	role, password = "a_"+strings.ReplaceAll(uuid.NewString(), "-", "")[:12], rand.Text()
	d.exec("create role " + role + " login password '" + password + "'")
	d.t.Cleanup(func() {
		for _, r := range append(d.successors(role), role) {
			d.exec("drop role if exists " + r)
		}
	})
	return role, password
}

// exists reports whether a role with the name exists.
func (d *crm) exists(role string) (exists bool) {
	d.t.Helper()
	conn, err := pgx.Connect(context.Background(), d.owner)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(context.Background(),
		`select exists (select 1 from pg_roles where rolname = $1)`, role).Scan(&exists); err != nil {
		d.t.Fatal(err)
	}
	return exists
}

// immortal is a downstream that refuses every revocation.
type immortal struct{ *crm }

func (immortal) Revoke(context.Context, connectors.Target) (connectors.Answer, error) {
	return connectors.Answer{}, connectors.Permanent("the role lacks the privilege")
}

// successors returns the login roles that rotations have created for an account.
func (d *crm) successors(role string) []string {
	d.t.Helper()
	conn, err := pgx.Connect(context.Background(), d.owner)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(context.Background(),
		`select rolname from pg_roles where rolname like $1 || '\_lv%' order by 1`, role)
	if err != nil {
		d.t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Fatal(err)
	}
	return names
}

func (d *crm) logsIn(role, password string) bool {
	u, _ := url.Parse(d.owner)
	q := u.Query()
	q.Set("user", role)
	q.Set("password", password)
	u.RawQuery = q.Encode()
	conn, err := pgx.Connect(context.Background(), u.String())
	if err != nil {
		return false
	}
	return conn.Close(context.Background()) == nil
}

// holdAccount registers an account for a principal.
func (i *installation) holdAccount(principal, role, password, more string) string {
	i.t.Helper()
	return i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
		`{"principalId":%q,"kind":"service_account","connector":"crm","reference":%q,"secret":%q%s}`,
		principal, role, password, more))["id"].(string)
}

// opened returns an item with its secret.
func (i *installation) opened(id string) *credential.Opened {
	i.t.Helper()
	item, err := i.app.Credentials().Open(i.t.Context(), i.tenant.ID, uuid.MustParse(id))
	if err != nil {
		i.t.Fatal(err)
	}
	return item
}

// TestRotation_CrashAtAnyStepLeavesOneWorkingSecret has a failpoint after each step.
// The last failpoint is in the database, after the probe.
func TestRotation_CrashAtAnyStepLeavesOneWorkingSecret(t *testing.T) {
	long(t)
	for _, point := range []string{"nowhere", "begun", "made", "proven", "published", "retired", "dead", "concluded"} {
		t.Run(point, func(t *testing.T) {
			i := installAPI(t)
			d := i.newCRM()
			d.crashAt = point
			if point == "concluded" {
				i.failOnce("rotations", "new.step = 'done'")
			}
			i.work()
			ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
			role, old := d.account()
			hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
			i.deactivate(ada)
			item := i.rotatedOnce(d, ada, role, old, hers, his)
			if point != "nowhere" && point != "concluded" && !d.crashed {
				t.Fatal("the failpoint was not reached")
			}
			last := d.published[len(d.published)-1]
			if last.Secret != item.Secret || last.Reference != item.Reference || last.Account != role ||
				len(last.Holders) != 1 || last.Holders[0].String() != his {
				t.Errorf("published %s for %v; want the account's new login for %s", last.Reference, last.Holders, his)
			}
		})
	}
}

// rotatedOnce checks that Ada's cascade has left the old secret dead and exactly one new secret that
// works, and returns the other holder's item.
func (i *installation) rotatedOnce(d *crm, ada, role, old, hers, his string) *credential.Opened {
	i.t.Helper()
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" || i.state(his) != "live" {
		i.t.Fatalf("cascade %+v, hers %s, his %s; want completed, verified, live", c, i.state(hers), i.state(his))
	}
	if d.logsIn(role, old) {
		i.t.Error("the old secret still works")
	}
	made := d.successors(role)
	if len(made) != 1 {
		i.t.Fatalf("%d secrets were created, want 1: %v", len(made), made)
	}
	item := i.opened(his)
	if item.Reference != made[0] || !d.logsIn(item.Reference, item.Secret.Reveal()) {
		i.t.Error("the other holder's secret does not work")
	}
	return item
}

// failOnce makes the first update of a table that meets a condition fail.
func (i *installation) failOnce(table, condition string) {
	i.t.Helper()
	for _, sql := range []string{
		`create sequence failures`, `grant usage on sequence failures to public`,
		`create function fail_once() returns trigger language plpgsql as $$ begin
		   if nextval('failures') = 1 then raise exception 'failpoint'; end if; return new; end $$`,
		`create trigger fail_once before update on ` + table +
			` for each row when (` + condition + `) execute function fail_once()`,
	} {
		i.sql(sql)
	}
}

func TestRotation_ConcurrentCascadesRotateOnce(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	role, old := d.account()
	hers, his, kept := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, ""),
		i.holdAccount(carol, role, old, "")
	i.deactivate(ada)
	i.deactivate(bob)
	i.work()
	for who, id := range map[string]string{ada: hers, bob: his} {
		if c := i.closed(who); c.Outcome != "completed" || i.state(id) != "verified" {
			t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(id))
		}
	}
	if made := d.successors(role); len(made) != 1 {
		t.Errorf("%d secrets were made, want 1", len(made))
	}
	if item := i.opened(kept); d.logsIn(role, old) || !d.logsIn(item.Reference, item.Secret.Reveal()) {
		t.Error("want the old secret dead and the remaining holder's new one working")
	}
}

func TestRotation_EndsNewSecretOfHolderWhoLeavesLater(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.work()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	role, old := d.account()
	i.holdAccount(ada, role, old, "")
	his, kept := i.holdAccount(bob, role, old, ""), i.holdAccount(carol, role, old, "")
	i.deactivate(ada)
	i.closed(ada)
	handed := i.opened(his)
	i.deactivate(bob)
	if c := i.closed(bob); c.Outcome != "completed" || i.state(his) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(his))
	}
	if d.logsIn(handed.Reference, handed.Secret.Reveal()) {
		t.Error("the second leaver's new secret still works")
	}
	if item := i.opened(kept); !d.logsIn(item.Reference, item.Secret.Reveal()) || item.Account != role {
		t.Errorf("the remaining holder's secret of account %q does not work", item.Account)
	}
}

func TestAccount_IsDisabledUnlessShared(t *testing.T) {
	long(t)
	for name, c := range map[string]struct {
		more string
		made int
	}{
		"one holder":                         {``, 0},
		"relied on by another system":        {`,"reliedOnBy":["billing"]`, 1},
		"shared with an unregistered holder": {`,"shared":true`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := installAPI(t)
			d := i.newCRM()
			i.work()
			ada := i.createUser("ada@example.com")
			role, password := d.account()
			id := i.holdAccount(ada, role, password, c.more)
			i.deactivate(ada)
			if closed := i.closed(ada); closed.Outcome != "completed" || i.state(id) != "verified" || d.logsIn(role, password) {
				t.Errorf("cascade %+v, item %s; want completed and verified", closed, i.state(id))
			}
			if made := d.successors(role); len(made) != c.made {
				t.Errorf("%d secrets were made, want %d", len(made), c.made)
			}
		})
	}
}

// TestRotation_UnfinishedLeavesNoOrphanedSecret uses a platform that refuses the new secret, so that
// the old one stays alive, and then deactivates the last holder.
func TestRotation_UnfinishedLeavesNoOrphanedSecret(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	d.refuse = true
	i.work()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "failed" || i.state(hers) != "failed" || !d.logsIn(role, old) {
		t.Fatalf("cascade %+v, item %s; want failed, a survivor, and Bob not cut off", c, i.state(hers))
	}
	made := d.successors(role)
	if len(made) != 1 {
		t.Fatalf("%d secrets were made, want 1", len(made))
	}
	i.deactivate(bob)
	if c := i.closed(bob); c.Outcome != "completed" || i.state(his) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(his))
	}
	var alive bool
	conn, err := pgx.Connect(t.Context(), d.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(
		t.Context(),
		`select bool_or(rolcanlogin) from pg_roles where rolname in ($1, $2)`,
		role,
		made[0],
	).Scan(&alive); err != nil || alive {
		t.Errorf("one of the account's secrets can log in (%v)", err)
	}
}

func TestRegister_RefusesSharedAccountWithoutPublisher(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	i.app.Connectors["crm"] = registry.Entry{Connector: d.Connector, Type: "postgres", Tenants: []string{"acme"}}
	ada := i.createUser("ada@example.com")
	status, answer := i.call("POST", "/v1/credentials", i.platform,
		`{"principalId":"`+ada+`","kind":"service_account","connector":"crm","reference":"x","secret":"y","shared":true}`)
	if status != 422 || !strings.Contains(fmt.Sprint(answer["detail"]), "publish_to") {
		t.Errorf("answered %d %v; want 422 that names publish_to", status, answer)
	}
}

// TestRotation_RepeatsIfRecipientLeavesMeanwhile deactivates a holder who already has the new secret,
// so that the account must be rotated twice.
func TestRotation_RepeatsIfRecipientLeavesMeanwhile(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	d.busy = 2
	i.work()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	role, old := d.account()
	hers, his, kept := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, ""),
		i.holdAccount(carol, role, old, "")
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the publication", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.published) == 1
	})
	handed := d.published[0]
	if len(handed.Holders) != 2 {
		t.Fatalf("published for %v, want both other holders", handed.Holders)
	}
	i.deactivate(bob)
	for who, id := range map[string]string{ada: hers, bob: his} {
		if c := i.closed(who); c.Outcome != "completed" || i.state(id) != "verified" {
			t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(id))
		}
	}
	if d.logsIn(role, old) || d.logsIn(handed.Reference, handed.Secret.Reveal()) {
		t.Error("the old secret or the leaver's new secret still works")
	}
	if item := i.opened(kept); !d.logsIn(item.Reference, item.Secret.Reveal()) {
		t.Error("the remaining holder's secret does not work")
	}
}

// TestRotation_DisablesAccountIfNoHolderIsLeft deactivates the second holder after the first cascade
// has discovered the account and before it ends it.
func TestRotation_DisablesAccountIfNoHolderIsLeft(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.work()
	i.must("POST", "/v1/connectors/crm/pause", i.operator, `{"reason":"maintenance"}`)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the account's discovery", func() bool { return i.state(hers) == "ending" })
	i.deactivate(bob)
	i.must("POST", "/v1/connectors/crm/resume", i.operator, `{"reason":"done"}`)
	for who, id := range map[string]string{ada: hers, bob: his} {
		if c := i.closed(who); c.Outcome != "completed" || c.Survivors != 0 {
			t.Errorf("cascade %+v, item %s; want completed", c, i.state(id))
		}
	}
	if made := d.successors(role); len(made) != 0 || d.logsIn(role, old) {
		t.Errorf("secrets %v were created without a holder, or the account can log in", made)
	}
}
