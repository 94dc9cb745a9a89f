// Package erasure erases what names a person who has left, and the texts of evidence that a tenant no longer keeps. The
// hash chain stays verifiable: an erased record leaves its digest, and a later record says what was erased, and why.
package erasure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/fault"
)

// The errors of this package.
var (
	ErrNotDeleted = fault.New(fault.Conflict, "the principal is not deleted: delete it at the identity provider first")
	ErrHolds      = fault.New(fault.Conflict,
		"the principal has credentials that are not ended: re-run its cascade, or wait until a waiver ends")
	ErrOpen = fault.New(fault.Conflict,
		"a cascade of the principal is open, or not archived yet: wait, and see `leaver cascade list`")
	ErrLegalHold = fault.New(fault.Conflict, "the tenant has a legal hold: an approver lifts it with "+
		"`leaver tenant set --legal-hold \"\"`")
)

const (
	expirePoll  = time.Hour
	expireBatch = 1000 // entries of one transaction
	// retentionActor is the actor of erasures by a tenant's retention.
	retentionActor = "leaver"
)

// Store erases.
type Store struct {
	db    *database.DB
	chain *evidence.Chain
}

// NewStore returns the store on db, which erases from chain.
func NewStore(db *database.DB, chain *evidence.Chain) *Store { return &Store{db, chain} }

// Erased is the result of an erasure.
type Erased struct {
	Records int `json:"records"` // entries of the chain whose content was erased
	// Kept are entries that were chained before leaver could erase them.
	Kept int `json:"kept"`
}

// Principal erases the names, attributes and references of a deleted principal, and the content of the records about
// it. Errors: [directory.ErrNotFound], [ErrNotDeleted], [ErrHolds], [ErrOpen], [ErrLegalHold].
func (s *Store) Principal(ctx context.Context, tenant, principal uuid.UUID, reason string) (Erased, error) {
	if err := s.chain.Extend(ctx, tenant); err != nil { // so that nothing about it waits to be chained
		return Erased{}, err
	}
	var result Erased
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := s.mayErase(ctx, tx, tenant, principal); err != nil {
			return err
		}
		var chosen []int64
		err := tx.QueryRow(ctx, `
			with held as (select id from credentials where tenant_id = $1 and principal_id = $2),
			     events as (select id from lifecycle_events where tenant_id = $1 and principal_id = $2),
			     about as (
			       select c.sequence, c.digest from evidence_chain c cross join lateral (select c.record::jsonb) r (record)
			        where c.tenant_id = $1 and c.record is not null
			          and c.source in ('evidence', 'acts', 'credential_states', 'cascade_histories')
			          and (r.record ->> 'event_id' in (select id::text from events)
			               or r.record ->> 'item_id' in (select id::text from held)))
			select coalesce(array_agg(sequence order by sequence) filter (where digest is not null), '{}'),
			       count(*) filter (where digest is null) from about`, tenant, principal).Scan(&chosen, &result.Kept)
		if err != nil {
			return err
		}
		result.Records, err = erase(ctx, tx, tenant, &principal, audit.Actor(ctx), reason, chosen)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `select erase_principal($1, $2)`, tenant, principal); err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.PrincipalErase, principal.String(), nil, result)
	})
	if err != nil {
		return Erased{}, fmt.Errorf("erase principal %s: %w", principal, err)
	}
	return result, s.chain.Extend(ctx, tenant)
}

// mayErase locks a principal, and returns an error unless it may be erased.
func (s *Store) mayErase(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID) error {
	var hold string
	var deleted bool
	err := tx.QueryRow(ctx, `
		select t.legal_hold, r.deleted_at is not null from resources r join tenants t on t.id = r.tenant_id
		 where r.tenant_id = $1 and r.id = $2 and r.type in ('User', 'Agent') for update of r`, tenant, principal).
		Scan(&hold, &deleted)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return directory.ErrNotFound
	case err != nil:
		return err
	case hold != "":
		return ErrLegalHold
	case !deleted:
		return ErrNotDeleted
	}
	var holds, open bool
	err = tx.QueryRow(ctx, `
		select exists (select 1 from credentials where tenant_id = $1 and principal_id = $2
		                and state in ('live', 'ending', 'failed', 'waived')),
		       exists (select 1 from lifecycle_events where tenant_id = $1 and principal_id = $2
		                and (kind = 'leaver' or ends) and (closed_at is null or archived_at is null))`,
		tenant, principal).Scan(&holds, &open)
	switch {
	case err != nil:
		return err
	case open:
		return ErrOpen
	case holds:
		return ErrHolds
	}
	return nil
}

// erase erases entries, stores that it did, and returns the number of those that were not erased before. principal is
// nil for a retention.
func erase(
	ctx context.Context, tx pgx.Tx, tenant uuid.UUID, principal *uuid.UUID, actor, reason string, entries []int64,
) (int, error) {
	var erased []int64
	if err := tx.QueryRow(ctx, `select erase_records($1, $2)`, tenant, entries).Scan(&erased); err != nil {
		return 0, err
	}
	slices.Sort(erased)
	_, err := tx.Exec(ctx, `
		insert into erasures (tenant_id, id, principal_id, actor, reason, records) values ($1, $2, $3, $4, $5, $6)`,
		tenant, uuid.Must(uuid.NewV7()), principal, actor, reason, ranges(erased))
	return len(erased), err
}

// ranges returns ascending numbers as ranges with both ends.
func ranges(numbers []int64) [][2]int64 {
	found := [][2]int64{}
	for _, n := range numbers {
		if last := len(found) - 1; last >= 0 && found[last][1] == n-1 {
			found[last][1] = n
			continue
		}
		found = append(found, [2]int64{n, n})
	}
	return found
}

// Run erases what the tenants' retention no longer keeps, until ctx is done. Several processes may run it.
func (s *Store) Run(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		if n, err := s.Expire(ctx); err != nil && ctx.Err() == nil {
			log.Warn("failed to erase expired evidence; retrying", "error", err)
		} else if n > 0 {
			log.Info("erased expired evidence", "records", n)
		}
		select {
		case <-ctx.Done():
		case <-time.After(expirePoll):
		}
	}
}

// Expire erases the content of the records that are older than their tenant's retention, and returns their number.
func (s *Store) Expire(ctx context.Context) (n int, err error) {
	type kept struct {
		Tenant uuid.UUID
		Days   int
	}
	tenants, err := database.Rows(ctx, s.db, uuid.Nil, pgx.RowToStructByPos[kept],
		`select id, evidence_days from tenants where evidence_days is not null and legal_hold = ''`)
	if err != nil {
		return 0, fmt.Errorf("list tenants with a retention: %w", err)
	}
	var failed error
	for _, t := range tenants {
		for {
			erased, err := s.expire(ctx, t.Tenant, t.Days)
			n += erased
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("erase records of tenant %s: %w", t.Tenant, err))
			}
			if erased < expireBatch {
				break
			}
		}
	}
	return n, failed
}

// expire erases a batch of a tenant's records.
func (s *Store) expire(ctx context.Context, tenant uuid.UUID, days int) (n int, err error) {
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select sequence from evidence_chain
			 where tenant_id = $1 and record is not null and digest is not null
			   and source in ('evidence', 'acts', 'credential_states', 'cascade_histories')
			   and chained_at < now() - make_interval(days => $2)
			 order by sequence limit $3`, tenant, days, expireBatch)
		if err != nil {
			return err
		}
		entries, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(entries) == 0 {
			return err
		}
		n, err = erase(ctx, tx, tenant, nil, retentionActor, fmt.Sprintf("older than %d days", days), entries)
		return err
	})
	if err != nil {
		n = 0
	}
	return n, err
}
