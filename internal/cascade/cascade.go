// Package cascade stores the state of cascades: which credentials each ends, the deactivation threshold
// that holds them for approval, their outcome, waivers and cancellation.
package cascade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// The errors of [Cascades].
var (
	ErrNotFound = fault.New(fault.NotFound, "no such cascade")
	// ErrNotFailed is returned for a re-run of a cascade that is running or has completed.
	ErrNotFailed = fault.New(fault.Conflict,
		"the cascade is running or has completed: only a failed or cancelled cascade can be re-run")
	// ErrNotRunning is returned for a request to a cascade that is not running.
	ErrNotRunning = fault.New(fault.Conflict, "the cascade is not running: if it failed, run `leaver cascade rerun`")
	// ErrOtherKind is returned to a workflow whose kind differs from the kind of the event.
	ErrOtherKind = errors.New("no event has this ID and the kind of this workflow")
	// ErrCancelled is returned to a run of a cancelled cascade without a recorded re-run request.
	ErrCancelled = errors.New("the cascade was cancelled: run `leaver cascade rerun`")
	// ErrCompleted is returned to a further run of a completed event.
	ErrCompleted = errors.New("the event has completed: there is nothing to run again")
)

// RefusedError is returned when a running cascade rejects a request.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// Code implements [fault.Coded].
func (e *RefusedError) Code() fault.Code { return fault.Conflict }

// isCascade selects the events whose workflows end credentials: leavers, and movers that
// lost the entitlement of a credential.
const isCascade = `(kind = 'leaver' or ends)`

// Cascade is an event that ends credentials, with the state of its workflow.
type Cascade struct {
	ID         uuid.UUID         `json:"id"`
	Kind       lifecycle.Kind    `json:"kind"` // leaver or mover
	Principal  uuid.UUID         `json:"principalId"`
	Type       string            `json:"principalType"`
	Trigger    lifecycle.Trigger `json:"trigger"`
	Actor      string            `json:"actor"`
	WorkflowID string            `json:"workflowId"`
	RunID      *string           `json:"runId,omitempty"`
	CreatedAt  time.Time         `json:"createdAt"`
	StartedAt  *time.Time        `json:"startedAt,omitempty"`
	BegunAt    *time.Time        `json:"begunAt,omitempty"` // when a worker began it
	ClosedAt   *time.Time        `json:"closedAt,omitempty"`
	Outcome    string            `json:"outcome"` // pending, running, completed, failed or cancelled
	Verified   int               `json:"verified"`
	Revoked    int               `json:"revoked"`
	Absent     int               `json:"absent"` // unknown to the downstream
	Expiring   int               `json:"expiring"`
	Survivors  int               `json:"survivors"`
	Waived     int               `json:"waived"`
	Ending     int               `json:"ending"` // not concluded yet; 0 once the cascade is closed
	NotAsked   []NotAsked        `json:"notAsked"`
	Sequence   int64             `json:"-"`
}

// NotAsked is a connector that failed to list its credentials, with the reason.
type NotAsked struct {
	Connector string `json:"connector"`
	Reason    string `json:"reason"`
}

// cascadeColumns are the columns of [Cascade]. An open cascade is pending until its workflow
// was started, then running; its counts are those of its current items.
const cascadeColumns = `e.id, e.kind, e.principal_id, e.principal_type, e.trigger, e.actor, e.workflow_id, e.run_id,
	e.created_at, e.started_at, e.begun_at, e.closed_at,
	coalesce(e.outcome, case when e.started_at is null then 'pending' else 'running' end),
	coalesce(n.verified, e.verified), coalesce(n.revoked, e.revoked), coalesce(n.absent, e.absent),
	coalesce(n.expiring, e.expiring),
	coalesce(n.survivors, e.survivors), coalesce(n.waived, e.waived), coalesce(n.ending, 0), e.not_asked, e.sequence`

// cascadeTables are the tables of cascadeColumns. The items of a closed cascade are not read.
// It relies on the index credentials_event.
const cascadeTables = ` lifecycle_events e left join lateral (
	select count(*) filter (where state = 'verified') verified, count(*) filter (where state = 'revoked') revoked,
	       count(*) filter (where state = 'absent') absent, count(*) filter (where state = 'expiring') expiring,
	       count(*) filter (where state = 'failed') survivors, count(*) filter (where state = 'waived') waived,
	       count(*) filter (where state = 'ending') ending
	  from credentials i where e.closed_at is null and i.tenant_id = e.tenant_id and i.event_id = e.id
	having e.closed_at is null) n on true `

// Store reads and closes cascades.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

// Query selects cascades for a list, newest first.
type Query struct {
	Principal *uuid.UUID
	Agent     *uuid.UUID // with a credential that this agent holds
	Outcomes  []string   // empty selects all
	Since     *time.Time
	Connector string // with an unrevoked credential of this connector, or a failure to list its credentials
	Before    int64  // cursor: the last sequence of the previous page; 0 for the first page
	Limit     int
}

// List returns a page of cascades. It relies on the index lifecycle_events_list or
// lifecycle_events_principal.
func (c *Store) List(ctx context.Context, tenant uuid.UUID, q Query) ([]Cascade, error) {
	cascades, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[Cascade], `
			select `+cascadeColumns+` from `+cascadeTables+`
			 where e.tenant_id = $1 and `+isCascade+` and ($2::uuid is null or e.principal_id = $2)
			   and ($3::text[] = '{}' or coalesce(e.outcome,
			     case when e.started_at is null then 'pending' else 'running' end) = any ($3))
			   and ($4 = 0 or e.sequence < $4)
			   and ($6::timestamptz is null or e.created_at >= $6)
			   and ($7 = '' or e.not_asked @> jsonb_build_array(jsonb_build_object('connector', $7::text))
			     or exists (select 1 from credentials i
			        where i.tenant_id = $1 and i.event_id = e.id and i.connector = $7 and i.state in ('failed', 'ending')))
			   and ($8::uuid is null or exists (select 1 from credentials i
			        where i.tenant_id = $1 and i.event_id = e.id and i.agent_id = $8))
			 order by e.sequence desc limit $5`, tenant, q.Principal, append([]string{}, q.Outcomes...), q.Before, q.Limit,
		q.Since, q.Connector, q.Agent)
	if err != nil {
		return nil, fmt.Errorf("list cascades: %w", err)
	}
	return cascades, nil
}

// Get returns one cascade. Error: [ErrCascadeNotFound].
func (c *Store) Get(ctx context.Context, tenant, id uuid.UUID) (*Cascade, error) {
	cascade, err := database.Row(ctx, c.db, tenant, pgx.RowToAddrOfStructByPos[Cascade], `select `+cascadeColumns+`
		from `+cascadeTables+`
			where e.tenant_id = $1 and e.id = $2 and `+isCascade, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get cascade %s: %w", id, err)
	}
	return cascade, nil
}

// Unrevoked is a credential or scheduled run that a cascade did not end.
type Unrevoked struct {
	Item      uuid.UUID `json:"item"`
	Connector string    `json:"connector"`
	Kind      string    `json:"kind"`
	Reason    string    `json:"reason"`
}

// maxSurvivors bounds how many survivors a report lists. Their count is not bounded.
const maxSurvivors = 100

// Report is the result of a closed cascade.
type Report struct {
	Verified  int         `json:"verified"`
	Revoked   int         `json:"revoked"`          // confirmed by the downstream, unverified
	Absent    int         `json:"absent,omitempty"` // not known to the downstream
	Expiring  int         `json:"expiring"`
	Survivors int         `json:"survivors"`
	Waived    int         `json:"waived,omitempty"`    // alive under a waiver
	Unmanaged int         `json:"unmanaged,omitempty"` // unmanaged credentials found for the leaver
	Surviving []Unrevoked `json:"surviving,omitempty"`
	NotAsked  []NotAsked  `json:"notAsked,omitempty"` // connectors that failed to list their credentials
	Outcome   string      `json:"outcome"`            // completed, failed or cancelled
}

// Close counts the cascade's items by state, stores the outcome and returns the report. The
// outcome is failed if an item survived, if the cascade was interrupted, or if a connector
// failed to list its credentials. Close reports a cancelled cascade, and an event of another
// kind, without changing it. Closing again, after a re-run, replaces the outcome.
// Error: [ErrCascadeNotFound].
func (c *Store) Close(
	ctx context.Context, tenant, event uuid.UUID, kind lifecycle.Kind, interrupted bool, notAsked ...NotAsked,
) (Report, error) {
	r := Report{NotAsked: notAsked}
	err := c.end(ctx, tenant, func(e *ended) database.Statement {
		return database.Statement{
			SQL: closeSQL,
			Args: []any{
				tenant, event, interrupted || len(notAsked) > 0, maxSurvivors, kind, append([]NotAsked{}, notAsked...),
			},
			Collect: database.Fields(append(e.fields(), &r.Verified, &r.Revoked, &r.Absent, &r.Expiring,
				&r.Survivors, &r.Waived, &r.Surviving, &r.Unmanaged)...),
		}
	}, func(e *ended) []database.Statement {
		r.Outcome = e.outcome
		return nil
	})
	if errors.Is(err, pgx.ErrNoRows) {
		cascade, err := c.Get(ctx, tenant, event)
		if err != nil {
			return Report{}, err
		}
		return cascade.Report(), nil
	}
	if err != nil {
		return Report{}, fmt.Errorf("close cascade %s: %w", event, err)
	}
	return r, nil
}

const closeSQL = `
	with ending as materialized ( -- an array, so that the query uses indexes
	  select array(select e.principal_id union select agents_ending_with($1, e.principal_id)) as ids
	    from lifecycle_events e where e.tenant_id = $1 and e.id = $2 and e.kind = 'leaver'),
	closing as materialized (
	  select e.id, e.closed_at is null as open from lifecycle_events e
	   where e.tenant_id = $1 and e.id = $2 and e.kind = $5 and e.outcome is distinct from 'cancelled' for update of e),
	items as materialized (
	  select i.id, i.connector, i.kind, i.state, i.reason from credentials i
	   where i.tenant_id = $1 and i.event_id = $2
	  union
	  -- Items of these principals that another cascade handled last and did not end.
	  select i.id, i.connector, i.kind, i.state, i.reason from credentials i
	    join lifecycle_events e on e.tenant_id = i.tenant_id and e.id = $2 and e.kind = 'leaver' and e.trigger <> 'claimed'
	   where i.tenant_id = $1 and i.state in ('failed', 'ending')
	     and not of_later_life($1, e.sequence, i.sequence, array[i.principal_id, i.agent_id, e.principal_id])
	     and (i.principal_id = any ((select ids from ending)::uuid[])
	       or i.agent_id = any ((select ids from ending)::uuid[]))),
	-- An item that is still ending was not concluded: it counts as a survivor.
	left_over as (
	  update credentials set state = 'failed', reason = coalesce(nullif(reason, ''), 'not ended'), updated_at = now()
	   where tenant_id = $1 and event_id = $2 and state = 'ending' and exists (select 1 from closing)),
	counts as (
	  select count(*) filter (where state = 'verified') verified, count(*) filter (where state = 'revoked') revoked,
	         count(*) filter (where state = 'absent') absent, count(*) filter (where state = 'expiring') expiring,
	         count(*) filter (where state in ('failed', 'ending')) survivors,
	         count(*) filter (where state = 'waived') waived from items),
	surviving as (
	  select jsonb_agg(jsonb_build_object('item', id, 'connector', connector, 'kind', kind, 'reason',
	    coalesce(nullif(reason, ''), 'not ended')) order by id) list
	    from (select * from items where state in ('failed', 'ending') order by id limit $4) s)
	update lifecycle_events e
	   set closed_at = now(), outcome = case when c.survivors = 0 and not $3 then 'completed' else 'failed' end,
	       verified = c.verified, revoked = c.revoked, absent = c.absent, expiring = c.expiring,
	       survivors = c.survivors, waived = c.waived, not_asked = $6
	  from counts c, surviving s, closing where e.tenant_id = $1 and e.id = closing.id
	returning closing.open, ` + endedColumns + `, e.verified, e.revoked, e.absent, e.expiring, e.survivors,
	  e.waived, s.list,
	  (select count(*) from unmanaged u where u.tenant_id = $1 and u.event_id = $2 and u.item_id is null)`

// Report returns the cascade's counts and outcome, without the survivors.
func (c *Cascade) Report() Report {
	return Report{
		Verified: c.Verified, Revoked: c.Revoked, Absent: c.Absent, Expiring: c.Expiring, Survivors: c.Survivors,
		Waived: c.Waived, NotAsked: c.NotAsked, Outcome: c.Outcome,
	}
}

// Reopen returns the event of a failed cascade for its next run, and records the actor and
// the reason. Errors: [ErrCascadeNotFound], [ErrNotFailed].
func (c *Store) Reopen(ctx context.Context, tenant, id uuid.UUID, actor, reason string) (lifecycle.Event, error) {
	return c.reopen(ctx, tenant, id, actor, reason, isCascade)
}

// Restart is like [Cascades.Reopen], for an event of any kind whose workflow no longer exists.
func (c *Store) Restart(ctx context.Context, tenant, id uuid.UUID, actor, reason string) (lifecycle.Event, error) {
	return c.reopen(ctx, tenant, id, actor, reason, "true")
}

func (c *Store) reopen(ctx context.Context, tenant, id uuid.UUID, actor, reason, of string) (lifecycle.Event, error) {
	var e lifecycle.Event
	err := c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var outcome *string
		err := tx.QueryRow(ctx, `
			select tenant_id, id, sequence, kind, principal_id, principal_type, trigger, actor, changed,
			  workflow_id, created_at, outcome
			  from lifecycle_events where tenant_id = $1 and id = $2 and `+of+` for update`, tenant, id).
			Scan(&e.Tenant, &e.ID, &e.Sequence, &e.Kind, &e.Principal, &e.PrincipalType, &e.Trigger, &e.Actor,
				&e.Changed, &e.WorkflowID, &e.CreatedAt, &outcome)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		// Only Temporal knows whether a run is in progress.
		if outcome != nil && *outcome == "completed" {
			return ErrNotFailed
		}
		return record(ctx, tx, tenant, id, actor, "rerun", reason)
	})
	if err != nil {
		return lifecycle.Event{}, fmt.Errorf("re-run cascade %s: %w", id, err)
	}
	return e, nil
}

// Running stores that a run of the event's workflow is in progress: the first run, or one
// after the event was closed. The run itself calls it, and may repeat the call. A run after
// the close without a recorded re-run request was started in Temporal directly; Running
// records that as an act of the actor temporal.
//
// A cancelled cascade runs again only after a recorded re-run request: a start that was in
// progress during the cancellation is rejected. A completed event does not run again.
// Errors: [ErrOtherKind], [ErrCancelled], [ErrCompleted].
func (c *Store) Running(ctx context.Context, tenant, event uuid.UUID, kind lifecycle.Kind, runID string) error {
	var known, cancelled, completed bool
	err := database.Together(ctx, c.db, tenant, database.Statement{
		Collect: database.Fields(&known, &cancelled, &completed),
		Args:    []any{tenant, event, runID, kind}, SQL: `
		with this as materialized (
		  select e.closed_at, e.run_id, e.outcome is not distinct from 'cancelled' and not exists (
		           select 1 from acts a where a.tenant_id = $1 and a.event_id = $2 and a.verb = 'rerun'
		             and a.at >= e.closed_at) cancelled,
		         e.outcome is not distinct from 'completed' and e.run_id is distinct from $3 completed
		    from lifecycle_events e where e.tenant_id = $1 and e.id = $2 and e.kind = $4 for update of e),
		before as materialized (
		  select closed_at from this where run_id is distinct from $3 and not cancelled and not completed),
		elsewhere as (
		  insert into acts (tenant_id, event_id, actor, verb, reason)
		  select $1, $2, 'temporal', 'rerun', 'started in Temporal' from before b
		   where b.closed_at is not null
		     and not exists (select 1 from acts a where a.tenant_id = $1 and a.event_id = $2 and a.verb = 'rerun'
		       and a.at >= b.closed_at)),
		run as (
		  update lifecycle_events e set started_at = coalesce(e.started_at, now()), begun_at = now(), run_id = $3,
		    closed_at = null, outcome = null
		    from before where e.tenant_id = $1 and e.id = $2),
		begun as ( -- the start of this run is stored already
		  update lifecycle_events e set begun_at = now() from this
		   where e.tenant_id = $1 and e.id = $2 and e.run_id = $3 and e.begun_at is null and not this.cancelled)
		select exists (select 1 from this), coalesce((select cancelled from this), false),
		       coalesce((select completed from this), false)`,
	})
	switch {
	case err == nil && !known:
		err = ErrOtherKind
	case err == nil && cancelled:
		err = ErrCancelled
	case err == nil && completed:
		err = ErrCompleted
	}
	if err != nil {
		return fmt.Errorf("store run %s of event %s: %w", runID, event, err)
	}
	return nil
}

// RecordAct records an operator's act on a cascade, with the actor and the reason.
func (c *Store) RecordAct(ctx context.Context, tenant, id uuid.UUID, actor, verb, reason string) error {
	return database.Exec(ctx, c.db, tenant, recordSQL, tenant, id, actor, verb, reason)
}

func record(ctx context.Context, tx pgx.Tx, tenant, id uuid.UUID, actor, verb, reason string) error {
	_, err := tx.Exec(ctx, recordSQL, tenant, id, actor, verb, reason)
	return err
}

const recordSQL = `insert into acts (tenant_id, event_id, actor, verb, reason) values ($1, $2, $3, $4, $5)`

// CloseEvent stores that the workflow of an event that is not a cascade has completed.
// Error: [ErrOtherKind].
func (c *Store) CloseEvent(ctx context.Context, tenant, event uuid.UUID) error {
	err := c.end(ctx, tenant, func(e *ended) database.Statement {
		return database.Statement{SQL: `
			with closing as materialized (
			  select id, closed_at is null as open from lifecycle_events where tenant_id = $1 and id = $2
			    and not ` + isCascade + ` for update)
			update lifecycle_events e set closed_at = now(), outcome = 'completed' from closing
			  where e.tenant_id = $1 and e.id = closing.id
			returning closing.open, ` + endedColumns, Args: []any{tenant, event}, Collect: database.Fields(e.fields()...)}
	}, nil)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrOtherKind
	}
	if err != nil {
		return fmt.Errorf("close event %s: %w", event, err)
	}
	return nil
}

// Open returns a page of the events of any kind whose workflows were started before
// startedBefore and have not closed, in the order of their sequences, starting after the
// sequence after. Only Temporal knows whether each workflow is still running.
func (c *Store) Open(
	ctx context.Context, tenant uuid.UUID, startedBefore time.Time, after int64, limit int,
) ([]Cascade, error) {
	open, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[Cascade], `
		select `+cascadeColumns+` from `+cascadeTables+`
		 where e.tenant_id = $1 and e.started_at < $2 and e.closed_at is null and e.sequence > $4
		 order by e.sequence limit $3`, tenant, startedBefore, limit, after)
	if err != nil {
		return nil, fmt.Errorf("list open events: %w", err)
	}
	return open, nil
}

// Done is an act of an operator on a cascade, with its reason.
type Done struct {
	ID     int64     `json:"id"`
	Actor  string    `json:"actor"`
	Verb   string    `json:"verb"` // retry, rerun, waive or cancel
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Acts returns a page of the acts on a cascade in the order of their IDs, starting after the
// ID after.
func (c *Store) Acts(ctx context.Context, tenant, id uuid.UUID, after int64, limit int) ([]Done, error) {
	acts, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[Done], `select id, actor, verb, reason, at
		from acts where tenant_id = $1 and event_id = $2 and id > $3 order by id limit $4`, tenant, id, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list acts on cascade %s: %w", id, err)
	}
	return acts, nil
}
