// Package credential stores credentials and scheduled runs, each with the SCIM ID of the
// principal that it was issued for.
package credential

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/seal"
)

// State is the state of an item.
type State string

// The states.
const (
	Live     State = "live"     // registered, and no cascade is ending it
	Ending   State = "ending"   // a cascade is ending it
	Revoked  State = "revoked"  // the downstream confirmed its end; not verified by a probe
	Absent   State = "absent"   // the downstream did not know it when the cascade first tried to end it
	Verified State = "verified" // a probe saw it alive before and dead after
	Expiring State = "expiring" // cannot be revoked; expires at ExpiresAt
	Failed   State = "failed"   // a cascade failed to end it
	Waived   State = "waived"   // alive under a waiver, until WaivedUntil
	Released State = "released" // given up by its holder, or released by an operator
)

// UnmarshalText implements encoding.TextUnmarshaler. It reads "survivor", the name of [Failed] in the
// histories of cascades that began before migration 00004.
func (s *State) UnmarshalText(text []byte) error {
	if *s = State(text); *s == "survivor" {
		*s = Failed
	}
	return nil
}

// States lists all states.
func States() []State {
	return []State{Live, Ending, Revoked, Verified, Absent, Expiring, Failed, Waived, Released}
}

// Ended reports whether a cascade has nothing left to do for an item in this state.
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
	// Account is the reference before the first rotation; empty if never rotated.
	Account string `json:"account,omitempty"`
	// Shared: parties other than the registered holders rely on it.
	Shared bool `json:"shared"`
	// ReliedOnBy names these parties, as far as known.
	ReliedOnBy []string `json:"reliedOnBy,omitempty"`
	// Entitlement is the platform's name of the entitlement that it was granted under.
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
	// Mints: other credentials are issued with it, so that a cascade ends it first.
	Mints bool `json:"mints,omitempty"`
}

// The errors of this package.
var (
	// ErrNotFound is returned when no item of the tenant has the ID.
	ErrNotFound = fault.New(fault.NotFound, "no such credential or scheduled run")
	// ErrUnknownPrincipal is returned when no live principal of the tenant has the ID.
	ErrUnknownPrincipal = fault.New(fault.Unprocessable, "no such principal")
	// ErrRestricted is returned when the principal or the agent may not hold new credentials.
	ErrRestricted = fault.New(fault.Conflict, "the principal is restricted")
	// ErrNotEntitled is returned when the principal lacks the entitlement of a registration.
	ErrNotEntitled = fault.New(fault.Conflict, "the principal does not have that entitlement")
	// ErrDuplicate is returned when the same credential is registered and not ended.
	ErrDuplicate = fault.New(fault.Conflict, "already registered")
	// ErrAccountEnding is returned while the account is being ended or rotated. The caller may retry.
	ErrAccountEnding = fault.NewRetryable(fault.Conflict, time.Minute, "the account is being ended or rotated: "+
		"try again in a minute, or finish its cascade (`leaver cascade list`)")
	// ErrReserved is returned for an account that is never ended.
	ErrReserved = errors.New("the account is reserved")
	// ErrNotProven is returned when the connector serves several tenants and did not confirm
	// that the account belongs to the tenant.
	ErrNotProven = errors.New("possession is not proven")
	// ErrNotAsked is returned when the downstream did not answer the check of the account's owner.
	// The caller may retry.
	ErrNotAsked = fault.New(fault.Unavailable, "failed to check the account's owner at the downstream: try again")
	// ErrEnding is returned for the release of an item that a cascade ends.
	ErrEnding = fault.New(fault.Conflict, "a cascade is ending the credential: it cannot be released")
)

// Store reads and writes credentials and scheduled runs.
type Store struct {
	db           *database.DB
	sealer       *seal.Sealer
	entitlements Entitlements
}

// Entitlements evaluates the current entitlements of a principal, regardless of the stored ones.
type Entitlements interface {
	Live(ctx context.Context, tenant, principal uuid.UUID) ([]string, error)
}

// NewStore returns a store on db that seals its secrets with sealer.
func NewStore(db *database.DB, sealer *seal.Sealer, entitlements Entitlements) *Store {
	return &Store{db: db, sealer: sealer, entitlements: entitlements}
}

// Columns lists the columns that [Item.Fields] scans, in their order.
const Columns = `id, principal_id, agent_id, kind, connector, reference, account, shared, relied_on_by,
	entitlement, scopes,
	issued_at, expires_at, state, reason, event_id, waived_until, created_at, updated_at, mints`
