// Package connectors defines what an adapter to a downstream system is: small
// capabilities that the cascade finds by type assertion, and typed errors that
// decide, where the downstream's answer is read, what is retried.
//
// A connector never retries: Temporal does. "Already gone" is success.
package connectors

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/seal"
)

// Target is the credential or scheduled run that a call is about.
type Target struct {
	Tenant    uuid.UUID
	Item      uuid.UUID
	Kind      inventory.Kind
	Reference string      // the downstream's own name for it, e.g. a role or schedule id
	Secret    seal.Secret // empty where none was registered
	NewSecret seal.Secret // what a Rotator puts in Secret's place
	ExpiresAt *time.Time
	// Key is the same for every attempt of one cascade at one item.
	Key string
}

// Connector is an adapter to one configured downstream system.
type Connector interface {
	// Accepts says why an item cannot be registered here, or nil.
	Accepts(kind inventory.Kind, hasSecret, shared bool) error
	// Close frees what the connector holds.
	Close()
}

// Revoker ends a credential for good.
type Revoker interface {
	Revoke(ctx context.Context, t Target) (Answer, error)
}

// Rotator puts t.NewSecret in the place of t.Secret, and ends what the old one
// opened. It can be repeated with the same target.
type Rotator interface {
	Rotate(ctx context.Context, t Target) (Answer, error)
}

// Canceller ends a scheduled run, and the executions that it started.
type Canceller interface {
	Cancel(ctx context.Context, t Target) (Answer, error)
}

// Verifier looks whether the target is alive: a login, an introspection, a use.
// An error says that the probe could not be made, which proves nothing.
type Verifier interface {
	Probe(ctx context.Context, t Target) (Vitality, string, error)
}

// Prover is a Verifier with a stronger probe for afterwards, which may use the
// credential up, such as a refresh that must fail.
type Prover interface {
	Verifier
	Prove(ctx context.Context, t Target) (Vitality, string, error)
}

// Notifier is told of lifecycle changes.
type Notifier interface {
	Notify(ctx context.Context, n Notification) error
}

// Notification is a lifecycle change as told to a platform: ids only.
type Notification struct {
	Key       string    `json:"-"`
	Type      string    `json:"type"` // e.g. principal.leaver
	Tenant    uuid.UUID `json:"tenantId"`
	Event     uuid.UUID `json:"eventId"`
	Principal uuid.UUID `json:"principalId"`
	Resource  string    `json:"resourceType"`
	Changed   []string  `json:"changed,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
}

// Outcome is what the downstream said to a revocation, rotation or cancellation.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // confirmed now
	Gone    Outcome = "gone"    // was not there any more
	Expires Outcome = "expires" // cannot be ended; ends by itself at ExpiresAt
)

// Answer is the downstream's answer, with a detail for the evidence. The
// detail never holds a secret.
type Answer struct {
	Outcome Outcome
	Detail  string
}

// Vitality is what a probe saw.
type Vitality string

// The vitalities.
const (
	Alive   Vitality = "alive"
	Dead    Vitality = "dead"
	Unknown Vitality = "unknown" // the downstream offers no way to tell
)
