package credential_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// overtaken implements Entitlements. It runs a concurrent evaluation before it returns.
type overtaken struct {
	live    []string
	compute func()
}

func (o overtaken) Live(context.Context, uuid.UUID, uuid.UUID) ([]string, error) {
	o.compute()
	return o.live, nil
}

// TestRegister_RechecksStaleEntitlementsUnderLock checks that entitlements that were derived
// before a concurrent evaluation are not used after it has removed the entitlement.
func TestRegister_RechecksStaleEntitlementsUnderLock(t *testing.T) {
	db, at := stacktest.Open(t)
	sealer := stacktest.NewSealer(t)
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.Background()) }()
	of, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	ada := uuid.New()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := owner.Exec(context.Background(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(`insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at,
		extensions) values ($1, $2, 'User', 'ada', true, '{}', now(), now(), '{}')`, of.ID, ada)
	exec(`insert into mappings (tenant_id, version, document, actor, reason) values ($1,
		1, 'rules: []', 'test', 'test')`, of.ID)
	exec(`insert into evaluations (tenant_id, principal_id) values ($1, $2)`, of.ID, ada)
	exec(`insert into entitlements (tenant_id, principal_id, name, sources) values ($1, $2, 'team:x', '[]')`, of.ID, ada)
	exec(`insert into invalidations (tenant_id, principal_id, cause) values ($1, $2, $2)`, of.ID, ada)

	store := credential.NewStore(db, sealer, overtaken{live: []string{"team:x"}, compute: func() {
		exec(`delete from entitlements where tenant_id = $1`, of.ID)
		exec(`delete from invalidations where tenant_id = $1`, of.ID)
	}})
	_, err = store.Register(t.Context(), of.ID, credential.New{
		Principal: ada, Kind: connectors.APIKey, Connector: "platform", Reference: "k", Entitlement: "team:x",
		IssuedAt: time.Now(),
	})
	if !errors.Is(err, credential.ErrNotEntitled) {
		t.Errorf("got %v, want ErrNotEntitled", err)
	}
}
