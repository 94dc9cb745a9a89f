// Package inventory keeps what agents hold: credentials and scheduled runs,
// bound to the SCIM id of the principal they were issued for.
package credential

import (
	"context"
	"errors"
	"time"

	"github.com/leaverhq/leaver/internal/fault"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
)

// State is where an item stands.
type State string

// The states.
const (
	Live     State = "live"     // known, and nobody is ending it
	Ending   State = "ending"   // a cascade has begun with it
	Revoked  State = "revoked"  // the downstream confirmed its end; no probe could show it
	Absent   State = "absent"   // the downstream did not know it when the cascade first asked for its end
	Verified State = "verified" // a probe saw it alive before and dead after
	Expiring State = "expiring" // cannot be revoked; ends by itself at ExpiresAt
	Survivor State = "survivor" // outlived a cascade
	Waived   State = "waived"   // alive, and tolerated until a time, by somebody who said why
	Released State = "released" // its holder gave it up
)

// States lists all states.
func States() []State {
	return []State{Live, Ending, Revoked, Verified, Absent, Expiring, Survivor, Waived, Released}
}

// Ended reports whether no cascade has anything left to do with an item in that state.
func (s State) Ended() bool {
	switch s {
	case Revoked, Verified, Absent, Expiring, Waived, Released:
		return true
	default:
		return false
	}
}

// Item is one credential or scheduled run, without its secrets.
type Item struct {
	ID        uuid.UUID       `json:"id"`
	Principal uuid.UUID       `json:"principalId"`
	Agent     *uuid.UUID      `json:"agentId,omitempty"`
	Kind      connectors.Kind `json:"kind"`
	Connector string          `json:"connector"`
	Reference string          `json:"reference"`
	// Account is the reference that a first rotation found; empty before.
	Account string `json:"account,omitempty"`
	// Shared: others rely on it whom the inventory does not know.
	Shared bool `json:"shared"`
	// ReliedOnBy names them, where their names are known.
	ReliedOnBy []string `json:"reliedOnBy,omitempty"`
	// Entitlement is what it was granted under, by the platform's name.
	Entitlement string     `json:"entitlement,omitempty"`
	Scopes      []string   `json:"scopes"`
	IssuedAt    time.Time  `json:"issuedAt"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
	State       State      `json:"state"`
	Reason      string     `json:"reason,omitempty"`
	Event       *uuid.UUID `json:"cascadeId,omitempty"`
	WaivedUntil *time.Time `json:"waivedUntil,omitempty"`
	CreatedAt   time.Time  `json:"createdAt"`
	UpdatedAt   time.Time  `json:"updatedAt"`
}

// The errors of this package.
var (
	ErrNotFound = fault.New(fault.NotFound, "no such item")
	// ErrUnknownPrincipal: no live principal of the tenant has that id.
	ErrUnknownPrincipal = fault.New(fault.Unprocessable, "no such principal")
	// ErrRestricted: the principal, or the agent, may hold nothing new.
	ErrRestricted = fault.New(fault.Conflict, "the principal is restricted")
	// ErrNotEntitled: the principal lacks the entitlement that it would be granted under.
	ErrNotEntitled = fault.New(fault.Conflict, "the principal does not have that entitlement")
	// ErrDuplicate: the same is registered already and not ended.
	ErrDuplicate = fault.New(fault.Conflict, "already registered")
	// ErrAccountEnding is returned while the account is being ended or rotated. The caller may retry.
	ErrAccountEnding = fault.NewRetryable(fault.Conflict, time.Minute, "the account is being ended or rotated: try again in a minute, or finish its cascade (`leaver cascade list`)")
	// ErrReserved is returned for an account that is never ended.
	ErrReserved = errors.New("the account is reserved")
	// ErrNotProven is returned when the connector serves several tenants and did not confirm
	// that the account belongs to the tenant.
	ErrNotProven = errors.New("possession is not proven")
	// ErrNotAsked is returned when the check of the account's owner at the downstream failed.
	// The caller may retry.
	ErrNotAsked = fault.New(fault.Unavailable, "failed to check the account's owner at the downstream: try again")
	// ErrEnding: a cascade has the item; its holder can no longer give it up.
	ErrEnding = fault.New(fault.Conflict, "a cascade is ending it")
)

// Store reads and writes the inventory.
type Store struct {
	db           *database.DB
	sealer       *seal.Sealer
	entitlements Entitlements
}

// Entitlements derives what a principal is entitled to now, whatever is stored.
type Entitlements interface {
	Live(ctx context.Context, tenant, principal uuid.UUID) ([]string, error)
}

// NewStore returns the store on db, whose secrets sealer seals.
func NewStore(db *database.DB, sealer *seal.Sealer, entitlements Entitlements) *Store {
	return &Store{db: db, sealer: sealer, entitlements: entitlements}
}

const Columns = `id, principal_id, agent_id, kind, connector, reference, account, shared, relied_on_by, entitlement, scopes, issued_at, expires_at,
	state, reason, event_id, waived_until, created_at, updated_at`
