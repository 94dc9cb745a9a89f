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
)

// Target is the credential or scheduled run that a call is about.
type Target struct {
	Tenant    uuid.UUID
	Item      uuid.UUID
	Principal uuid.UUID // whom it was issued for
	Agent     uuid.UUID // which holds it; zero where none does
	Kind      Kind
	Reference string // the downstream's own name for it, e.g. a role or schedule id
	Account   string // the reference that a first rotation found; before one, Reference
	Secret    Secret // empty where none was registered
	ExpiresAt *time.Time
	// Rotation, NewReference and NewSecret are what a Rotator puts in the place of
	// Reference and Secret, and by which rotation.
	Rotation     uuid.UUID
	NewReference string
	NewSecret    Secret
	// Key is the same for every attempt of one cascade at one item.
	Key string
	// Fence returns an error where the attempt has lost its lease on the account; nil
	// where there is no lease. See [Target.CheckFence].
	Fence func(ctx context.Context) error
}

// CheckFence returns an error where another attempt has taken the account over. A
// connector calls it right before each request that changes the downstream, after
// whatever it looks up first: a worker that was stopped must not act on what was true
// before. The error is retryable.
func (t Target) CheckFence(ctx context.Context) error {
	if t.Fence == nil {
		return nil
	}
	return t.Fence(ctx)
}

// Connector is an adapter to one configured downstream system.
type Connector interface {
	// Accepts returns the canonical spelling of the registration's reference, so that
	// two spellings never pass for two accounts, or says why it cannot be registered here.
	Accepts(r Registration) (reference string, err error)
	// Close frees what the connector holds.
	Close()
}

// Revoker ends a credential for good.
type Revoker interface {
	Revoke(ctx context.Context, t Target) (Answer, error)
}

// Rotator puts a new secret beside an account's old one, and ends the old one
// once those who go on have the new. Each call can be repeated.
type Rotator interface {
	// Successor is the reference that the new secret will have: the old one where
	// only the secret changes. It depends on the target alone.
	Successor(t Target) string
	// Renew makes t.NewSecret work at t.NewReference.
	Renew(ctx context.Context, t Target) (Answer, error)
	// Retire ends t.Secret at t.Reference, and what it opened.
	Retire(ctx context.Context, t Target) (Answer, error)
}

// Publisher hands a new secret to those who go on with an account, at least once.
type Publisher interface {
	Publish(ctx context.Context, p Publication) (Answer, error)
}

// Publication is a new secret and whom it is for.
type Publication struct {
	Tenant    uuid.UUID
	Rotation  uuid.UUID // the same whenever it is published again
	Sequence  int64     // grows with each rotation; a receiver ignores a publication that is older than its last
	Connector string
	Kind      Kind
	Account   string // the reference that the first rotation found: it stays
	Previous  string // the reference that it replaces
	Reference string
	Secret    Secret
	// Holders are the items of those who go on; ReliedOnBy names others.
	Holders    []uuid.UUID
	ReliedOnBy []string
}

// Blocker keeps something from being used in a way that can be undone, while a
// brake holds its end back.
type Blocker interface {
	Block(ctx context.Context, t Target) (Answer, error)
}

// Discoverer lists what a downstream holds for principals by its own labels,
// whether or not anybody registered it.
type Discoverer interface {
	Discover(ctx context.Context, principals []uuid.UUID) ([]Found, error)
}

// Found is something that a downstream says is a principal's.
type Found struct {
	Kind      Kind
	Reference string
	Principal uuid.UUID
	Scopes    []string
	ExpiresAt *time.Time
}

// Located is implemented by connectors whose downstream has an address. Two connectors with
// the same type and address reach the same accounts.
type Located interface{ Downstream() string }

// OptionalDiscoverer is implemented by a [Discoverer] that can list credentials only with
// some settings.
type OptionalDiscoverer interface{ CanDiscover() bool }

// OptionalVerifier is implemented by a [Verifier] that has a probe only for some credentials.
type OptionalVerifier interface {
	CanVerify(kind Kind, hasSecret bool) bool
}

// OptionalNotifier is implemented by a [Notifier] that is notified only with some settings.
type OptionalNotifier interface{ WantsNotifications() bool }

// Issuer makes a credential of no consequence for a drill. It is the cascade that
// ends it.
type Issuer interface {
	// Issue makes one by that name. Its Secret is what a platform would register.
	Issue(ctx context.Context, name string, principal uuid.UUID) (Issued, error)
	// Remove clears away what is left of the one of that name, if anything is.
	Remove(ctx context.Context, name string) error
}

// Issued is what a drill was given.
type Issued struct {
	Kind      Kind
	Reference string
	Secret    Secret
	ExpiresAt *time.Time
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

// Guard is implemented by connectors that know accounts which are never ended, such as those
// that the downstream or leaver runs on. Reserved returns a permanent error for one of them.
// It returns nil if the downstream does not answer: the act is refused as well.
type Guard interface {
	Reserved(ctx context.Context, reference string) error
}

// Possession checks whether the registrant possesses the credential, for example by a login
// with the registered password. Otherwise knowing an account's name would be enough to obtain
// a login by rotation. Possesses returns Alive if possession is proven. With Dead or Unknown,
// the detail is the reason. It returns an error if the check failed.
type Possession interface {
	Possesses(ctx context.Context, t Target) (Vitality, string, error)
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
	// Entitlements are what principals gained and lost by the event.
	Entitlements []EntitlementChange `json:"entitlements,omitempty"`
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
