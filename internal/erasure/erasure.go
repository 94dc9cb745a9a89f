// Package erasure erases what names a person who has left, and the texts of evidence that a tenant no longer keeps. The
// hash chain stays verifiable: erased texts leave their digest, and a later record says what was erased, and why.
package erasure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/fault"
)

// The errors of this package.
var (
	ErrNotDeleted = fault.New(fault.Conflict, "the user is not deleted: delete it at the identity provider first")
	// ErrTooSoon is returned until tokens that name the user cannot be alive any more, which its names are needed to deny.
	ErrTooSoon = fault.New(fault.Conflict,
		"the user was deleted less than 30 days ago: its names deny old tokens until then")
	ErrHolds = fault.New(fault.Conflict, "credentials of the user, or of its cascades, are not proven to be ended: "+
		"re-run its cascades, wait until waivers end, and claim or release what is unmanaged")
	ErrOpen = fault.New(fault.Conflict, "a cascade of the user is open, failed or not archived, or a receiver has not "+
		"taken its events: see `leaver cascade list` and `leaver stream list`")
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

// User erases the names, attributes and references of a deleted user, and the texts of the records about it. It returns
// the number of these records. Errors: [directory.ErrNotFound], [ErrNotDeleted], [ErrTooSoon], [ErrHolds], [ErrOpen],
// [ErrLegalHold].
func (s *Store) User(ctx context.Context, tenant, user uuid.UUID, reason string) (records int, err error) {
	if err := s.chain.Extend(ctx, tenant); err != nil { // so that nothing about it waits to be chained
		return 0, err
	}
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := s.mayErase(ctx, tx, tenant, user); err != nil {
			return err
		}
		chosen, err := about(ctx, tx, tenant, user)
		if err != nil {
			return err
		}
		by := evidence.Erasure{Principal: &user, Actor: audit.Actor(ctx), Reason: reason}
		if records, err = s.erase(ctx, tx, tenant, by, chosen); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `select erase_principal($1, $2)`, tenant, user); err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.PrincipalErase, user.String(), nil, nil)
	})
	if err != nil {
		return 0, fmt.Errorf("erase user %s: %w", user, held(err))
	}
	return records, nil
}

// member is what the hashed part of a record says about its subject and its time.
type member struct {
	Event  uuid.UUID `json:"event_id"`
	Item   uuid.UUID `json:"item_id"`
	Object string    `json:"object"`
	At     time.Time `json:"at"`
}

// choose returns the numbers of the entries of which their hashed records say that they are to be erased: the columns
// that find them are not part of the hash.
func choose(rows pgx.Rows, erases func(m member) bool) ([]int64, error) {
	var chosen []int64
	var sequence int64
	var record []byte
	_, err := pgx.ForEachRow(rows, []any{&sequence, &record}, func() error {
		var m member
		if err := json.Unmarshal(record, &m); err != nil {
			return fmt.Errorf("decode record %d: %w", sequence, err)
		}
		if erases(m) {
			chosen = append(chosen, sequence)
		}
		return nil
	})
	return chosen, err
}

// about returns the entries with texts that are about a user.
func about(ctx context.Context, tx pgx.Tx, tenant, user uuid.UUID) ([]int64, error) {
	var events, items []uuid.UUID
	err := tx.QueryRow(ctx, `
		select array(select id from lifecycle_events where tenant_id = $1 and principal_id = $2),
		       array(select id from credentials where tenant_id = $1 and principal_id = $2)`, tenant, user).
		Scan(&events, &items)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		select sequence, record from evidence_chain where tenant_id = $1 and texts is not null and event_id = any ($2)
		union
		select sequence, record from evidence_chain where tenant_id = $1 and texts is not null and item_id = any ($3)`,
		tenant, events, items)
	if err != nil {
		return nil, err
	}
	of := make(map[uuid.UUID]bool)
	for _, id := range append(events, items...) {
		of[id] = true
	}
	return choose(rows, func(m member) bool {
		object, err := uuid.Parse(m.Object)
		return of[m.Event] || of[m.Item] || err == nil && of[object]
	})
}

// held returns [ErrLegalHold] for the database's refusal to erase: the hold was set meanwhile.
func held(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42501" { // insufficient_privilege
		return ErrLegalHold
	}
	return err
}

// mayErase locks a user, and returns an error unless it may be erased.
func (s *Store) mayErase(ctx context.Context, tx pgx.Tx, tenant, user uuid.UUID) error {
	var hold string
	var deleted, longAgo bool
	err := tx.QueryRow(ctx, `
		select t.legal_hold, r.deleted_at is not null, coalesce(r.deleted_at < now() - interval '30 days', false)
		  from resources r join tenants t on t.id = r.tenant_id
		 where r.tenant_id = $1 and r.id = $2 and r.type = 'User' for update of r`, tenant, user).
		Scan(&hold, &deleted, &longAgo)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return directory.ErrNotFound
	case err != nil:
		return err
	case hold != "":
		return ErrLegalHold
	case !deleted:
		return ErrNotDeleted
	case !longAgo:
		return ErrTooSoon
	}
	var holds, open bool
	err = tx.QueryRow(ctx, `
		with events as (select id, kind, ends, closed_at, archived_at, outcome, not_asked from lifecycle_events
		                 where tenant_id = $1 and principal_id = $2)
		select exists (select 1 from credentials
		                where tenant_id = $1 and (principal_id = $2 or event_id = any (array(select id from events)))
		                  and (state in ('live', 'ending', 'failed', 'waived')
		                       or state = 'expiring' and expiry_probed_at is null))
		       or exists (select 1 from unmanaged where tenant_id = $1 and item_id is null
		                   and (principal_id = $2 or event_id = any (array(select id from events)))),
		       exists (select 1 from events where (kind = 'leaver' or ends)
		                and (closed_at is null or archived_at is null or archived_at < closed_at
		                     or outcome = 'failed' or not_asked <> '[]'))
		       or exists (select 1 from signals where tenant_id = $1 and principal_id = $2 and settled_at is null)`,
		tenant, user).Scan(&holds, &open)
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

// erase erases the texts of entries, records that it did, and returns the number of those that had texts.
func (s *Store) erase(
	ctx context.Context, tx pgx.Tx, tenant uuid.UUID, by evidence.Erasure, entries []int64,
) (int, error) {
	var erased []int64
	if err := tx.QueryRow(ctx, `select erase_records($1, $2)`, tenant, entries).Scan(&erased); err != nil {
		return 0, err
	}
	if len(erased) == 0 && by.Principal == nil { // another process was faster
		return 0, nil
	}
	slices.Sort(erased)
	by.Records = ranges(erased)
	return len(erased), s.chain.RecordErasure(ctx, tx, tenant, by)
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

// Expire erases the texts and histories that are older than their tenant's retention. It returns the number of records
// whose texts it erased.
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
				failed = errors.Join(failed, fmt.Errorf("erase records of tenant %s: %w", t.Tenant, held(err)))
			}
			if erased < expireBatch {
				break
			}
		}
	}
	return n, failed
}

// expire erases the texts of a batch of a tenant's records, and its histories.
func (s *Store) expire(ctx context.Context, tenant uuid.UUID, days int) (n int, err error) {
	older := time.Now().AddDate(0, 0, -days)
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select sequence, record from evidence_chain where tenant_id = $1 and texts is not null and chained_at < $2
			 order by sequence limit $3`, tenant, older, expireBatch)
		if err != nil {
			return err
		}
		entries, err := choose(rows, func(m member) bool { return m.At.Before(older) })
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `select erase_histories($1, $2)`, tenant, older); err != nil || len(entries) == 0 {
			return err
		}
		by := evidence.Erasure{Actor: retentionActor, Reason: fmt.Sprintf("older than %d days", days)}
		n, err = s.erase(ctx, tx, tenant, by, entries)
		return err
	})
	if err != nil {
		n = 0
	}
	return n, err
}
