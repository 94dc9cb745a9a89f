// Package ssf implements a transmitter of the OpenID Shared Signals Framework 1.0: streams of security
// event tokens (RFC 8417) that are pushed (RFC 8935) or polled (RFC 8936). Signals are stored in the
// transaction of the change that they report ([Record]).
package ssf

import (
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/seal"
)

// The URNs of the delivery methods.
const (
	PushURN = "urn:ietf:rfc:8935"
	PollURN = "urn:ietf:rfc:8936"
)

const (
	// VerificationEvent is the event that tests the delivery of a stream (SSF 1.0 section 8.1.4).
	VerificationEvent = "https://schemas.openid.net/secevent/ssf/event-type/verification"

	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	prov = "urn:ietf:params:scim:event:"
)

// The events that leaver emits or receives.
const (
	SessionRevoked       = caep + "session-revoked"
	AccountDisabled      = risc + "account-disabled"
	AccountPurged        = risc + "account-purged"
	AccountEnabled       = risc + "account-enabled"
	CredentialCompromise = risc + "credential-compromise"
)

// The other events of CAEP 1.0 and RFC 9967 that leaver emits.
const (
	CredentialChange = caep + "credential-change"
	ClaimsChange     = caep + "token-claims-change"
	CreateNotice     = prov + "prov:create:notice"
	PutNotice        = prov + "prov:put:notice"
	PatchNotice      = prov + "prov:patch:notice"
	Delete           = prov + "prov:delete"
	Activate         = prov + "prov:activate"
	Deactivate       = prov + "prov:deactivate"
	AsyncResponse    = prov + "misc:asyncresp"
)

// Events lists the events that streams may carry: of CAEP 1.0, RISC 1.0 and RFC 9967.
func Events() []string {
	return []string{
		SessionRevoked, CredentialChange, ClaimsChange, AccountDisabled, AccountEnabled, AccountPurged,
		CreateNotice, PutNotice, PatchNotice, Delete, Activate, Deactivate, AsyncResponse,
	}
}

// Status is whether a stream delivers.
type Status string

// The statuses (SSF 1.0 section 8.1.2).
const (
	Enabled  Status = "enabled"
	Paused   Status = "paused"   // signals are stored, and delivered later
	Disabled Status = "disabled" // signals are discarded
)

// Statuses returns all statuses.
func Statuses() []Status { return []Status{Enabled, Paused, Disabled} }

// The errors of this package.
var (
	ErrStreamNotFound = fault.New(fault.NotFound, "no such stream")
	// ErrTooMany bounds how many streams a tenant has.
	ErrTooMany = fault.New(fault.Conflict, "the tenant has as many streams as it may have")
)

// Stream is a stream's configuration.
type Stream struct {
	ID          uuid.UUID
	Issuer      string
	Audience    []string
	Push        bool
	Endpoint    string            // of push
	Header      connectors.Secret // the Authorization header of pushes; write-only
	Requested   []string
	Events      []string // the delivered event types
	Description string
	Status      Status
	Reason      string
	CreatedBy   string
	CreatedAt   time.Time
	LastError   string
	LastErrorAt *time.Time
	// SubjectFormat is how subjects are named: empty, FormatIssuer with SubjectIssuer, or FormatEmail.
	SubjectFormat, SubjectIssuer string
}

// delivered returns the requested events that leaver supports, or all supported events if none is
// requested.
func delivered(requested []string) []string {
	if len(requested) == 0 {
		return Events()
	}
	return slices.DeleteFunc(Events(), func(e string) bool { return !slices.Contains(requested, e) })
}

// Retention is how long undelivered signals are kept, and how long settled ones are.
const Retention = 7 * 24 * time.Hour

// maxStreams limits the number of streams of a tenant.
const maxStreams = 50

// Store stores streams, their signals, and the signing keys.
type Store struct {
	db     *database.DB
	sealer *seal.Sealer
	// signers and public hold one value each: the signer, and the keys that are served.
	signers *cache.Cache[struct{}, jose.Signer]
	public  *cache.Cache[struct{}, []byte]
	stored  broadcast
}

// NewStore returns the store on db.
func NewStore(db *database.DB, sealer *seal.Sealer) *Store {
	return &Store{
		db: db, sealer: sealer,
		signers: cache.New[struct{}, jose.Signer](1, keyReloadInterval), public: cache.New[struct{}, []byte](1, jwksLife),
	}
}
