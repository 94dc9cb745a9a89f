package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Query selects items for a list, in the order of registration.
type Query struct {
	Kinds     []Kind
	Principal *uuid.UUID // or held by it as an agent
	Event     *uuid.UUID // ended, or tried, by that cascade
	State     State      // empty selects all
	After     uuid.UUID  // cursor: the last id of the page before
	Limit     int
}

// List returns a page. It relies on inventory_principal, inventory_agent or
// inventory_event.
func (s *Store) List(ctx context.Context, tenant uuid.UUID, q Query) ([]Item, error) {
	items, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Item], `
			select `+itemColumns+` from inventory
			 where tenant_id = $1 and kind = any ($2)
			   and ($3::uuid is null or principal_id = $3 or agent_id = $3)
			   and ($4::uuid is null or event_id = $4)
			   and ($5 = '' or state = $5)
			   and id > $6
			 order by id limit $7`, tenant, q.Kinds, q.Principal, q.Event, q.State, q.After, q.Limit)
	if err != nil {
		return nil, fmt.Errorf("list the inventory: %w", err)
	}
	return items, nil
}

// Get returns one item of the given kinds. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant, id uuid.UUID, kinds []Kind) (*Item, error) {
	item, err := database.Row(ctx, s.db, tenant, pgx.RowToAddrOfStructByPos[Item], `select `+itemColumns+` from inventory where tenant_id = $1 and id = $2 and kind = any ($3)`, tenant, id, kinds)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("get item %s: %w", id, err)
	}
	return item, nil
}

// StateChange is one step of an item's history.
type StateChange struct {
	State  State      `json:"state"`
	Reason string     `json:"reason,omitempty"`
	Event  *uuid.UUID `json:"cascadeId,omitempty"`
	At     time.Time  `json:"at"`
	// Actor registered, bound or released it; empty of what cascades do.
	Actor string `json:"actor,omitempty"`
}

// maxHistory bounds an answer: an item that was re-run a hundred times tells its
// last states.
const maxHistory = 500

// History returns an item's states in their order.
func (s *Store) History(ctx context.Context, tenant, id uuid.UUID) ([]StateChange, error) {
	history, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[StateChange], `
		select state, reason, event_id, at, actor from (
		  select * from inventory_states where tenant_id = $1 and item_id = $2 order by id desc limit $3) last
		 order by id`, tenant, id, maxHistory)
	if err != nil {
		return nil, fmt.Errorf("read the history of item %s: %w", id, err)
	}
	return history, nil
}
