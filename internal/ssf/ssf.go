// Package ssf tells receivers what happened, as the OpenID Shared Signals Framework
// 1.0 has it: streams of security event tokens (RFC 8417), pushed (RFC 8935) or
// polled (RFC 8936). Signals are stored by the transaction that makes them true ([Record]).
package ssf

import (
	"slices"
	"time"

	"github.com/leaverhq/leaver/internal/fault"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
)

// The URNs of the delivery methods.
const (
	PushURN = "urn:ietf:rfc:8935"
	PollURN = "urn:ietf:rfc:8936"
)

const (
	// VerificationEvent asks a receiver to show that the stream works (SSF 1.0
	// section 8.1.4).
	VerificationEvent = "https://schemas.openid.net/secevent/ssf/event-type/verification"

	caep = "https://schemas.openid.net/secevent/caep/event-type/"
	risc = "https://schemas.openid.net/secevent/risc/event-type/"
	prov = "urn:ietf:params:scim:event:"
)

// The events that others send to leaver, too.
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
	Paused   Status = "paused"   // what happens is held, and delivered later
	Disabled Status = "disabled" // what happens is not told
)

// Statuses lists all.
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
	Header      connectors.Secret // the Authorization header of pushes; only on the way in
	Requested   []string
	Events      []string // what is delivered
	Description string
	Status      Status
	Reason      string
	CreatedBy   string
	CreatedAt   time.Time
	LastError   string
	LastErrorAt *time.Time
}

// delivered is what of the requested events leaver has to tell; all, where none is
// requested.
func delivered(requested []string) []string {
	if len(requested) == 0 {
		return Events()
	}
	return slices.DeleteFunc(Events(), func(e string) bool { return !slices.Contains(requested, e) })
}

// Retention is how long what is not delivered is kept, and what is delivered.
const Retention = 7 * 24 * time.Hour

// maxStreams is how many streams a tenant may have.
const maxStreams = 50

// Store keeps streams, what they have to deliver, and the keys that sign it.
type Store struct {
	db     *database.DB
	sealer *seal.Sealer
	// signers and public hold one value each: the signer, and the keys that are served.
	signers *cache.Cache[struct{}, jose.Signer]
	public  *cache.Cache[struct{}, []byte]
}

// NewStore returns the store on db.
func NewStore(db *database.DB, sealer *seal.Sealer) *Store {
	return &Store{
		db: db, sealer: sealer,
		signers: cache.New[struct{}, jose.Signer](1, keyLook), public: cache.New[struct{}, []byte](1, jwksLife),
	}
}
