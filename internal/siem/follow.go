package siem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
)

const (
	followPoll = 2 * time.Second
	// followLease is how long a process has a chain, and followRetry how long a chain waits after a failure.
	followLease = 30 * time.Second
	followRetry = 5 * time.Second
	followBatch = 100 // events of one request
)

// Follower sends what is added to the chains to a sink. A sink that is down delays nothing but itself: the chains are
// its queue.
type Follower struct {
	db    *database.DB
	chain *evidence.Chain
	sink  Sink
	name  string // of the sink, by which its positions are stored
}

// NewFollower returns the follower of the chains for a sink. name identifies the sink: with another name, everything
// is sent again.
func NewFollower(db *database.DB, chain *evidence.Chain, sink Sink, name string) *Follower {
	return &Follower{db, chain, sink, name}
}

// Run sends until ctx is done. Several processes may run it.
func (f *Follower) Run(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		n, err := f.SendDue(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("failed to send evidence to the audit sink; retrying", "error", err)
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(followPoll):
		}
	}
}

// position is what a sink has confirmed of a chain.
type position struct {
	Tenant   uuid.UUID
	Sequence int64
}

// SendDue sends the next records of a chain that is due, and returns their number. It claims one chain, so that the
// lease does not end before the records are sent.
func (f *Follower) SendDue(ctx context.Context) (int, error) {
	due, err := database.Rows(ctx, f.db, uuid.Nil, pgx.RowToStructByPos[position],
		`select tenant_id, sequence from claim_audit($1, $2)`, f.name, followLease)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	n, err := f.send(ctx, due[0])
	if err != nil {
		err = errors.Join(err, f.note(ctx, due[0].Tenant, err))
	}
	return n, err
}

// send sends the next records of a chain.
func (f *Follower) send(ctx context.Context, p position) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, followLease/2)
	defer cancel()
	entries, err := f.chain.Entries(ctx, p.Tenant, p.Sequence, followBatch)
	if err != nil || len(entries) == 0 {
		return 0, err
	}
	events := make([]Event, len(entries))
	for i, entry := range entries {
		if events[i], err = EventOf(entry); err != nil {
			return 0, err
		}
	}
	if err := f.sink.Send(ctx, events); err != nil {
		return 0, err
	}
	last := entries[len(entries)-1].Entry.Sequence
	err = database.Exec(ctx, f.db, p.Tenant, `
		update audit_positions set sequence = greatest(sequence, $3), claimed_until = null, failed_at = null, failure = ''
		 where tenant_id = $1 and sink = $2`, p.Tenant, f.name, last)
	if err != nil {
		return 0, fmt.Errorf("store what the audit sink has confirmed: %w", err)
	}
	return len(entries), nil
}

// note stores a failure, and when the chain is tried again.
func (f *Follower) note(ctx context.Context, tenant uuid.UUID, failure error) error {
	return database.Exec(context.WithoutCancel(ctx), f.db, tenant, `
		update audit_positions set failed_at = coalesce(failed_at, now()), failure = $3, claimed_until = now() + $4::interval
		 where tenant_id = $1 and sink = $2`, tenant, f.name, failure.Error(), followRetry)
}

// Health is the state of the sink.
type Health struct {
	Pending  int64 // records that the sink has not confirmed
	FailedAt *time.Time
	Failure  string // of the last request, if it failed
}

// Health returns the state of the sink.
func (f *Follower) Health(ctx context.Context) (Health, error) {
	h, err := database.Row(ctx, f.db, uuid.Nil, pgx.RowToStructByPos[Health],
		`select pending, failed_at, failure from audit_health($1)`, f.name)
	if err != nil {
		return h, fmt.Errorf("read the state of the audit sink: %w", err)
	}
	return h, nil
}
