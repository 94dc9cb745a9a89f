package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
)

var byTest = lifecycle.Cause{Trigger: lifecycle.TriggerPatch, Actor: "test"}

// world is a tenant with a writer and credentials.
type world struct {
	db     *database.DB
	tenant uuid.UUID
	writer *lifecycle.Writer
	items  *credential.Store
}

func newWorld(t *testing.T) world {
	t.Helper()
	db, _ := stacktest.Open(t)
	of, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	writer := lifecycle.NewWriter(db, &recorder{}, slog.New(slog.DiscardHandler))
	t.Cleanup(writer.Close)
	return world{db, of.ID, writer, credential.NewStore(db, sealer, nil)}
}

// TestWriter_ConcurrentChangesAreSequential races deactivations, returns, other changes and
// registrations of one user. Whatever their order, the model must allow each step of the
// stored history, and the last cascade's scope must contain all live credentials.
func TestWriter_ConcurrentChangesAreSequential(t *testing.T) {
	w := newWorld(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		active := true
		created, err := w.writer.Create(t.Context(), w.tenant, &directory.Resource{
			Type: directory.TypeUser, UniqueName: fmt.Sprintf("ada-%d", run), Active: &active,
			Document: []byte(`{"active":true}`),
		}, byTest)
		if err != nil {
			rt.Fatal(err)
		}
		user := created.Resource.ID
		actions := rapid.SliceOfN(rapid.SampledFrom([]string{
			"deactivate", "deactivate", "return", "register",
			"title",
		}), 2, 6).Draw(rt, "concurrent actions")
		var all sync.WaitGroup
		for n, action := range actions {
			all.Go(func() {
				if err := w.act(t.Context(), user, action, n); err != nil {
					rt.Errorf("%s: %v", action, err)
				}
			})
		}
		all.Wait()
		w.check(t.Context(), rt, user)
	})
}

func (w world) act(ctx context.Context, user uuid.UUID, action string, n int) error {
	var err error
	switch action {
	case "register":
		_, err = w.items.Register(ctx, w.tenant, credential.New{
			Principal: user,
			Kind:      connectors.APIKey,
			Connector: "platform",
			Reference: fmt.Sprint(user, n),
			IssuedAt:  time.Now(),
		})
		if errors.Is(err, credential.ErrRestricted) {
			return nil
		}
	case "title":
		_, err = w.writer.Update(ctx, w.tenant, directory.TypeUser, user, byTest,
			func(_ *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
				after := *current
				after.Changed = []string{"title"}
				return &after, nil
			})
	default:
		_, err = w.writer.SetActive(ctx, w.tenant, directory.TypeUser, user, action == "return", byTest)
	}
	return err
}

// check compares the stored history with the model: an active user can move or leave, and a
// restricted user can only return.
func (w world) check(ctx context.Context, t *rapid.T, user uuid.UUID) {
	type step struct {
		Version int64
		Changed []string
		Kind    string // of its event; empty if there is none
	}
	var steps []step
	var restricted bool
	err := w.db.InTenant(ctx, w.tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select c.version, c.changed, coalesce(e.kind, '') from changes c
			  left join lifecycle_events e on e.principal_id = c.resource_id and e.workflow_id like '%/' || c.version
			 where c.resource_id = $1 order by c.version`, user)
		if err != nil {
			return err
		}
		if steps, err = pgx.CollectRows(rows, pgx.RowToStructByPos[step]); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `select exists (select 1 from restrictions where principal_id = $1)`, user).Scan(&restricted)
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	for i, s := range steps {
		toggles := slices.Contains(s.Changed, "active")
		want := ""
		switch {
		case i == 0:
			want = "joiner"
		case toggles && !gone:
			want, gone = "leaver", true
		case toggles:
			want, gone = "joiner", false
		case !gone:
			want = "mover"
		}
		if s.Version != int64(i+1) || s.Kind != want {
			t.Fatalf("step %d has version %d and kind %q, want kind %q: %+v", i, s.Version, s.Kind, want, steps)
		}
	}
	if restricted != gone {
		t.Fatalf("restricted is %t after %+v", restricted, steps)
	}
	if gone {
		w.checkScope(ctx, t, user)
	}
}

// checkScope checks that the cascade of the last deactivation discovers all live credentials.
func (w world) checkScope(ctx context.Context, t *rapid.T, user uuid.UUID) {
	var event uuid.UUID
	var live int
	err := w.db.InTenant(ctx, w.tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			select (select event_id from restrictions where principal_id = $1), (select count(*) from credentials
			  where principal_id = $1 and state = 'live')`, user).
			Scan(&event, &live)
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := cascade.NewStore(
		w.db,
	).MarkEnding(
		ctx,
		w.tenant,
		cascade.Scope{Event: event, Principal: user},
		cascade.Page{Limit: 100},
	)
	if err != nil || len(found) != live {
		t.Fatalf("Discover returned %d of %d live credentials (%v)", len(found), live, err)
	}
}

func TestWriter_EmptyUpdateKeepsVersionAndEmitsNothing(t *testing.T) {
	w := newWorld(t)
	r, err := w.writer.Create(t.Context(), w.tenant, &directory.Resource{
		Type:       directory.TypeUser,
		UniqueName: "ada", Document: []byte(`{}`),
	}, byTest)
	if err != nil {
		t.Fatal(err)
	}
	result, err := w.writer.Update(t.Context(), w.tenant, directory.TypeUser, r.Resource.ID, byTest,
		func(_ *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			same := *current
			return &same, nil
		})
	if err != nil || result.Event != nil || result.Resource.Version != 1 {
		t.Errorf("got %+v (%v), want version 1 and no event", result, err)
	}
}

func TestWriter_TakenNameIsRefused(t *testing.T) {
	w := newWorld(t)
	create := func(name string) (lifecycle.Result, error) {
		return w.writer.Create(t.Context(), w.tenant, &directory.Resource{
			Type:       directory.TypeUser,
			UniqueName: name, Document: []byte(`{}`),
		}, byTest)
	}
	if _, err := create("ada"); err != nil {
		t.Fatal(err)
	}
	bob, err := create("bob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create("ada"); !errors.Is(err, directory.ErrNameTaken) {
		t.Errorf("create a second ada: got %v, want ErrNameTaken", err)
	}
	_, err = w.writer.Update(t.Context(), w.tenant, directory.TypeUser, bob.Resource.ID, byTest,
		func(_ *lifecycle.Tx, current *directory.Resource) (*directory.Resource, error) {
			after := *current
			after.UniqueName, after.Changed = "ada", []string{"userName"}
			return &after, nil
		})
	if !errors.Is(err, directory.ErrNameTaken) {
		t.Errorf("rename bob to ada: got %v, want ErrNameTaken", err)
	}
	after, err := directory.NewStore(w.db).Get(t.Context(), w.tenant, directory.TypeUser, bob.Resource.ID)
	if err != nil || after.UniqueName != "bob" || after.Version != 1 {
		t.Errorf("got %+v (%v), want bob unchanged", after, err)
	}
}

func TestWriter_UnknownTriggerIsRefused(t *testing.T) {
	w := newWorld(t)
	_, err := w.writer.Create(t.Context(), w.tenant, &directory.Resource{
		Type:       directory.TypeUser,
		UniqueName: "ada", Document: []byte(`{}`),
	},
		lifecycle.Cause{Trigger: "by-mail", Actor: "test"})
	if err == nil || !strings.Contains(err.Error(), `unknown trigger "by-mail"`) {
		t.Errorf("got %v, want an error for the unknown trigger", err)
	}
}
