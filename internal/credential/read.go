package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
)

// Query selects items for a list, in the order of registration.
type Query struct {
	Kinds     []connectors.Kind
	Principal *uuid.UUID // or held by it as an agent
	Event     *uuid.UUID // ended, or attempted, by this cascade
	Agent     *uuid.UUID // held by this agent
	Connector string     // empty selects all
	States    []State    // empty selects all
	After     uuid.UUID  // cursor: the last ID of the previous page
	Limit     int
}

// ofEvent are the tables of a list by event. An item that another cascade has taken over is
// shown in the state that the event's cascade left. It relies on the index
// credential_states_event.
const ofEvent = ` credentials i left join lateral (
	select h.state, h.reason from credential_states h
	 where h.tenant_id = $1 and h.item_id = i.id and h.event_id = $9 and i.event_id is distinct from $9
	   order by h.id desc limit 1) past on true
	where i.tenant_id = $1 and i.id in (
	  select id from credentials where tenant_id = $1 and event_id = $9 union select item_id from credential_states
	    where tenant_id = $1 and event_id = $9) and`

// HadItem reports whether an item has ever belonged to a cascade.
func (s *Store) HadItem(ctx context.Context, tenant, event, item uuid.UUID) (bool, error) {
	had, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool],
		`select exists (select 1 from credential_states where tenant_id = $1 and event_id = $2 and item_id = $3)`,
		tenant, event, item)
	if err != nil {
		return false, fmt.Errorf("look up item %s in the history of cascade %s: %w", item, event, err)
	}
	return had, nil
}

// List returns a page of items. It relies on the index credentials_principal, credentials_agent
// or credentials_event.
func (s *Store) List(ctx context.Context, tenant uuid.UUID, q Query) ([]Item, error) {
	columns, tables, state := Columns, " credentials where tenant_id = $1 and", "state"
	args := []any{tenant, q.Kinds, q.Principal, append([]State{}, q.States...), q.After, q.Limit, q.Agent, q.Connector}
	if q.Event != nil {
		args = append(args, q.Event)
		state = "coalesce(past.state, i.state)"
		columns = strings.Replace(Columns, "state, reason,", state+", coalesce(past.reason, i.reason),", 1)
		tables = ofEvent
	}
	items, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Item], `
			select `+columns+` from `+tables+` kind = any ($2)
			   and ($3::uuid is null or principal_id = $3 or agent_id = $3)
			   and ($4::text[] = '{}' or `+state+` = any ($4))
			   and id > $5
			   and ($7::uuid is null or agent_id = $7) and ($8 = '' or connector = $8)
			 order by id limit $6`, args...)
	if err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	return items, nil
}

// Get returns one item of the given kinds. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant, id uuid.UUID, kinds []connectors.Kind) (*Item, error) {
	item, err := database.Row(ctx, s.db, tenant, pgx.RowToAddrOfStructByPos[Item],
		`select `+Columns+` from credentials where tenant_id = $1 and id = $2 and kind = any ($3)`, tenant, id, kinds)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get credential %s: %w", id, err)
	}
	return item, nil
}

// StateChange is one step of an item's history.
type StateChange struct {
	State  State      `json:"state"`
	Reason string     `json:"reason,omitempty"`
	Event  *uuid.UUID `json:"cascadeId,omitempty"`
	At     time.Time  `json:"at"`
	// Actor registered, claimed or released the item; empty for changes by cascades.
	Actor string `json:"actor,omitempty"`
}

// maxHistory bounds how many states [Store.History] returns: the latest ones.
const maxHistory = 500

// History returns an item's latest states, oldest first.
func (s *Store) History(ctx context.Context, tenant, id uuid.UUID) ([]StateChange, error) {
	history, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[StateChange], `
		select state, reason, event_id, at, actor from (
		  select * from credential_states where tenant_id = $1 and item_id = $2 order by id desc limit $3) last
		 order by id`, tenant, id, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("read the history of item %s: %w", id, err)
	}
	return history, nil
}
