package e2e

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/testsuite"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/registry"
)

// stopper is a connector whose first attempt blocks right before it changes the
// downstream, as in a stalled process, until goOn is closed.
type stopper struct {
	*crm
	first   atomic.Bool
	stopped chan struct{} // closed once the attempt blocks
	goOn    chan struct{} // closed by the test to unblock the attempt
}

func newStopper(d *crm) *stopper {
	return &stopper{crm: d, stopped: make(chan struct{}), goOn: make(chan struct{})}
}

func (s *stopper) stopAtFence(t connectors.Target) connectors.Target {
	fence := t.Fence
	t.Fence = func(ctx context.Context) error {
		if s.first.CompareAndSwap(false, true) {
			close(s.stopped)
			<-s.goOn
		}
		return fence(ctx)
	}
	return t
}

func (s *stopper) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return s.crm.Renew(ctx, s.stopAtFence(t))
}

func (s *stopper) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return s.crm.Revoke(ctx, s.stopAtFence(t))
}

// attempt runs one attempt at an item, outside of a workflow, for the principal's newest cascade.
func (i *installation) attempt(principal, item string) (activities.ItemResult, error) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	a := i.app.Activities()
	env.RegisterActivity(a)
	cascades := i.cascades(principal)
	value, err := env.ExecuteActivity(a.Rotate, activities.ItemInput{
		Cascade: activities.CascadeRef{Tenant: i.tenant.ID, Event: cascades[0].ID, Principal: uuid.MustParse(principal)},
		Item:    uuid.MustParse(item),
	})
	var result activities.ItemResult
	if err == nil {
		err = value.Get(&result)
	}
	return result, err
}

// late starts an attempt and waits until it blocks. The returned function unblocks the attempt and
// returns its error.
func (s *stopper) late(i *installation, principal, item string) (finish func() error) {
	done := make(chan error, 1)
	go func() {
		_, err := i.attempt(principal, item)
		done <- err
	}()
	<-s.stopped
	return func() error {
		close(s.goOn)
		return <-done
	}
}

func (i *installation) withStopper() *stopper {
	s := newStopper(i.newCRM())
	i.app.Connectors["crm"] = registry.Entry{Connector: s, Type: "postgres", Tenants: []string{"acme"}}
	return s
}

// verifies runs an attempt that must verify the item.
func (i *installation) verifies(principal, item string) {
	i.t.Helper()
	if result, err := i.attempt(principal, item); err != nil || result.State != credential.Verified {
		i.t.Fatalf("the attempt returned %+v, %v; want verified", result, err)
	}
}

func TestAttempt_StalledInRotationIsFenced(t *testing.T) {
	i := installAPI(t)
	s := i.withStopper()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	role, old := s.account()
	hers, his, kept := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, ""),
		i.holdAccount(carol, role, old, "")
	i.deactivate(ada)
	finish := s.late(i, ada, hers)
	i.verifies(ada, hers) // another worker
	handed := i.opened(his)
	i.deactivate(bob)
	i.verifies(bob, his)
	published := len(s.published)

	if err := finish(); err == nil {
		t.Error("the stalled attempt succeeded")
	}
	if s.logsIn(handed.Reference, handed.Secret.Reveal()) || s.logsIn(role, old) {
		t.Error("a verified credential works again")
	}
	if len(s.published) != published {
		t.Error("the stalled attempt published a stale secret")
	}
	if item := i.opened(kept); !s.logsIn(item.Reference, item.Secret.Reveal()) {
		t.Error("the remaining holder was cut off")
	}
	for n := 1; n < len(s.published); n++ {
		if s.published[n].Sequence <= s.published[n-1].Sequence {
			t.Errorf("publication %d has sequence %d after %d", n, s.published[n].Sequence, s.published[n-1].Sequence)
		}
	}
}

func TestAttempt_StalledLeavesLaterRegistration(t *testing.T) {
	i := installAPI(t)
	s := i.withStopper()
	ada := i.createUser("ada@example.com")
	role, old := s.account()
	hers := i.holdAccount(ada, role, old, "")
	i.deactivate(ada)
	finish := s.late(i, ada, hers)
	i.verifies(ada, hers)
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	s.exec("alter role " + role + " login password 'of-a-later-life'")
	i.holdAccount(ada, role, "of-a-later-life", "")
	if err := finish(); err == nil {
		t.Error("the stalled attempt succeeded")
	}
	if !s.logsIn(role, "of-a-later-life") {
		t.Error("the credential registered after the reactivation was ended")
	}
}

func patchActive(value string) string {
	return `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],` +
		`"Operations":[{"op":"replace","path":"active","value":` + value + `}]}`
}

func TestRegister_RefusesAnAccountThatIsBeingEnded(t *testing.T) {
	for name, more := range map[string]string{"revoked": "", "rotated": `,"shared":true`} {
		t.Run(name, func(t *testing.T) {
			i := installAPI(t)
			s := i.withStopper()
			ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
			role, old := s.account()
			hers := i.holdAccount(ada, role, old, more)
			i.deactivate(ada)
			finish := s.late(i, ada, hers)
			body := fmt.Sprintf(`{"principalId":%q,"kind":"service_account","connector":"crm","reference":%q,"secret":%q}`,
				bob, role, old)
			status, answer := i.call("POST", "/v1/credentials", i.platform, body)
			if status != http.StatusConflict || !strings.Contains(fmt.Sprint(answer["detail"]), "being ended or rotated") {
				t.Errorf("a late holder was answered %d %v; want 409", status, answer)
			}
			if status, _ := i.raw("POST", "/v1/import", i.platform, body); status == http.StatusCreated {
				t.Error("a late holder was imported")
			}
			if err := finish(); err != nil {
				t.Fatal(err)
			}
			if status, answer = i.call("POST", "/v1/credentials", i.platform, body); status != http.StatusCreated {
				t.Errorf("after the account was ended, it answered %d %v; want 201", status, answer)
			}
		})
	}
}

// TestRegister_BeforeAttemptJoinsRotation is the other outcome of the race: a holder registered
// before the first attempt gets the new secret.
func TestRegister_BeforeAttemptJoinsRotation(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	hers := i.holdAccount(ada, role, old, "")
	i.deactivate(ada)
	his := i.holdAccount(bob, role, old, "") // after the deactivation, before any attempt
	i.verifies(ada, hers)
	if item := i.opened(his); !d.logsIn(item.Reference, item.Secret.Reveal()) || d.logsIn(role, old) {
		t.Error("the holder was cut off, or the old secret works")
	}
}

func TestRotation_WithoutProofOfPossessionMakesNothing(t *testing.T) {
	for name, secret := range map[string]string{"a wrong password": "i-do-not-know-it", "an outdated password": "old"} {
		t.Run(name, func(t *testing.T) {
			i := installAPI(t)
			d := i.newCRM()
			mallory := i.createUser("mallory@example.com")
			role, password := d.account()
			id := i.holdAccount(mallory, role, secret, `,"shared":true`)
			i.deactivate(mallory)
			if result, err := i.attempt(mallory, id); err == nil {
				t.Errorf("the attempt returned %+v, want an error", result)
			}
			if i.state(id) != "failed" {
				t.Errorf("the item is %s, want failed", i.state(id))
			}
			if made := d.successors(role); len(made) != 0 || len(d.published) != 0 {
				t.Errorf("logins %v were created and %d published without proof of possession", made, len(d.published))
			}
			if !d.logsIn(role, password) {
				t.Error("the account's real holder was cut off")
			}
		})
	}
}

func TestRotation_BeginsByACoHoldersProof(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	his := i.holdAccount(bob, role, old, "")
	hers := i.holdAccount(ada, role, "outdated", "")
	i.deactivate(ada)
	if _, err := i.attempt(ada, hers); err != nil {
		t.Fatal(err)
	}
	if item := i.opened(his); d.logsIn(role, old) || !d.logsIn(item.Reference, item.Secret.Reveal()) {
		t.Error("want the old secret dead and the remaining holder's new one working")
	}
}

// TestRotation_HandsNothingToAnUnprovenRegistration checks that a registration without the account's
// secret gets no login, whether or not another registration still uses the account.
func TestRotation_HandsNothingToAnUnprovenRegistration(t *testing.T) {
	for name, another := range map[string]bool{
		"an account without other holders": false, "an account that is rotated": true,
	} {
		t.Run(name, func(t *testing.T) {
			i := installAPI(t)
			d := i.newCRM()
			role, old := d.account()
			mallory, ada, bob := i.createUser("mallory@example.com"), i.createUser("ada@example.com"),
				i.createUser("bob@example.com")
			junk := i.holdAccount(mallory, role, "i-do-not-know-it", `,"shared":true,"reliedOnBy":["mallorys-app"]`)
			hers := i.holdAccount(ada, role, old, "")
			his := ""
			if another {
				his = i.holdAccount(bob, role, old, "")
			}
			i.deactivate(ada)
			i.verifies(ada, hers)
			item := i.opened(junk)
			if d.logsIn(item.Reference, item.Secret.Reveal()) || d.logsIn(role, old) {
				t.Error("the unproven registration got a login, or the old login works")
			}
			if !strings.Contains(item.Reason, "did not prove") {
				t.Errorf("the registration's reason is %q", item.Reason)
			}
			for _, p := range d.published {
				if slices.Contains(p.Holders, uuid.MustParse(junk)) || len(p.ReliedOnBy) > 0 {
					t.Errorf("published to %v and %v", p.Holders, p.ReliedOnBy)
				}
			}
			if item := i.opened(cmp.Or(his, junk)); another != d.logsIn(item.Reference, item.Secret.Reveal()) {
				t.Errorf("the remaining holder's login works: %t, want %t", !another, another)
			}
		})
	}
}

// TestRotation_FinishesOnce checks that a late attempt with an outdated rotation does not change the
// result of later rotations.
func TestRotation_FinishesOnce(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	role, old := d.account()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	hers, his, kept := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, ""),
		i.holdAccount(carol, role, old, "")
	i.deactivate(ada)
	i.verifies(ada, hers)
	store := i.app.Activities().Credentials
	var first credential.Rotation
	if err := i.connect().QueryRow(t.Context(),
		`select id, new_reference from rotations`).Scan(&first.ID, &first.NewReference); err != nil {
		t.Fatal(err)
	}
	first.Step = credential.Retired
	i.deactivate(bob)
	i.verifies(bob, his)
	lease := credential.Attempt{
		Item: uuid.MustParse(kept), Event: uuid.New(), Holder: uuid.New(), Started: time.Now(), Lease: time.Minute,
	}
	if err := store.Lease(t.Context(), i.tenant.ID, lease); err != nil {
		t.Fatal(err)
	}
	if err := store.FinishRotation(t.Context(), i.tenant.ID, &first, lease.Holder); err == nil {
		t.Error("a finished rotation was finished again")
	}
	if item := i.opened(kept); !d.logsIn(item.Reference, item.Secret.Reveal()) {
		t.Error("the remaining holder was cut off")
	}
}

// TestRegister_BetweenTwoAttemptsIsRefused registers a holder after a first, failed attempt at the
// account.
func TestRegister_BetweenTwoAttemptsIsRefused(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	hers := i.holdAccount(ada, role, old, "")
	i.deactivate(ada)
	event := i.cascades(ada)[0].ID
	i.sql(`update credentials set state = 'ending', event_id = $2 where id = $1`, hers, event)
	i.sql(`insert into evidence (tenant_id, item_id, event_id, workflow_id, run_id, activity_id, attempt, step, outcome)
		values ($1, $2, $3, 'w', 'r', 'a', 1, 'revoke', 'failed')`, i.tenant.ID, hers, event)
	body := fmt.Sprintf(`{"principalId":%q,"kind":"service_account","connector":"crm","reference":%q,"secret":%q}`,
		bob, role, old)
	if status, answer := i.call("POST", "/v1/credentials", i.platform, body); status != http.StatusConflict {
		t.Errorf("answered %d %v; want 409", status, answer)
	}
	i.verifies(ada, hers)
	if status, answer := i.call("POST", "/v1/credentials", i.platform, body); status != http.StatusCreated {
		t.Errorf("after the account was ended, it answered %d %v; want 201", status, answer)
	}
}

// TestRotation_ResumedServesLaterHolders resumes a rotation that has not created a secret yet, after
// another holder has registered.
func TestRotation_ResumedServesLaterHolders(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	ada, bob, carol := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("carol@example.com")
	role, old := d.account()
	hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
	i.deactivate(ada)
	store := i.app.Activities().Credentials
	lease := credential.Attempt{
		Item: uuid.MustParse(hers), Event: i.cascades(ada)[0].ID, Holder: uuid.New(), Started: time.Now(), Lease: time.Minute,
	}
	if err := store.Lease(t.Context(), i.tenant.ID, lease); err != nil {
		t.Fatal(err)
	}
	if _, err := store.BeginRotation(t.Context(), i.tenant.ID, &i.opened(hers).Item,
		[]uuid.UUID{uuid.MustParse(his)}, lease.Holder); err != nil {
		t.Fatal(err)
	}
	if err := store.Yield(t.Context(), i.tenant.ID, lease.Holder); err != nil {
		t.Fatal(err)
	}
	later := i.holdAccount(carol, role, old, "")
	i.verifies(ada, hers)
	for _, id := range []string{his, later} {
		if item := i.opened(id); !d.logsIn(item.Reference, item.Secret.Reveal()) {
			t.Error("a remaining holder was cut off")
		}
	}
}

// TestRegister_RefusesReservedRoles checks roles that are reserved by their attributes in the
// database.
func TestRegister_RefusesReservedRoles(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	role, password := d.account()
	d.exec("alter role " + role + " createrole")
	ada := i.createUser("ada@example.com")
	body := fmt.Sprintf(`{"principalId":%q,"kind":"service_account","connector":"crm","reference":%q,"secret":%q}`,
		ada, role, password)
	if status, answer := i.call("POST", "/v1/credentials", i.platform, body); status != http.StatusUnprocessableEntity ||
		!strings.Contains(fmt.Sprint(answer["detail"]), "CREATEROLE") {
		t.Errorf("answered %d %v; want 422", status, answer)
	}
}

// TestReferences_CoverAnAccountAfterItsRotation checks that references still match an account whose
// login was renamed by a rotation.
func TestReferences_CoverAnAccountAfterItsRotation(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	role, old := d.account()
	i.app.Connectors["crm"] = registry.Entry{
		Connector: d, Type: "postgres", Tenants: []string{"acme"}, References: []string{role},
	}
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
	i.deactivate(ada)
	i.verifies(ada, hers)
	i.deactivate(bob)
	i.verifies(bob, his)
}

// TestRegister_OfAnotherTenantsAccount checks that a connector for two tenants requires proof of
// possession.
func TestRegister_OfAnotherTenantsAccount(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	role, password := d.account()
	i.app.Connectors["crm"] = registry.Entry{Connector: d, Type: "postgres", Tenants: []string{"acme", "evil"}}
	other := *i
	other.tenant, other.scim, other.platform = i.newTenant("evil")
	ada, mallory := i.createUser("ada@example.com"), other.createUser("mallory@example.com")
	i.holdAccount(ada, role, password, "")
	register := func(reference, secret, more string) (int, map[string]any) {
		return i.call("POST", "/v1/credentials", other.platform, fmt.Sprintf(
			`{"principalId":%q,"kind":"service_account","connector":"crm","reference":%q%s%s}`,
			mallory, reference, secret, more))
	}
	for name, secret := range map[string]string{"a made-up password": `,"secret":"i-do-not-know-it"`, "no password": ""} {
		for _, more := range []string{"", `,"shared":true`} {
			if status, answer := register(role, secret, more); status != http.StatusUnprocessableEntity {
				t.Errorf("%s%s: answered %d %v; want 422", name, more, status, answer)
			}
		}
	}
	if status, answer := register(role, `,"secret":"`+password+`"`, ""); status != http.StatusCreated {
		t.Errorf("with the password: answered %d %v; want 201", status, answer)
	}
	// Separate entries for one downstream do not isolate the tenants.
	i.app.Connectors["crm"] = registry.Entry{Connector: d, Type: "postgres", Tenants: []string{"evil"}}
	i.app.Connectors["other"] = registry.Entry{Connector: d, Type: "postgres", Tenants: []string{"acme"}}
	if status, answer := register(role+"2", "", ""); status != http.StatusUnprocessableEntity {
		t.Errorf("with a separate entry: answered %d %v; want 422", status, answer)
	}
	// Reference patterns with the tenant's name isolate the tenants and replace the proof.
	entry := i.app.Connectors["crm"]
	entry.References = []string{"svc_{tenant}_*"}
	i.app.Connectors["crm"] = entry
	for reference, want := range map[string]int{
		"svc_evil_1": http.StatusCreated, "svc_acme_1": http.StatusUnprocessableEntity, role: http.StatusUnprocessableEntity,
	} {
		if status, answer := register(reference, `,"secret":"x"`, ""); status != want {
			t.Errorf("%s: answered %d %v; want %d", reference, status, answer, want)
		}
	}
}

// TestRotation_RepeatsIfProbeFindsOldSecretAlive uses a platform that confirms the first rotation
// without performing it.
func TestRotation_RepeatsIfProbeFindsOldSecretAlive(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers := i.hold(p, ada, "", "shared-key")
	i.hold(p, bob, "", "shared-key")
	var lied sync.Once
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) (did bool) {
		if kind == "credential.rotate" {
			lied.Do(func() {
				did = true
				_, _ = w.Write([]byte(`{"outcome":"done"}`))
			})
		}
		return did
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(hers))
	}
	if n := p.called("credential.rotate", "shared-key"); n != 2 {
		t.Errorf("the platform was asked %d times for a new secret, want 2", n)
	}
}

// TestVerify_CredentialSeenAliveIsNotRevoked uses a platform that confirms each revocation without
// performing it. One probe finds the credential alive, and all later probes fail.
func TestVerify_CredentialSeenAliveIsNotRevoked(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Policy.Deadline, c.Policy.AttemptTimeout = 4*time.Second, 2*time.Second
	})
	ada := i.createUser("ada@example.com")
	hers := i.hold(p, ada, "", "liar")
	var mu sync.Mutex
	revoked, looked := 0, 0
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case kind == "credential.revoke":
			if revoked++; revoked < 5 {
				http.Error(w, "", http.StatusInternalServerError)
			} else {
				_, _ = w.Write([]byte(`{"outcome":"done"}`)) // without revoking it
			}
			return true
		case kind == "credential.verify" && revoked >= 5:
			if looked++; looked != 1 {
				http.Error(w, "", http.StatusInternalServerError)
				return true
			}
		}
		return false
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "failed" || i.state(hers) != "failed" {
		t.Errorf("cascade %+v, item %s; want both failed", c, i.state(hers))
	}
}

// TestDiscover_KeepsConcurrentFailure starts a discovery before the failure of an item is committed.
func TestDiscover_KeepsConcurrentFailure(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	hers := i.hold(p, ada, "", "key")
	i.deactivate(ada)
	event := i.cascades(ada)[0].ID
	scope := cascade.Scope{Event: event, Principal: uuid.MustParse(ada)}
	if held, err := i.app.Cascades().MarkEnding(t.Context(), i.tenant.ID, scope,
		cascade.Page{Limit: 10}); err != nil || len(held) != 1 {
		t.Fatalf("discovered %v, %v; want the key", held, err)
	}
	tx, err := i.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(),
		`update credentials set state = 'failed', reason = 'refused' where id = $1`, hers); err != nil {
		t.Fatal(err)
	}
	found := make(chan []cascade.Item, 1)
	go func() {
		held, _ := i.app.Cascades().MarkEnding(context.Background(), i.tenant.ID, scope, cascade.Page{Limit: 10})
		found <- held
	}()
	watch := i.connect()
	stacktest.Eventually(t, 20*time.Second, "the discovery that waits for the row lock", func() bool {
		var n int
		return watch.QueryRow(t.Context(), `
			select count(*) from pg_stat_activity
			 where datname = current_database() and wait_event_type = 'Lock'`).Scan(&n) == nil && n > 0
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if held := <-found; len(held) != 0 || i.state(hers) != "failed" {
		t.Errorf("found %v, and the item is %s; want none, and survivor", held, i.state(hers))
	}
	// An item that is still ending when the cascade closes becomes a survivor.
	i.sql(`update credentials set state = 'ending' where id = '` + hers + `'`)
	if _, err := i.app.Cascades().Close(t.Context(), i.tenant.ID, event, lifecycle.Leaver, false); err != nil {
		t.Fatal(err)
	}
	if i.state(hers) != "failed" {
		t.Errorf("the item of a closed cascade is %s, want failed", i.state(hers))
	}
}
