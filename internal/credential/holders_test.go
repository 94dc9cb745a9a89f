package credential_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestReliedOn_ReadsOnlyItsAccount checks that the look-up of an account's other holders does not read the tenant's
// other credentials, even without statistics.
func TestReliedOn_ReadsOnlyItsAccount(t *testing.T) {
	db, at := stacktest.Open(t)
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.Background()) }()
	tenant, others := uuid.New(), 1000
	if _, err := owner.Exec(t.Context(), `
		with ada as (
		  insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
		  values ($1, gen_random_uuid(), 'User', 'ada', true, '{}', now(), now()) returning id)
		insert into credentials (tenant_id, id, principal_id, kind, connector, reference, issued_at)
		select $1, gen_random_uuid(), id, 'api_key', 'platform', n::text, now() from ada, generate_series(1, $2) n`,
		tenant, others); err != nil {
		t.Fatal(err)
	}
	err = db.InTenant(t.Context(), tenant, func(tx pgx.Tx) error {
		for range 20 { // so that the plans are those that a session keeps
			var reliedOn bool
			if err := tx.QueryRow(t.Context(), `
				select relied_on(c, '{}') from credentials c where tenant_id = $1 and connector = 'platform' and kind = 'api_key'
				  and reference = '7' and state in ('live', 'ending', 'failed', 'waived')`, tenant).Scan(&reliedOn); err != nil {
				return err
			}
			if reliedOn {
				t.Error("an account of one holder is relied on")
			}
		}
		var read int
		if err := tx.QueryRow(t.Context(), `
			select coalesce(seq_tup_read + idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'credentials'`,
		).Scan(&read); err != nil {
			return err
		}
		if read == 0 || read >= others {
			t.Errorf("%d rows of credentials were read in 20 look-ups, want a few for each", read)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
