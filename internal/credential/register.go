package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/mapping"
)

// New is the registration of a credential or scheduled run by a platform.
type New struct {
	Principal uuid.UUID
	Agent     *uuid.UUID
	Kind      connectors.Kind
	Connector string
	Reference string
	Secret    connectors.Secret // sealed before it is stored; empty if the connector needs none
	Shared    bool              // others rely on it: rotated instead of disabled
	// ReliedOnBy names the parties, other than the registered holders, that rely on it.
	ReliedOnBy  []string
	Entitlement string // that it was granted under
	Scopes      []string
	IssuedAt    time.Time
	ExpiresAt   *time.Time
	Mints       bool // other credentials are issued with it
}

// Register adds an item, unless the principal or the agent may not hold new credentials (I2).
// The check takes no lock that a deactivation waits for: the cascade waits for the
// registration, and then finds it.
// Errors: [ErrUnknownPrincipal], [ErrRestricted], [ErrNotEntitled], [ErrDuplicate], [ErrAccountEnding].
func (s *Store) Register(ctx context.Context, tenant uuid.UUID, n New) (*Item, error) {
	live, err := s.liveOf(ctx, tenant, n)
	if err != nil {
		return nil, err
	}
	var item *Item
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := audit.Attribute(ctx, tx); err != nil {
			return err
		}
		admission := newAdmission(tx, tenant, live)
		err := admission.lock(ctx, n)
		if err == nil {
			err = admission.admit(ctx, n)
		}
		if err != nil {
			return err
		}
		item, err = s.insert(ctx, tx, tenant, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	return item, nil
}

// HeldByOthers reports whether another principal has registered the same account.
func (s *Store) HeldByOthers(ctx context.Context, tenant uuid.UUID, n New) (bool, error) {
	held, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from credentials where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4
		   and principal_id <> $5 and state in ('live', 'ending', 'failed', 'waived'))`, tenant, n.Connector,
		n.Kind, n.Reference, n.Principal)
	if err != nil {
		return false, fmt.Errorf("look up other holders of %s: %w", n.Reference, err)
	}
	return held, nil
}

// Replace is like [Store.Register], but releases a live registration of the same credential
// first, for a caller that issues it again because a response was lost.
func (s *Store) Replace(ctx context.Context, tenant uuid.UUID, n New) (*Item, error) {
	var item *Item
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		admission := newAdmission(tx, tenant, nil)
		err := admission.lock(ctx, n)
		if err == nil {
			err = admission.admit(ctx, n)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			update credentials set state = 'released', secret = null, updated_at = now()
			 where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4 and principal_id = $5 and state = 'live'`,
			tenant, n.Connector, n.Kind, n.Reference, n.Principal)
		if err != nil {
			return err
		}
		item, err = s.insert(ctx, tx, tenant, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	return item, nil
}

// RefusedError is returned for a refused registration, one of several.
type RefusedError struct {
	Index int // from 0
	Cause error
}

func (e *RefusedError) Error() string { return fmt.Sprintf("registration %d: %v", e.Index, e.Cause) }

// Unwrap returns the cause, which is one of [Store.Register]'s errors.
func (e *RefusedError) Unwrap() error { return e.Cause }

// chunk is how many items one transaction registers. It bounds how long a cascade waits.
const chunk = 100

// CheckAll returns an error for each of the items that would be refused. It holds no locks.
func (s *Store) CheckAll(ctx context.Context, tenant uuid.UUID, items []New) (refused []*RefusedError, err error) {
	live, err := s.liveOf(ctx, tenant, items...)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(items))
	for from := 0; from < len(items); from += chunk {
		some := items[from:min(from+chunk, len(items))]
		err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
			taken, err := registered(ctx, tx, tenant, some)
			if err != nil {
				return err
			}
			check := newCheck(tx, tenant, live)
			for i, n := range some {
				err := check.admit(ctx, n)
				if err == nil && (taken[i] || seen[n.key()]) {
					err = ErrDuplicate
				}
				seen[n.key()] = true
				if err != nil && !isRefusal(err) {
					return err
				}
				if err != nil {
					refused = append(refused, &RefusedError{from + i, err})
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("check %d items: %w", len(items), err)
		}
	}
	return refused, nil
}

// key returns the values that must be unique among the items that are not ended.
func (n New) key() string {
	return strings.Join([]string{n.Connector, string(n.Kind), n.Reference, n.Principal.String()}, "\x1f")
}

// Registered reports for each item whether the same credential is registered and not ended.
func (s *Store) Registered(ctx context.Context, tenant uuid.UUID, items []New) (known []bool, err error) {
	for from := 0; from < len(items); from += chunk {
		err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
			some, err := registered(ctx, tx, tenant, items[from:min(from+chunk, len(items))])
			known = append(known, some...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look up registered credentials: %w", err)
		}
	}
	return known, nil
}

// registered reports for each item whether the same credential is registered and not ended.
func registered(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, items []New) ([]bool, error) {
	var named, kinds, references []string
	var principals []uuid.UUID
	for _, n := range items {
		named, kinds = append(named, n.Connector), append(kinds, string(n.Kind))
		references, principals = append(references, n.Reference), append(principals, n.Principal)
	}
	rows, err := tx.Query(ctx, `
		select exists (select 1 from credentials where tenant_id = $1 and connector = a.c and kind = a.k
		  and reference = a.r and principal_id = a.p
		   and state in ('live', 'ending', 'failed', 'waived'))
		  from unnest($2::text[], $3::text[], $4::text[], $5::uuid[]) with ordinality a (c, k, r, p, n) order by n`,
		tenant, named, kinds, references, principals)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[bool])
}

// RegisterAll registers all of the items, or none if any is refused, and returns an error
// for each refused item. It registers a limited number in a transaction, so that no cascade
// waits for all of them. If an item is refused late, because its principal was deactivated
// meanwhile, it releases those that it has registered.
func (s *Store) RegisterAll(ctx context.Context, tenant uuid.UUID, items []New) (refused []*RefusedError, err error) {
	if refused, err = s.CheckAll(ctx, tenant, items); err != nil || len(refused) > 0 {
		return refused, err
	}
	var done []uuid.UUID
	for from := 0; from < len(items); from += chunk {
		ids, late, err := s.registerSome(ctx, tenant, items[from:min(from+chunk, len(items))])
		if err == nil && late == nil {
			done = append(done, ids...)
			continue
		}
		undone := s.undo(context.WithoutCancel(ctx), tenant, done)
		if err = errors.Join(err, undone); err != nil {
			return nil, fmt.Errorf("register %d items: %w", len(items), err)
		}
		late.Index += from
		return []*RefusedError{late}, nil
	}
	return nil, nil
}

// registerSome registers items in one transaction, or none of them.
func (s *Store) registerSome(ctx context.Context, tenant uuid.UUID,
	items []New,
) (registered []uuid.UUID, refused *RefusedError, err error) {
	live, err := s.liveOf(ctx, tenant, items...)
	if err != nil {
		return nil, nil, err
	}
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := audit.Attribute(ctx, tx); err != nil {
			return err
		}
		admission := newAdmission(tx, tenant, live)
		if err := admission.lock(ctx, items...); err != nil {
			return err
		}
		for i, n := range items {
			var item *Item
			err := admission.admit(ctx, n)
			if err == nil {
				item, err = s.insert(ctx, tx, tenant, n)
			}
			if err != nil {
				return &RefusedError{i, err}
			}
			registered = append(registered, item.ID)
		}
		return nil
	})
	var late *RefusedError
	switch {
	case errors.As(err, &late) && isRefusal(late.Cause):
		return nil, late, nil
	case isRefusal(err): // an account is being ended
		return nil, &RefusedError{0, err}, nil
	}
	return registered, nil, err
}

// undo releases the items that an import registered before it was refused, except those that
// a cascade is already ending.
func (s *Store) undo(ctx context.Context, tenant uuid.UUID, items []uuid.UUID) error {
	return s.exec(ctx, tenant, "undo an import", `
		update credentials set state = 'released', reason = 'its import was refused', secret = null, updated_at = now()
		 where tenant_id = $1 and id = any ($2) and state = 'live'`, tenant, items)
}

func isRefusal(err error) bool {
	return errors.Is(err, ErrUnknownPrincipal) || errors.Is(err, ErrRestricted) || errors.Is(err, ErrDuplicate) ||
		errors.Is(err, ErrNotEntitled) ||
		errors.Is(err, ErrAccountEnding)
}

// insert writes one item. Error: [ErrDuplicate], which leaves the transaction usable.
func (s *Store) insert(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, n New) (*Item, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("generate an ID: %w", err)
	}
	var sealed []byte
	if n.Secret != "" {
		if sealed, err = s.sealer.Seal(tenant, id, []byte(n.Secret.Reveal())); err != nil {
			return nil, err
		}
	}
	rows, err := tx.Query(ctx, `
		insert into credentials (tenant_id, id, principal_id, agent_id, kind, connector, reference, secret, shared,
		  relied_on_by, entitlement, scopes, issued_at, expires_at, mints)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10::text[], '{}'), $11, coalesce($12::text[], '{}'), $13, $14,
		  $15)
		on conflict do nothing returning `+Columns,
		tenant, id, n.Principal, n.Agent, n.Kind, n.Connector, n.Reference, sealed, n.Shared, n.ReliedOnBy,
		n.Entitlement, n.Scopes, n.IssuedAt, n.ExpiresAt, n.Mints)
	if err != nil {
		return nil, err
	}
	item, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Item])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrDuplicate
	}
	return item, err
}

func holdersOf(principal uuid.UUID, agent *uuid.UUID) []uuid.UUID {
	if agent == nil || *agent == principal {
		return []uuid.UUID{principal}
	}
	return []uuid.UUID{principal, *agent}
}

// admission checks that each holder is a live, unrestricted principal, and that each agent
// has an active owner. It reads each holder once.
type admission struct {
	tx    pgx.Tx
	locks bool // keep the result valid until the transaction ends

	tenant uuid.UUID
	asked  map[uuid.UUID]holder
	live   map[uuid.UUID][]string // entitlements of the principals whose stored ones are invalidated
}

type holder struct {
	resourceType string
	refusal      error
}

// newAdmission returns an admission whose results are valid until the transaction ends.
func newAdmission(tx pgx.Tx, tenant uuid.UUID, live map[uuid.UUID][]string) *admission {
	return &admission{tx: tx, locks: true, tenant: tenant, asked: make(map[uuid.UUID]holder), live: live}
}

// newCheck returns an admission that locks nothing, and reports what would be refused now.
func newCheck(tx pgx.Tx, tenant uuid.UUID, live map[uuid.UUID][]string) *admission {
	return &admission{tx: tx, tenant: tenant, asked: make(map[uuid.UUID]holder), live: live}
}

// liveOf evaluates the entitlements of the principals whose stored entitlements are
// invalidated. If such an entitlement is lost before it is stored, the pending evaluation ends
// the credentials that were registered under it.
func (s *Store) liveOf(ctx context.Context, tenant uuid.UUID, items ...New) (map[uuid.UUID][]string, error) {
	principals := underEntitlements(items)
	live := make(map[uuid.UUID][]string)
	if len(principals) == 0 {
		return live, nil
	}
	invalidated, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		select distinct p from unnest($2::uuid[]) p where exists (select 1 from resources
		    where tenant_id = $1 and id = p and type in ('User', 'Agent') and deleted_at is null)
		      and entitlements_stale($1, p)`,
		tenant, principals)
	if err != nil {
		return nil, fmt.Errorf("look up invalidations: %w", err)
	}
	for _, id := range invalidated {
		if live[id], err = s.entitlements.Live(ctx, tenant, id); err != nil {
			return nil, err
		}
	}
	return live, nil
}

// underEntitlements returns the principals of the items that are granted under entitlements.
func underEntitlements(items []New) []uuid.UUID {
	var principals []uuid.UUID
	for _, n := range items {
		if mapping.IsEntitlement(n.Entitlement) {
			principals = append(principals, n.Principal)
		}
	}
	return principals
}

// lock blocks, until the transaction ends, the cascades of all holders, attempts at the
// accounts, and evaluations of the holders' entitlements, each in a fixed order to prevent
// deadlocks. An evaluation that removes an entitlement waits, and then finds the registration.
func (a *admission) lock(ctx context.Context, items ...New) error {
	var holders []uuid.UUID
	for _, n := range items {
		holders = append(holders, holdersOf(n.Principal, n.Agent)...)
	}
	if err := a.all(ctx, holders); err != nil && !isRefusal(err) {
		return err
	}
	if err := lockAccounts(ctx, a.tx, a.tenant, items...); err != nil {
		return err
	}
	principals := underEntitlements(items)
	if len(principals) == 0 {
		return nil
	}
	_, err := a.tx.Exec(ctx, `
		select 1 from evaluations where tenant_id = $1 and principal_id = any ($2)
		  order by principal_id for share`, a.tenant, principals)
	return err
}

// admit returns an error if the principal or the agent of a registration may not hold it.
// The registration must be locked.
func (a *admission) admit(ctx context.Context, n New) error {
	if err := a.all(ctx, holdersOf(n.Principal, n.Agent)); err != nil {
		return err
	}
	if n.Agent != nil && a.asked[*n.Agent].resourceType != directory.TypeAgent {
		return fmt.Errorf("%w: %s is not an agent", ErrUnknownPrincipal, *n.Agent)
	}
	if mapping.IsEntitlement(n.Entitlement) {
		return a.entitled(ctx, n.Principal, n.Entitlement)
	}
	return nil
}

// entitled returns [ErrNotEntitled] if the principal lacks an entitlement. It uses the
// evaluated entitlements if the stored ones are invalidated. If the tenant has no rules, every
// principal passes.
func (a *admission) entitled(ctx context.Context, principal uuid.UUID, name string) error {
	if live, invalidated := a.live[principal]; invalidated {
		// Checked again under the lock: an evaluation that was committed in the meantime is
		// newer than live.
		if err := a.tx.QueryRow(ctx, `select entitlements_stale($1, $2)`, a.tenant,
			principal).Scan(&invalidated); err != nil {
			return err
		}
		if invalidated && slices.Contains(live, name) {
			return nil
		}
		if invalidated {
			return fmt.Errorf("%w: %s has no %s", ErrNotEntitled, principal, name)
		}
	}
	var held bool
	err := a.tx.QueryRow(ctx, `
		select exists (select 1 from entitlements where tenant_id = $1 and principal_id = $2 and name = $3)
		    or not exists (select 1 from mappings where tenant_id = $1)`, a.tenant, principal, name).Scan(&held)
	if err == nil && !held {
		err = fmt.Errorf("%w: %s has no %s", ErrNotEntitled, principal, name)
	}
	return err
}

// all checks each holder and returns the first refusal. It uses a fixed order, so that two
// registrations do not deadlock.
func (a *admission) all(ctx context.Context, holders []uuid.UUID) error {
	slices.SortFunc(holders, func(x, y uuid.UUID) int { return bytes.Compare(x[:], y[:]) })
	var refusal error
	for _, id := range slices.Compact(holders) {
		h, ok := a.asked[id]
		if !ok {
			resourceType, err := a.ask(ctx, id)
			if err != nil && !isRefusal(err) {
				return err
			}
			h = holder{resourceType, err}
			a.asked[id] = h
		}
		if refusal == nil {
			refusal = h.refusal
		}
	}
	return refusal
}

func (a *admission) ask(ctx context.Context, id uuid.UUID) (resourceType string, err error) {
	if err := a.lockPrincipal(ctx, id); err != nil {
		return "", err
	}
	// A separate statement after the lock: either it sees a deactivation, or the cascade of
	// the deactivation waits.
	party := authzen.Party{ID: id, Owned: true}
	err = a.tx.QueryRow(ctx, `
		select r.type, exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = $2),
		  coalesce(r.valid_until <= now(), false)
		  from resources r where r.tenant_id = $1 and r.id = $2 and r.deleted_at is null and r.type in ('User', 'Agent')`,
		a.tenant, id).Scan(&party.Type, &party.Restricted, &party.Expired)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("%w: %s", ErrUnknownPrincipal, id)
	}
	if err == nil && party.Type == directory.TypeAgent && party.Refusal() == "" {
		party.Owned, err = a.lockActiveOwner(ctx, id)
	}
	if err != nil {
		return "", err
	}
	switch party.Refusal() {
	case "":
		return party.Type, nil
	case authzen.AgentExpired:
		return party.Type, fmt.Errorf("%w: the validity of agent %s has ended", ErrRestricted, id)
	case authzen.OwnerGone:
		return party.Type, fmt.Errorf("%w: agent %s has no active owner", ErrRestricted, id)
	default:
		return party.Type, fmt.Errorf("%w: %s", ErrRestricted, id)
	}
}

// lockPrincipal makes the principal's cascades wait until the transaction ends. A deactivation
// does not wait for it.
func (a *admission) lockPrincipal(ctx context.Context, id uuid.UUID) error {
	if !a.locks {
		return nil
	}
	_, err := a.tx.Exec(ctx, `select pg_advisory_xact_lock_shared(lock_key($1,
		array['principal', $2::uuid::text]))`, a.tenant, id)
	return err
}

// lockActiveOwner selects an active owner of the agent, if it has one, and makes the
// owner's cascade wait until the transaction ends. If the owner was deactivated meanwhile,
// it selects another.
func (a *admission) lockActiveOwner(ctx context.Context, agent uuid.UUID) (owned bool, err error) {
	for {
		var owner *uuid.UUID
		if err := a.tx.QueryRow(ctx, `select active_owner($1, $2, null)`, a.tenant,
			agent).Scan(&owner); err != nil || owner == nil {
			return false, err
		}
		if err := a.lockPrincipal(ctx, *owner); err != nil {
			return false, err
		}
		restricted, err := isRestricted(ctx, a.tx, a.tenant, *owner)
		if err != nil || !restricted {
			return true, err
		}
	}
}

func isRestricted(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID) (bool, error) {
	var restricted bool
	err := tx.QueryRow(ctx, `select exists (select 1 from restrictions where tenant_id = $1 and principal_id = $2)`,
		tenant, principal).
		Scan(&restricted)
	return restricted, err
}
