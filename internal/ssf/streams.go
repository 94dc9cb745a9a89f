package ssf

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

const streamColumns = `id, issuer, audience, method = 'push', endpoint, requested, events, description, status, reason,
	created_by, created_at, last_error, last_error_at, subject_format, subject_issuer`

func scanStream(row pgx.CollectableRow) (Stream, error) {
	var s Stream
	err := row.Scan(s.fields()...)
	return s, err
}

// fields returns the scan destinations of streamColumns.
func (s *Stream) fields() []any {
	return []any{
		&s.ID, &s.Issuer, &s.Audience, &s.Push, &s.Endpoint, &s.Requested, &s.Events, &s.Description, &s.Status, &s.Reason,
		&s.CreatedBy, &s.CreatedAt, &s.LastError, &s.LastErrorAt, &s.SubjectFormat,
		&s.SubjectIssuer,
	}
}

func method(push bool) string {
	if push {
		return "push"
	}
	return "poll"
}

// Create adds a stream. Error: [ErrTooMany].
func (s *Store) Create(ctx context.Context, tenant uuid.UUID, n Stream) (Stream, error) {
	n.ID = uuid.New()
	sealed, err := s.sealHeader(tenant, n)
	if err != nil {
		return Stream{}, err
	}
	created, err := database.Row(ctx, s.db, tenant, scanStream, `
		insert into streams (
		  tenant_id, id, issuer, audience, method, endpoint, authorization_header, requested, events, description, created_by,
		  subject_format, subject_issuer)
		select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $13, $14
		 where (select count(*) from streams where tenant_id = $1) < $12
		returning `+streamColumns, tenant, n.ID, n.Issuer, n.Audience, method(n.Push), n.Endpoint, sealed,
		orEmpty(n.Requested), delivered(n.Requested), n.Description, n.CreatedBy, maxStreams, n.SubjectFormat,
		n.SubjectIssuer)
	if errors.Is(err, pgx.ErrNoRows) {
		return Stream{}, ErrTooMany
	}
	if err != nil {
		return Stream{}, fmt.Errorf("create a stream: %w", err)
	}
	return created, nil
}

func (s *Store) sealHeader(tenant uuid.UUID, n Stream) ([]byte, error) {
	if n.Header == "" {
		return nil, nil
	}
	return s.sealer.Seal(tenant, n.ID, []byte(n.Header.Reveal()))
}

func collectStream(rows pgx.Rows) (Stream, error) { return pgx.CollectExactlyOneRow(rows, scanStream) }

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// Streams lists a tenant's streams.
func (s *Store) Streams(ctx context.Context, tenant uuid.UUID) ([]Stream, error) {
	streams, err := database.Rows(ctx, s.db, tenant, scanStream, `
		select `+streamColumns+` from streams where tenant_id = $1 order by created_at, id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	return streams, nil
}

// Get returns a stream. Error: [ErrStreamNotFound].
func (s *Store) Get(ctx context.Context, tenant, id uuid.UUID) (Stream, error) {
	return s.one(ctx, tenant, `select `+streamColumns+` from streams where tenant_id = $1 and id = $2`, tenant, id)
}

func (s *Store) one(ctx context.Context, tenant uuid.UUID, sql string, args ...any) (Stream, error) {
	stream, err := database.Row(ctx, s.db, tenant, scanStream, sql, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Stream{}, ErrStreamNotFound
	}
	if err != nil {
		return Stream{}, fmt.Errorf("read or write a stream: %w", err)
	}
	return stream, nil
}

// Update replaces the members of a stream that a receiver may change. Without a new header, the stored
// one is kept if the endpoint is unchanged, and deleted otherwise.
// Error: [ErrStreamNotFound].
func (s *Store) Update(ctx context.Context, tenant uuid.UUID, n Stream) (Stream, error) {
	sealed, err := s.sealHeader(tenant, n)
	if err != nil {
		return Stream{}, err
	}
	return s.one(ctx, tenant, `
		update streams set method = $3, endpoint = $4, requested = $6, events = $7, description = $8,
		       subject_format = $9, subject_issuer = $10,
		       authorization_header = case when $5::bytea is not null then $5 when endpoint = $4 then authorization_header end
		 where tenant_id = $1 and id = $2 returning `+streamColumns,
		tenant, n.ID, method(n.Push), n.Endpoint, sealed, orEmpty(n.Requested), delivered(n.Requested), n.Description,
		n.SubjectFormat, n.SubjectIssuer)
}

// SetStatus pauses, disables or enables a stream. Error: [ErrStreamNotFound].
func (s *Store) SetStatus(ctx context.Context, tenant, id uuid.UUID, status Status, reason string) (Stream, error) {
	return s.one(ctx, tenant, `
		with dropped as ( -- a disabled stream has no undelivered signals
		  update signals set settled_at = now(), outcome = 'expired'
		   where $3 = 'disabled' and tenant_id = $1 and stream_id = $2 and settled_at is null)
		update streams set status = $3, reason = $4, claimed_until = null
		 where tenant_id = $1 and id = $2 returning `+streamColumns, tenant, id, status, reason)
}

// Delete deletes a stream. Its undelivered signals are swept. Error: [ErrStreamNotFound].
func (s *Store) Delete(ctx context.Context, tenant, id uuid.UUID) error {
	_, err := s.one(ctx, tenant,
		`delete from streams where tenant_id = $1 and id = $2 returning `+streamColumns, tenant, id)
	return err
}

// minVerification is the minimum interval of the verifications that a receiver asks for.
const minVerification = 10 * time.Second

// ErrVerifiedRecently is returned for a verification before minVerification has passed.
var ErrVerifiedRecently = fault.NewRetryable(fault.Throttled, minVerification,
	"the stream was verified within its min_verification_interval: try again later")

// Verify queues a verification event after the undelivered signals.
// Errors: [ErrStreamNotFound], [ErrVerifiedRecently].
func (s *Store) Verify(ctx context.Context, tenant, id uuid.UUID, state string) error {
	event := map[string]string{}
	if state != "" {
		event["state"] = state
	}
	var known, queued bool
	err := database.Together(ctx, s.db, tenant, database.Statement{
		SQL: `
			with known as (
			  select id, verified_at from streams where tenant_id = $1 and id = $2 and status <> 'disabled' for update),
			due as (
			  update streams s set verified_at = now() from known k
			   where s.tenant_id = $1 and s.id = k.id and (k.verified_at is null or k.verified_at < now() - $5::interval)
			  returning s.id),
			queued as (
			  insert into signals (tenant_id, stream_id, type, event, once)
			  select $1, id, $3, $4, 'verification/' || gen_random_uuid() from due returning 1),
			notified as (select pg_notify('` + channel + `', '') from queued)
			select exists (select 1 from known), exists (select 1 from queued) from (select count(*) from notified) n`,
		Args: []any{tenant, id, VerificationEvent, event, minVerification}, Collect: database.Fields(&known, &queued),
	})
	switch {
	case err != nil:
		return fmt.Errorf("queue a verification: %w", err)
	case !known:
		return ErrStreamNotFound
	case !queued:
		return ErrVerifiedRecently
	}
	return nil
}

// Remove stops the events about a principal on a stream.
func (s *Store) Remove(ctx context.Context, tenant, stream, principal uuid.UUID) error {
	err := database.Exec(ctx, s.db, tenant, `
		insert into stream_removals (tenant_id, stream_id, principal_id) values ($1, $2, $3)
		on conflict do nothing`, tenant, stream, principal)
	if err != nil {
		return fmt.Errorf("remove a subject: %w", err)
	}
	return nil
}

// Restore sends the events about a principal that was removed from a stream again.
func (s *Store) Restore(ctx context.Context, tenant, stream, principal uuid.UUID) error {
	err := database.Exec(ctx, s.db, tenant, `
		delete from stream_removals where tenant_id = $1 and stream_id = $2 and principal_id = $3`,
		tenant, stream, principal)
	if err != nil {
		return fmt.Errorf("add a subject: %w", err)
	}
	return nil
}

// Opened is a stream with its decrypted Authorization header.
type Opened struct {
	Stream
	Header connectors.Secret
}

// Open returns a stream with its header. One statement reads both, so that a header is not used for
// another endpoint than it was set for. Error: [ErrStreamNotFound].
func (s *Store) Open(ctx context.Context, tenant, id uuid.UUID) (Opened, error) {
	var sealed []byte
	stream, err := database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (Stream, error) {
		var stream Stream
		err := row.Scan(append(stream.fields(), &sealed)...)
		return stream, err
	}, `select `+streamColumns+`, authorization_header from streams where tenant_id = $1 and id = $2`, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Opened{}, ErrStreamNotFound
	}
	if err != nil {
		return Opened{}, fmt.Errorf("open a stream: %w", err)
	}
	if sealed == nil {
		return Opened{Stream: stream}, nil
	}
	header, err := s.sealer.Open(tenant, id, sealed)
	return Opened{stream, connectors.Secret(header)}, err
}

// Assign assigns a stream to another receiver's token, for example after the previous one was revoked.
// Error: [ErrStreamNotFound].
func (s *Store) Assign(ctx context.Context, tenant, id uuid.UUID, to string) (Stream, error) {
	var after Stream
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var before string
		err := tx.QueryRow(ctx, `
			select created_by from streams where tenant_id = $1 and id = $2 for update`, tenant, id).Scan(&before)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrStreamNotFound
		}
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			update streams set created_by = $3 where tenant_id = $1 and id = $2 returning `+streamColumns, tenant, id, to)
		if err != nil {
			return err
		}
		if after, err = collectStream(rows); err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.StreamAssign, id.String(), before, to)
	})
	if err != nil {
		return Stream{}, fmt.Errorf("assign stream %s: %w", id, err)
	}
	return after, nil
}
