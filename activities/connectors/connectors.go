// Package connectors defines the interfaces of adapters to downstream systems: small
// capabilities that the activities detect by type assertion. A connector classifies each
// error as permanent or retryable.
//
// A connector never retries, since Temporal does. "Already gone" is success.
package connectors

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Target is the credential or scheduled run that a connector call acts on.
type Target struct {
	Tenant    uuid.UUID
	Item      uuid.UUID
	Principal uuid.UUID // that it was issued for
	Agent     uuid.UUID // that holds it; zero if none does
	Kind      Kind
	Reference string // the downstream's own name for it, e.g. a role or schedule id
	Account   string // the reference that a first rotation found; before one, Reference
	Secret    Secret // empty where none was registered
	ExpiresAt *time.Time
	// Rotation is the id of a rotation, in which a Rotator replaces Reference and Secret
	// by NewReference and NewSecret.
	Rotation     uuid.UUID
	NewReference string
	NewSecret    Secret
	// Key is the same for every attempt of one cascade at one item.
	Key string
	// Fence returns an error if the attempt has lost its lease on the account. It is nil if
	// there is no lease. See [Target.CheckFence].
	Fence func(ctx context.Context) error
}

// CheckFence returns a retryable error if another attempt has taken over the account. A
// connector calls it immediately before each request that changes the downstream, after
// its reads, so that a worker that was suspended does not act on outdated data.
func (t Target) CheckFence(ctx context.Context) error {
	if t.Fence == nil {
		return nil
	}
	return t.Fence(ctx)
}

// Connector is an adapter to one configured downstream system.
type Connector interface {
	// Accepts returns the canonical spelling of the registration's reference, so that two
	// spellings never count as two accounts, or an error if it cannot be registered here.
	Accepts(r Registration) (reference string, err error)
	// Close releases the connector's resources.
	Close()
}

// Revoker ends a credential permanently.
type Revoker interface {
	Revoke(ctx context.Context, t Target) (Answer, error)
}

// BulkRevoker is implemented by a [Revoker] whose downstream ends several credentials with one request.
type BulkRevoker interface {
	Revoker
	// Bulk returns the maximum number of credentials of one request.
	Bulk() int
	// RevokeBulk ends at most Bulk credentials with one request. It returns what the answer says about each, in their
	// order.
	RevokeBulk(ctx context.Context, targets []Target) []Ended
}

// Ended is what an answer says about one of several credentials.
type Ended struct {
	Answer
	Err error // retryable if Ambiguous is set
	// Ambiguous is set if the answer may be about another credential of the request: repeat it with fewer credentials to
	// tell them apart.
	Ambiguous bool
}

// Settler is implemented by a [Revoker] whose downstream confirms an end before it takes effect. Settles returns how
// long that may take, or 0 if an end takes effect at once. Meanwhile a confirmed end is not requested again.
type Settler interface{ Settles() time.Duration }

// Rotator adds a new secret to an account, and ends the old one after the remaining
// holders have the new one. Each call can be repeated.
type Rotator interface {
	// Renew makes t.NewSecret work at t.NewReference.
	Renew(ctx context.Context, t Target) (Answer, error)
	// Retire ends t.Secret at t.Reference, and the sessions that it opened.
	Retire(ctx context.Context, t Target) (Answer, error)
}

// Renamer is implemented by a [Rotator] whose new secrets have another reference than the old ones.
type Renamer interface {
	// Successor returns the reference of the new secret. It depends only on the target.
	Successor(t Target) string
}

// Generator is implemented by a [Rotator] whose downstream generates the new secret, as clouds generate access keys.
type Generator interface {
	// Generate creates a new secret next to the old one, or returns Gone. It is called again if its result was not
	// stored. It never deletes a secret, since it cannot distinguish an earlier result from a secret of another owner.
	// Renew follows with the result, and may be repeated.
	Generate(ctx context.Context, t Target) (Generated, error)
}

// Generated is a secret that a downstream has generated.
type Generated struct {
	Answer
	Reference string // of the new secret
	Secret    Secret // the new secret
}

// Publisher publishes a new secret to the remaining holders of an account, at least once.
type Publisher interface {
	Publish(ctx context.Context, p Publication) (Answer, error)
}

// Publication is a new secret and its holders.
type Publication struct {
	Tenant    uuid.UUID
	Rotation  uuid.UUID // the same in each publication of the rotation
	Sequence  int64     // grows with each rotation; a receiver ignores publications older than its last
	Connector string
	Kind      Kind
	Account   string // the reference before the first rotation, which does not change
	Previous  string // the reference that is replaced
	Reference string
	Secret    Secret
	// Holders are the items of the remaining holders; ReliedOnBy names other users of the account.
	Holders    []uuid.UUID
	ReliedOnBy []string
}

// Blocker reversibly blocks a credential or scheduled run while its end is held for
// approval.
type Blocker interface {
	Block(ctx context.Context, t Target) (Answer, error)
}

// Unblocker undoes a block after its cascade was cancelled. It is called only for what a probe saw alive before the
// block, and what nothing has ended since.
type Unblocker interface {
	Unblock(ctx context.Context, t Target) (Answer, error)
}

// Discoverer lists the credentials and scheduled runs that a downstream's own labels or
// owners attribute to principals, registered or not.
type Discoverer interface {
	Discover(ctx context.Context, principals []Principal) ([]Found, error)
}

// Principal is a principal whose credentials are listed.
type Principal struct {
	ID uuid.UUID
	// Names are the names by which a downstream may know the principal, such as e-mail addresses. No other
	// principal of the tenant has one of them.
	Names []string
}

// IDs returns the ids of principals.
func IDs(principals []Principal) []uuid.UUID {
	ids := make([]uuid.UUID, len(principals))
	for i, p := range principals {
		ids[i] = p.ID
	}
	return ids
}

// Found is a credential or scheduled run that a downstream attributes to a principal.
type Found struct {
	Kind      Kind
	Reference string
	Principal uuid.UUID
	// Named is set if the downstream names the principal, for example by an e-mail address, and not by its SCIM id:
	// then the credential is never claimed automatically.
	Named     bool
	Scopes    []string
	ExpiresAt *time.Time
}

// Located is implemented by connectors whose downstream has an address. Two connectors with
// the same type and address reach the same accounts.
type Located interface{ Downstream() string }

// Optional is implemented by connectors that have some capabilities only with some settings. Can reports
// whether the connector has a capability, which is a nil pointer to its interface, such as (*Revoker)(nil).
type Optional interface{ Can(capability any) bool }

// As returns a capability of a connector, such as As[Revoker](c), or false if it does not have it.
func As[T any](c Connector) (capability T, ok bool) {
	if optional, is := c.(Optional); is && !optional.Can((*T)(nil)) {
		return capability, false
	}
	capability, ok = c.(T)
	return capability, ok
}

// Minter is implemented by connectors with whose credentials others are issued, such as the refresh tokens of an IdP
// or the connections of a broker. A cascade ends them first, with the scheduled runs.
type Minter interface{ Mints() bool }

// Checker makes a harmless authenticated call. It returns a permanent error if the connector's credentials
// or rights are not sufficient.
type Checker interface {
	Check(ctx context.Context) error
}

// OptionalVerifier is implemented by a [Verifier] that has a probe only for some credentials.
type OptionalVerifier interface {
	CanVerify(kind Kind, hasSecret bool) bool
}

// Issuer issues a credential without rights for a drill. The drill's cascade ends it.
type Issuer interface {
	// Issue creates the credential of that name. Its Secret is the one that a platform
	// would register.
	Issue(ctx context.Context, name string, principal uuid.UUID) (Issued, error)
	// Remove deletes the remains of the credential of that name, if there are any.
	Remove(ctx context.Context, name string) error
}

// Issued is a credential that was issued for a drill.
type Issued struct {
	Kind      Kind
	Reference string
	Secret    Secret
	ExpiresAt *time.Time
}

// Canceller ends a scheduled run and the executions that it started.
type Canceller interface {
	Cancel(ctx context.Context, t Target) (Answer, error)
}

// Verifier probes whether the target is alive, by a login, an introspection or a use. An
// error means that the probe could not be made, which proves nothing.
type Verifier interface {
	Probe(ctx context.Context, t Target) (Vitality, string, error)
}

// Prover is a Verifier with a stronger probe for use after the end. It may consume the
// credential, such as a refresh that must fail.
type Prover interface {
	Verifier
	Prove(ctx context.Context, t Target) (Vitality, string, error)
}

// Guard is implemented by connectors with accounts that are never ended, such as those that
// the downstream or leaver runs on. Reserved returns a permanent error for one of them. It
// returns nil if the downstream does not answer: the connector checks again before it acts.
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

// Notifier sends notifications of lifecycle changes to a platform.
type Notifier interface {
	Notify(ctx context.Context, n Notification) error
}

// Notification is a lifecycle change as sent to a platform. It contains only ids.
type Notification struct {
	Key       string    `json:"-"`
	Type      string    `json:"type"` // e.g. principal.leaver
	Tenant    uuid.UUID `json:"tenantId"`
	Event     uuid.UUID `json:"eventId"`
	Principal uuid.UUID `json:"principalId"`
	Resource  string    `json:"resourceType"`
	Changed   []string  `json:"changed,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
	// Entitlements are the entitlements that principals gained and lost by the event.
	Entitlements []EntitlementChange `json:"entitlements,omitempty"`
}

// Outcome is the downstream's answer to a revocation, rotation or cancellation.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"    // confirmed
	Gone    Outcome = "gone"    // did not exist any more
	Expires Outcome = "expires" // cannot be ended; expires by itself at ExpiresAt
	// Unchanged is an outcome of Block alone: it was disabled before the block, so that there is nothing to undo.
	Unchanged Outcome = "unchanged"
)

// Answer is the downstream's answer, with a detail for the evidence. The detail contains
// no secret.
type Answer struct {
	Outcome Outcome
	Detail  string
}

// Vitality is the result of a probe.
type Vitality string

// The vitalities.
const (
	Alive   Vitality = "alive"
	Dead    Vitality = "dead"
	Unknown Vitality = "unknown" // the downstream cannot be probed for it
)
