package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
	"github.com/leaverhq/leaver/scim/schema"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// world is a tenant whose directory changes, and whose events are run in random order.
type world struct {
	*activities.Activities
	db     *database.DB
	tenant uuid.UUID
	users  []uuid.UUID
	groups []uuid.UUID
	mu     sync.Mutex
	failed error
}

// nobodyStarts is a starter that fails, so that every event stays in the outbox.
type nobodyStarts struct{}

func (nobodyStarts) Start(context.Context, lifecycle.Event) (string, error) {
	return "", errors.New("the test runs the events itself")
}

func newWorlds(t *testing.T) func(rapid.TB) *world {
	d := stacktest.NewDatabase(t)
	db, err := database.Open(t.Context(), d.AppURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	writer := lifecycle.NewWriter(db, nobodyStarts{}, slog.New(slog.DiscardHandler))
	t.Cleanup(writer.Close)
	entitlements := entitlement.NewStore(db, scim.Vocabulary)
	a := &activities.Activities{
		Credentials: credential.NewStore(db, sealer, entitlements), Cascades: cascade.NewStore(db),
		Threshold: cascade.NewThreshold(db), Tenants: tenant.NewStore(db),
		Directory: directory.NewStore(db), Lifecycle: writer, Entitlements: entitlements,
	}
	return func(rt rapid.TB) *world {
		of, err := a.Tenants.Create(context.Background(), "t-"+uuid.NewString()[:18], tenant.ProfileDefault)
		if err != nil {
			rt.Fatal(err)
		}
		w := &world{Activities: a, db: db, tenant: of.ID}
		for n := range 3 {
			w.users = append(w.users, w.create(
				rt, directory.TypeUser, fmt.Sprintf(`{"userName":"user-%d"}`, n), fmt.Sprint("user-", n), "",
			))
		}
		for n := range 3 {
			w.groups = append(w.groups, w.create(rt, directory.TypeGroup, `{}`, "", fmt.Sprint("g", n), w.users...))
		}
		if _, err := w.Entitlements.Apply(context.Background(), w.tenant, ruleSets[1], -1, "test", "test"); err != nil {
			rt.Fatal(err)
		}
		w.drain(rt)
		return w
	}
}

var by = lifecycle.Cause{Trigger: "scim-patch", Actor: "test"}

func (w *world) create(rt rapid.TB, kind, document, unique, display string, members ...uuid.UUID) uuid.UUID {
	active := true
	r := &directory.Resource{
		Type: kind, UniqueName: unique, Display: display, Active: &active, Document: json.RawMessage(document),
	}
	for _, m := range members {
		r.Members.Add(m)
	}
	result, err := w.Lifecycle.Create(context.Background(), w.tenant, r, by)
	if err != nil {
		rt.Fatal(err)
	}
	return result.Resource.ID
}

// ruleSets are the rules that the tenant switches between.
var ruleSets = []string{
	`rules: []`,
	"rules:\n  - {group: g0, team: A, scopes: [x]}\n  - {group: g1, team: B}\n",
	"rules:\n  - {group: 'g*', team: A}\n  - {when: user.userType == 'staff', scopes: [x]}\n" +
		"  - {group: g2, deny: true, scopes: [x]}\n",
	"rules:\n  - {when: '!groups.exists(g, g.displayName == \"g1\")', team: B}\n" +
		"  - {when: 'groups.exists(g, g.direct)', team: A}\n",
}

var names = []string{"team:A", "team:B", "scope:x"}

// actions returns generators of random changes. Each draws its subject.
func (w *world) actions() []func(rt *rapid.T) func(context.Context) error {
	user := func(rt *rapid.T) uuid.UUID { return rapid.SampledFrom(w.users).Draw(rt, "user") }
	group := func(rt *rapid.T) uuid.UUID { return rapid.SampledFrom(w.groups).Draw(rt, "group") }
	membership := func(rt *rapid.T) func(context.Context) error {
		in, member, add := group(rt), user(rt), rapid.Bool().Draw(rt, "add")
		if rapid.IntRange(0, 4).Draw(rt, "nested") == 0 {
			if member = group(rt); member == in {
				return nil
			}
		}
		return func(ctx context.Context) error {
			_, err := w.Lifecycle.Update(ctx, w.tenant, directory.TypeGroup, in, by, func(
				_ *lifecycle.Tx, current *directory.Resource,
			) (*directory.Resource, error) {
				after := *current
				if add {
					after.Members.Add(member)
				} else {
					after.Members.Remove(member)
				}
				return &after, nil
			})
			return err
		}
	}
	run := func(rt *rapid.T) func(context.Context) error { // run an event's activities
		pick := rapid.Uint32().Draw(rt, "event")
		return func(ctx context.Context) error {
			_, err := w.runOne(ctx, pick)
			return err
		}
	}
	return []func(rt *rapid.T) func(context.Context) error{
		membership, membership, membership,
		func(rt *rapid.T) func(context.Context) error { // rename a group
			id, name := group(rt), rapid.SampledFrom([]string{"g0", "g1", "g2"}).Draw(rt, "name")
			return func(ctx context.Context) error {
				_, err := w.Lifecycle.Update(ctx, w.tenant, directory.TypeGroup, id, by, func(
					_ *lifecycle.Tx, current *directory.Resource,
				) (*directory.Resource, error) {
					after := *current
					after.Display, after.Changed = name, []string{"displayName"}
					return &after, nil
				})
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // change a user's attribute
			id, value := user(rt), rapid.SampledFrom([]string{"staff", "guest"}).Draw(rt, "userType")
			return func(ctx context.Context) error {
				_, err := w.Lifecycle.Update(ctx, w.tenant, directory.TypeUser, id, by, func(
					_ *lifecycle.Tx, current *directory.Resource,
				) (*directory.Resource, error) {
					after := *current
					after.Document, after.Changed = json.RawMessage(fmt.Sprintf(
						`{"userName":%q,"userType":%q}`, current.UniqueName, value,
					)), []string{"userType"}
					return &after, nil
				})
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // delete a group
			id := group(rt)
			return func(ctx context.Context) error {
				_, err := w.Lifecycle.Delete(ctx, w.tenant, directory.TypeGroup, id, by, nil)
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // change the rules
			document := rapid.SampledFrom(ruleSets).Draw(rt, "rules")
			return func(ctx context.Context) error {
				_, err := w.Entitlements.Apply(ctx, w.tenant, document, -1, "test", "test")
				if database.IsUniqueViolation(err, "mappings_pkey") {
					return nil
				}
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // deactivate a user
			id := user(rt)
			return func(ctx context.Context) error {
				_, err := w.Lifecycle.SetActive(ctx, w.tenant, directory.TypeUser, id, false, by)
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // reactivate a user
			id := user(rt)
			return func(ctx context.Context) error {
				_, err := w.Lifecycle.Restore(ctx, w.tenant, directory.TypeUser, id, by)
				if errors.Is(err, lifecycle.ErrNotRestricted) {
					return nil
				}
				return err
			}
		},
		func(rt *rapid.T) func(context.Context) error { // register a credential
			id, name := user(rt), rapid.SampledFrom(names).Draw(rt, "entitlement")
			return func(ctx context.Context) error {
				_, err := w.Credentials.Register(ctx, w.tenant, credential.New{
					Principal: id, Kind: connectors.APIKey, Connector: "c", Reference: uuid.NewString(),
					Entitlement: name, IssuedAt: time.Now(),
				})
				if errors.Is(err, credential.ErrNotEntitled) || errors.Is(err, credential.ErrRestricted) {
					return nil
				}
				return err
			}
		},
		run, run, run, run,
	}
}

// runOne runs the activities of a pending event of the outbox, chosen by pick.
func (w *world) runOne(ctx context.Context, pick uint32) (more bool, err error) {
	var e lifecycle.Event
	err = w.db.InTenant(ctx, w.tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			update lifecycle_events set started_at = now() where tenant_id = $1 and id = (
			  select id from lifecycle_events where tenant_id = $1 and started_at is null
			   order by hashint8(sequence + $2) limit 1 for update skip locked)
			returning id, kind, principal_id, principal_type, changed, sequence`, w.tenant, int64(pick)).
			Scan(&e.ID, &e.Kind, &e.Principal, &e.PrincipalType, &e.Changed, &e.Sequence)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, w.run(e)
}

func (w *world) run(e lifecycle.Event) error {
	suite := &testsuite.WorkflowTestSuite{}
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(w.Activities)
	ref := activities.CascadeRef{Tenant: w.tenant, Event: e.ID, Principal: e.Principal, Sequence: e.Sequence}
	switch e.Kind {
	case lifecycle.Leaver:
		_, err := env.ExecuteActivity(w.Settle, ref)
		return err
	case lifecycle.TeamSync:
		in := activities.SyncInput{
			Cascade: ref, Tenant: e.PrincipalType == "Tenant", Whole: !slices.Equal(e.Changed, []string{"members"}),
		}
		_, err := env.ExecuteActivity(w.Sync, in)
		return err
	default:
		_, err := env.ExecuteActivity(w.Entitle, activities.EntitleInput{Cascade: ref, Ends: e.Kind == lifecycle.Mover})
		return err
	}
}

// TestEntitlements_ConvergeInAnyOrder applies random changes concurrently and in random
// order. The stored entitlements must equal a full evaluation, and no credential that was
// granted under a lost entitlement may be live.
func TestEntitlements_ConvergeInAnyOrder(t *testing.T) {
	fresh := newWorlds(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := fresh(rt)
		ctx := context.Background()
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			var together sync.WaitGroup
			for range rapid.IntRange(1, 3).Draw(rt, "at once") {
				action := rapid.SampledFrom(w.actions()).Draw(rt, "action")(rt)
				if action == nil {
					continue
				}
				together.Go(func() {
					// The group may have been deleted concurrently.
					var gone *schema.UnknownTargetError
					if err := action(ctx); err != nil && !errors.Is(err, directory.ErrNotFound) &&
						!errors.As(err, &gone) {
						w.mu.Lock()
						w.failed = err
						w.mu.Unlock()
					}
				})
			}
			together.Wait()
			if w.failed != nil {
				rt.Fatal(w.failed)
			}
		}
		w.drain(rt)
		w.check(rt)
	})
}

// drain runs the pending events of the outbox, in random order.
func (w *world) drain(rt rapid.TB) {
	for pick := uint32(0); ; pick++ {
		more, err := w.runOne(context.Background(), pick)
		if err != nil {
			rt.Fatal(err)
		}
		if !more {
			return
		}
	}
}

func (w *world) check(rt rapid.TB) {
	ctx := context.Background()
	var left int
	err := w.db.InTenant(ctx, w.tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			select count(*) from invalidations d where d.tenant_id = $1
			   and not exists (select 1 from restrictions x
			                    where x.tenant_id = $1 and x.principal_id = d.principal_id)`, w.tenant).Scan(&left)
	})
	if err != nil || left > 0 {
		rt.Fatalf("%d invalidations are left: %v", left, err)
	}
	for n, id := range w.users {
		user, err := directory.NewStore(w.db).Get(ctx, w.tenant, directory.TypeUser, id)
		if err != nil {
			rt.Fatal(err)
		}
		want := map[string]bool{}
		if !user.Restricted() {
			scratch, err := w.Entitlements.Test(ctx, w.tenant, id, nil)
			if err != nil && !errors.Is(err, entitlement.ErrNoMapping) {
				rt.Fatal(err)
			}
			for name := range scratch.Entitlements {
				want[name] = true
			}
		}
		held, err := w.Entitlements.Of(ctx, w.tenant, id)
		if err != nil {
			rt.Fatal(err)
		}
		got := map[string]bool{}
		for _, e := range held {
			got[e.Name] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("user %d: %s", n, diff)
		}
		items, err := w.Credentials.List(ctx, w.tenant, credential.Query{
			Principal: &id, Limit: 500, Kinds: connectors.Kinds(), States: []credential.State{credential.Live},
		})
		if err != nil {
			rt.Fatal(err)
		}
		for _, item := range items {
			_, err := w.Entitlements.Current(ctx, w.tenant)
			if !got[item.Entitlement] && !user.Restricted() && !errors.Is(err, entitlement.ErrNoMapping) {
				rt.Fatalf("user %d has a live credential under the lost entitlement %s", n, item.Entitlement)
			}
		}
	}
}

// TestEntitlements_WaitForConcurrentEvaluation checks that an evaluation and a registration
// wait for a concurrent evaluation, here a row lock, and see what it committed.
func TestEntitlements_WaitForConcurrentEvaluation(t *testing.T) {
	fresh := newWorlds(t)
	for name, act := range map[string]func(ctx context.Context, w *world, user uuid.UUID) error{
		"an evaluation": func(ctx context.Context, w *world, user uuid.UUID) error {
			_, err := w.Entitlements.Evaluate(ctx, w.tenant, []uuid.UUID{user}, entitlement.Cause{})
			return err
		},
		"a registration": func(ctx context.Context, w *world, user uuid.UUID) error {
			_, err := w.Credentials.Register(ctx, w.tenant, credential.New{
				Principal: user, Kind: connectors.APIKey, Connector: "c", Reference: "r", Entitlement: "team:A",
				IssuedAt: time.Now(),
			})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := fresh(t)
			done := make(chan error, 1)
			err := w.db.InTenant(t.Context(), w.tenant, func(tx pgx.Tx) error {
				if _, err := tx.Exec(
					t.Context(), `select 1 from evaluations where tenant_id = $1 and principal_id = $2 for update`,
					w.tenant, w.users[0],
				); err != nil {
					return err
				}
				go func() { done <- act(t.Context(), w, w.users[0]) }()
				stacktest.Eventually(t, 10*time.Second, "a waiting transaction", func() bool {
					var waiting bool
					err := tx.QueryRow(t.Context(), `
						select exists (select 1 from pg_locks l
						                where not l.granted and pg_backend_pid() = any (pg_blocking_pids(l.pid)))`).Scan(&waiting)
					return err == nil && waiting
				})
				// Delete the entitlements before the waiting transaction reads them.
				_, err := tx.Exec(
					t.Context(), `delete from entitlements where tenant_id = $1 and principal_id = $2`, w.tenant,
					w.users[0],
				)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			err = <-done
			held, readErr := w.Entitlements.Of(t.Context(), w.tenant, w.users[0])
			switch {
			case readErr != nil:
				t.Fatal(readErr)
			case name == "a registration" && !errors.Is(err, credential.ErrNotEntitled):
				t.Errorf("registration: %v, want it refused", err)
			case name == "an evaluation" && (err != nil || len(held) == 0):
				t.Errorf("entitlements %v, %v; want them restored", held, err)
			}
		})
	}
}
