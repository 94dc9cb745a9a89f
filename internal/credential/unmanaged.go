package credential

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Unregistered is a credential that a connector found downstream.
type Unregistered struct {
	Connector string
	Kind      connectors.Kind
	Reference string
	Principal *uuid.UUID // named by the downstream's label
	Scopes    []string
	ExpiresAt *time.Time
}

// Unmanaged is an unmanaged credential: a connector found it, and it is not registered.
type Unmanaged struct {
	ID           uuid.UUID       `json:"id"`
	Connector    string          `json:"connector"`
	Kind         connectors.Kind `json:"kind"`
	Reference    string          `json:"reference"`
	Label        *uuid.UUID      `json:"labelledPrincipalId,omitempty"` // the principal that the downstream's label names
	Restricted   bool            `json:"labelledPrincipalRestricted"`
	Scopes       []string        `json:"scopes"`
	ExpiresAt    *time.Time      `json:"expiresAt,omitempty"`
	Event        *uuid.UUID      `json:"cascadeId,omitempty"` // that found it
	DiscoveredAt time.Time       `json:"discoveredAt"`
	SeenAt       time.Time       `json:"seenAt"`
}

// Noted is the result of [Store.Note].
type Noted string

// The results.
const (
	NoteKnown     Noted = "known"     // registered, for any principal
	NoteUnmanaged Noted = "unmanaged" // listed as unmanaged
	NoteClaimed   Noted = "claimed"   // claimed for the principal that its label names
)

// ErrUnmanagedNotFound is returned when no unmanaged credential has the ID.
var ErrUnmanagedNotFound = fault.New(fault.NotFound, "no such unmanaged credential: "+
	"it may have been claimed already; run `leaver credential unmanaged`")

// Note stores a found credential as unmanaged, unless it is registered. A credential that was
// concluded since listed, when the listing began, counts as registered, since it was listed
// alive. It is claimed automatically only if it is trusted, as a downstream's label with the SCIM ID of
// the principal may be, and the principal is restricted; mints reports whether others are issued with those of a
// connector.
// Error: [ErrUnknownPrincipal], if the label names no principal of the tenant.
func (s *Store) Note(
	ctx context.Context, tenant uuid.UUID, event uuid.UUID, sequence int64, u Unregistered, listed time.Time, trusted bool,
	mints func(connector string) bool,
) (Noted, error) {
	noted := NoteUnmanaged
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var registered, known, gone bool
		err := tx.QueryRow(ctx, `
			select exists (select 1 from credentials where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4
			                  and (state in ('live', 'ending', 'failed', 'waived') or updated_at >= $6)),
			       exists (select 1 from resources where tenant_id = $1 and id = $5 and type in ('User', 'Agent')),
			       exists (select 1 from restrictions where tenant_id = $1 and principal_id = $5)`,
			tenant, u.Connector, u.Kind, u.Reference, u.Principal, listed).Scan(&registered, &known, &gone)
		switch {
		case err != nil:
			return err
		case registered:
			noted = NoteKnown
			return nil
		case !known:
			return ErrUnknownPrincipal
		}
		var id uuid.UUID
		err = tx.QueryRow(ctx, `
			insert into unmanaged as u (tenant_id, id, connector, kind, reference, principal_id, scopes, expires_at, event_id)
			values ($1, $2, $3, $4, $5, $6, coalesce($7::text[], '{}'), $8,
			  nullif($9, '00000000-0000-0000-0000-000000000000'::uuid))
			on conflict (tenant_id, connector, kind, reference) do update
			   set seen_at = now(), principal_id = excluded.principal_id, event_id = coalesce(excluded.event_id,
			     u.event_id), item_id = null
			returning id`,
			tenant, uuid.Must(uuid.NewV7()), u.Connector, u.Kind, u.Reference, u.Principal, u.Scopes, u.ExpiresAt,
			event).Scan(&id)
		if err != nil || !trusted || !gone {
			return err
		}
		noted = NoteClaimed
		_, err = s.claim(ctx, tx, tenant, id, *u.Principal, nil, sequence, mints)
		return err
	})
	if err != nil {
		return noted, fmt.Errorf("store credential found by connector %s: %w", u.Connector, err)
	}
	return noted, nil
}

// UnmanagedQuery selects unmanaged credentials, in the order of discovery.
type UnmanagedQuery struct {
	Event      *uuid.UUID  // found by this cascade
	Principals []uuid.UUID // named by the downstream's label; empty selects all
	After      uuid.UUID   // cursor: the last ID of the previous page
	Limit      int
}

// Unmanaged returns a page of unmanaged credentials.
func (s *Store) Unmanaged(ctx context.Context, tenant uuid.UUID, q UnmanagedQuery) ([]Unmanaged, error) {
	found, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Unmanaged], `
		select u.id, u.connector, u.kind, u.reference, u.principal_id,
		       exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = u.principal_id),
		       u.scopes, u.expires_at, u.event_id, u.discovered_at, u.seen_at
		  from unmanaged u where u.tenant_id = $1 and u.item_id is null and u.id > $2
		   and ($4::uuid is null or u.event_id = $4) and (coalesce(cardinality($5::uuid[]), 0) = 0
		     or u.principal_id = any ($5)) order by u.id limit $3`,
		tenant, q.After, q.Limit, q.Event, q.Principals)
	if err != nil {
		return nil, fmt.Errorf("list unmanaged credentials: %w", err)
	}
	return found, nil
}

// WithoutRegistration returns the found credentials that are not registered for any principal.
func (s *Store) WithoutRegistration(
	ctx context.Context, tenant uuid.UUID, found []Unregistered,
) ([]Unregistered, error) {
	var names, kinds, references []string
	for _, f := range found {
		names, kinds, references = append(names, f.Connector), append(kinds, string(f.Kind)), append(references, f.Reference)
	}
	known, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from credentials i where i.tenant_id = $1 and i.connector = f.c and i.kind = f.k
		  and i.reference = f.r
		   and i.state in ('live', 'ending', 'failed', 'waived'))
		  from unnest($2::text[], $3::text[], $4::text[]) with ordinality f (c, k, r, n) order by n`, tenant, names,
		kinds, references)
	if err != nil {
		return nil, fmt.Errorf("look up registrations of found credentials: %w", err)
	}
	var unmanaged []Unregistered
	for i, is := range known {
		if !is {
			unmanaged = append(unmanaged, found[i])
		}
	}
	return unmanaged, nil
}

// Claim claims an unmanaged credential for a principal, which may be restricted: the caller
// then starts a cascade that ends it. mints reports whether other credentials are issued with those of a connector.
// The item's history records by and reason.
// Errors: [ErrUnmanagedNotFound], [ErrUnknownPrincipal], [ErrDuplicate].
func (s *Store) Claim(ctx context.Context, tenant, id, principal uuid.UUID, agent *uuid.UUID,
	mints func(connector string) bool, by, reason string,
) (item *Item, restricted bool, err error) {
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := audit.Attribute(ctx, tx); err != nil {
			return err
		}
		for _, holder := range holdersOf(principal, agent) {
			var known bool
			if err := tx.QueryRow(ctx, `select exists (select 1 from resources where tenant_id = $1 and id = $2
				and type in ('User', 'Agent'))`,
				tenant, holder).Scan(&known); err != nil {
				return err
			}
			if !known {
				return fmt.Errorf("%w: %s", ErrUnknownPrincipal, holder)
			}
		}
		if item, err = s.claim(ctx, tx, tenant, id, principal, agent, 0, mints); err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, `update credentials set state = state, reason = $3 where tenant_id = $1 and id = $2`,
			tenant, item.ID, "claimed by "+by+": "+reason); err != nil {
			return err
		}
		restricted, err = isRestricted(ctx, tx, tenant, principal)
		if err == nil && !restricted && agent != nil {
			restricted, err = isRestricted(ctx, tx, tenant, *agent)
		}
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("claim unmanaged credential %s: %w", id, err)
	}
	return item, restricted, nil
}

// claim registers an unmanaged credential. A sequence other than 0 is stored as the item's
// sequence, so that the cascade that found it also ends it.
func (s *Store) claim(ctx context.Context, tx pgx.Tx, tenant, id, principal uuid.UUID, agent *uuid.UUID,
	sequence int64, mints func(connector string) bool,
) (*Item, error) {
	var u Unregistered
	err := tx.QueryRow(ctx, `
		select connector, kind, reference, scopes, expires_at from unmanaged where tenant_id = $1 and id = $2
		  and item_id is null for update`,
		tenant, id).Scan(&u.Connector, &u.Kind, &u.Reference, &u.Scopes, &u.ExpiresAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnmanagedNotFound
	}
	if err != nil {
		return nil, err
	}
	item, err := s.insert(ctx, tx, tenant, New{
		Principal: principal, Agent: agent, Kind: u.Kind, Connector: u.Connector, Reference: u.Reference,
		Scopes: u.Scopes, IssuedAt: time.Now().UTC(), ExpiresAt: u.ExpiresAt, Mints: mints(u.Connector),
	})
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `update unmanaged set item_id = $3 where tenant_id = $1 and id = $2`, tenant, id, item.ID)
	if err == nil && sequence > 0 {
		_, err = tx.Exec(ctx, `update credentials set sequence = $3 where tenant_id = $1 and id = $2`, tenant,
			item.ID, sequence)
	}
	return item, err
}
