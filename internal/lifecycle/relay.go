package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

const (
	relayBatch = 50
	// relayLease is how long a claimed event belongs to one relay. It doubles with each
	// attempt, up to a factor of eight.
	relayLease = 5 * time.Second
	// relayPoll is the poll interval. It bounds the delay of an event if the clocks of
	// PostgreSQL and this process differ, or if PostgreSQL was not available.
	relayPoll = time.Second
	// relayBacklogPoll is the shortest poll interval during a backlog. The interval is at
	// least relayQueryShare times the duration of the last claim.
	relayBacklogPoll = 100 * time.Millisecond
	relayQueryShare  = 5 // claims take at most a fifth of the time
	// startTimeout bounds one start, so that a hanging Temporal does not block the relay
	// beyond its leases.
	startTimeout = 3 * time.Second
	// relayParallel bounds the concurrent starts. SCIM writes can arrive faster than
	// workflows start; the backlog waits in the outbox.
	relayParallel = 8
)

// Relay starts the workflows of events that are not started yet. Several relays may run
// concurrently: claims skip locked rows, and a repeated start is harmless.
type Relay struct {
	db      *database.DB
	starter Starter
	atOnce  int
	log     *slog.Logger
}

// NewRelay returns a relay that starts workflows with starter. At most atOnce leavers of one
// actor run at a time.
func NewRelay(db *database.DB, starter Starter, atOnce int, log *slog.Logger) *Relay {
	return &Relay{db: db, starter: starter, atOnce: atOnce, log: log}
}

// Run starts workflows until ctx ends. It continues after outages of PostgreSQL and Temporal.
func (r *Relay) Run(ctx context.Context) {
	for ctx.Err() == nil {
		claimed, chosen, queried, err := r.once(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("failed to read the outbox; relay will retry", "error", err)
		}
		if claimed == relayBatch && err == nil {
			continue
		}
		pause := relayPoll
		if chosen > 0 { // even if other relays have claimed them all
			pause = max(relayBacklogPoll, relayQueryShare*queried)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// Once claims one batch of due events, leavers first, and starts them. It
// returns how many it claimed.
func (r *Relay) Once(ctx context.Context) (int, error) {
	claimed, _, _, err := r.once(ctx)
	return claimed, err
}

// once is [Relay.Once]. It also returns how many events were chosen, and how long the claim
// took.
func (r *Relay) once(ctx context.Context) (claimed, chosen int, queried time.Duration, err error) {
	began := time.Now()
	events, chosen, err := r.claim(ctx)
	queried = time.Since(began)
	if err != nil {
		return 0, chosen, queried, err
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, relayParallel)
	for _, event := range events {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			r.start(ctx, event)
		})
	}
	wait.Wait()
	return len(events), chosen, queried, nil
}

func (r *Relay) start(ctx context.Context, event Event) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	runID, err := r.starter.Start(ctx, event)
	if err == nil {
		err = markStarted(ctx, r.db, event, runID)
	}
	if err == nil {
		r.log.Info("started workflow from the outbox", "workflow", event.WorkflowID)
		return
	}
	r.log.Warn("failed to start workflow from the outbox; relay will retry", "workflow", event.WorkflowID, "error", err)
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	// The error is ignored: last_error is informational, and the claim causes the retry.
	_ = database.Exec(saveCtx, r.db, event.Tenant, `update lifecycle_events set last_error = $3 where tenant_id = $1
		and id = $2`,
		event.Tenant, event.ID, "Temporal did not accept the start")
}

// claim leases the events to start now. Other relays may have leased some of the chosen ones.
func (r *Relay) claim(ctx context.Context) (events []Event, chosen int, err error) {
	err = r.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		next, err := r.next(ctx, tx)
		if chosen = len(next); err != nil || chosen == 0 {
			return err
		}
		var tenants, ids []uuid.UUID
		for _, d := range next {
			tenants, ids = append(tenants, d.Tenant), append(ids, d.ID)
		}
		rows, err := tx.Query(ctx, `
			select tenant_id, id, sequence, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, created_at,
			       coalesce(trace, '')
			  from claim_events($1, $2, $3) order by (kind = 'leaver') desc, sequence`, tenants, ids, relayLease)
		if err != nil {
			return err
		}
		events, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
		return err
	})
	if err != nil {
		return nil, chosen, fmt.Errorf("claim events: %w", err)
	}
	return events, chosen, nil
}

// next reads the due events and returns those to start now.
func (r *Relay) next(ctx context.Context, tx pgx.Tx) ([]due, error) {
	var waiting []due
	running := make(map[actor]int)
	var of actor
	var n int
	err := database.Send(ctx, tx,
		database.Statement{
			SQL:     `select tenant_id, id, sequence, leaver, actor, period from due_events($1, $2)`,
			Args:    []any{relayBatch, int(FairnessPeriod / time.Second)},
			Collect: database.All(&waiting, pgx.RowToStructByPos[due]),
		},
		database.Statement{
			SQL: `select tenant_id, actor, running from running_leavers($1)`, Args: []any{runningWindow},
			Collect: database.Each([]any{&of.tenant, &of.actor, &n}, func() { running[of] = n }),
		})
	return choose(waiting, running, r.atOnce, relayBatch), err
}
