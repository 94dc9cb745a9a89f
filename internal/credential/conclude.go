package credential

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/ssf"
)

// concludeSQL stores an item's state, only for an open event, so that the report of a closed
// cascade stays valid. It erases the secret unless a probe after the expiry needs it.
const concludeSQL = `
		update credentials set state = $4, reason = $5, event_id = $3, updated_at = now(),
		       secret = case when $4 in ('revoked', 'verified', 'absent') then null else secret end
		 where tenant_id = $1 and id = $2
		   and (state in ('live', 'ending', 'failed') or (state = 'waived' and $4 <> 'failed'))
		   and exists (select 1 from lifecycle_events e where e.tenant_id = $1 and e.id = $3 and e.closed_at is null)`

// Conclude stores an item's state after an attempt, with the last records of its evidence
// and the signal that it has ended, and releases the attempt's lease. It leaves the item
// unchanged if the event is closed, if the item is already dead or released, or if a waived
// item would become a survivor.
// Error: [ErrLeaseLost].
func (s *Store) Conclude(ctx context.Context, tenant uuid.UUID, a Attempt, o *Opened, state State, reason string,
	records ...evidence.Record,
) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	var held bool
	statements := []database.Statement{{
		SQL: `
		with written as (` + evidence.Insert("$6") + `),
		concluded as (` + concludeSQL + ` and ` + holds("$7") + `),
		yielded as (delete from account_leases where tenant_id = $1 and holder = $7)
		select ` + holds("$7"),
		Args:    []any{tenant, a.Item, a.Event, state, reason, string(encoded), a.Holder},
		Collect: database.Fields(&held),
	}}
	if state == Revoked || state == Verified {
		statements = append(statements, ssf.RecordCredential(tenant, a.Item,
			ssf.CredentialRevoked(o.Principal, o.PrincipalType, a.Workflow, a.Item, string(o.Kind), o.Connector, string(state))))
	}
	err = database.Together(ctx, s.db, tenant, statements...)
	if err != nil {
		return fmt.Errorf("conclude item %s: %w", a.Item, err)
	}
	if !held {
		return ErrLeaseLost
	}
	return nil
}

// Abandon concludes an item as a survivor, and deletes the lease of the cascade's attempt at
// it, so that the attempt stops acting.
func (s *Store) Abandon(ctx context.Context, tenant, id, event uuid.UUID, reason string) error {
	return s.exec(ctx, tenant, "abandon item "+id.String(), `
		with concluded as (`+concludeSQL+`)
		delete from account_leases where tenant_id = $1 and event_id = $3 and item_id = $2`, tenant, id, event,
		Failed, reason)
}

// Opened is an item with its secrets, for the activity that ends it.
type Opened struct {
	Item
	Secret        connectors.Secret
	PrincipalType string
	// Verb is how the item is ended now; it may differ from the verb at discovery.
	Verb Verb
}

// openedColumns are the columns of an item i, its secret, whether others rely on its account,
// and the type of its principal.
const openedColumns = Columns + `, secret, relied_on(i, '{}'),
	(select r.type from resources r where r.tenant_id = i.tenant_id and r.id = i.principal_id)`

// scan scans [openedColumns], followed by others.
func (o *Opened) scan(row pgx.CollectableRow, secret *[]byte, others ...any) error {
	var reliedOn bool
	err := row.Scan(append(append(o.Fields(), secret, &reliedOn, &o.PrincipalType), others...)...)
	o.Verb = EndVerb(o.Kind, reliedOn)
	return err
}

// Open reads an item with its secrets. Error: [ErrNotFound].
func (s *Store) Open(ctx context.Context, tenant, id uuid.UUID) (*Opened, error) {
	var secret []byte
	o, err := database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (*Opened, error) {
		var o Opened
		return &o, o.scan(row, &secret)
	}, `
		select `+openedColumns+` from credentials i where tenant_id = $1 and id = $2`, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open item %s: %w", id, err)
	}
	o.Secret, err = s.unseal(tenant, id, secret)
	return o, err
}

// Fields returns the scan targets of [Columns].
func (i *Item) Fields() []any {
	return []any{
		&i.ID, &i.Principal, &i.Agent, &i.Kind, &i.Connector, &i.Reference, &i.Account, &i.Shared, &i.ReliedOnBy,
		&i.Entitlement, &i.Scopes,
		&i.IssuedAt, &i.ExpiresAt, &i.State, &i.Reason, &i.Event, &i.WaivedUntil, &i.CreatedAt, &i.UpdatedAt,
		&i.Mints,
	}
}

func (s *Store) unseal(tenant, id uuid.UUID, sealed []byte) (connectors.Secret, error) {
	if sealed == nil {
		return "", nil
	}
	secret, err := s.sealer.Open(tenant, id, sealed)
	return connectors.Secret(secret), err
}

func (s *Store) exec(ctx context.Context, tenant uuid.UUID, what, sql string, args ...any) error {
	if err := database.Exec(ctx, s.db, tenant, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
