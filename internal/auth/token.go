// Package auth authenticates callers by leaver's own tokens and by the JWTs of trusted issuers.
package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Store authenticates callers, and reads and writes tokens and trusted issuers.
type Store struct {
	db      *database.DB
	callers *cache.Cache[[32]byte, validity]
	issuers *cache.Cache[string, []issuer]
	keys    *cache.Cache[string, *keySet]
}

const (
	// cacheTTL bounds how long, after a look-up, a process may accept a token that another process has revoked.
	cacheTTL = time.Second
	maxCache = 10_000 // entries
)

// NewStore returns the store on db. A process uses one store: a revocation through it takes
// effect at once.
func NewStore(db *database.DB, tenants *tenant.Store) *Store {
	s := &Store{
		db:      db,
		callers: cache.New[[32]byte, validity](maxCache, cacheTTL),
		issuers: cache.New[string, []issuer](maxCache, cacheTTL),
		keys:    cache.New[string, *keySet](maxKeySets, 0),
	}
	tenants.OnChange(s.forget)
	return s
}

// forget drops what is cached, after a change.
func (s *Store) forget() {
	s.callers.Clear()
	s.issuers.Clear()
}

// Class selects the API that accepts a token.
type Class string

// The classes.
const (
	ClassSCIM     Class = "scim"     // an IdP connection of one tenant
	ClassPlatform Class = "platform" // an agent platform of one tenant
	ClassOperator Class = "operator" // the installation's operators; of no tenant
	ClassReceiver Class = "receiver" // a receiver of a tenant's security events
	// ClassApprover approves held cascades and loosens deactivation thresholds; of no tenant. Only
	// commands with access to the database issue it, so that an operator cannot issue one.
	ClassApprover Class = "approver"
	ClassViewer   Class = "viewer"  // may read cascades, principals and connectors; of no tenant
	ClassAuditor  Class = "auditor" // may also read tokens, acts and evidence, and export evidence; of no tenant
	// ClassGateway asks for decisions and looks up names. Only the token endpoint issues it, for the scope
	// authzen; a token of class platform may do the same.
	ClassGateway Class = "gateway"
	// classClient is the stored class of the tokens of clients, whose scopes decide which classes they have.
	classClient Class = "client"
)

// tokenPrefix lets secret scanners recognise a token, and people its class.
const tokenPrefix = "leaver"

// ErrUnauthorized is returned if no valid token was presented. It does not reveal the reason.
var ErrUnauthorized = errors.New("the token is unknown, expired or revoked")

// ErrTokenNotFound is returned if the tenant has no token with the id.
var ErrTokenNotFound = fault.New(fault.NotFound, "no such token")

// Token is the metadata of a token. The secret is not stored.
type Token struct {
	ID          uuid.UUID  `json:"id"`
	Class       Class      `json:"class"`
	Description string     `json:"description"`
	CreatedAt   time.Time  `json:"createdAt"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
	RevokedAt   *time.Time `json:"revokedAt,omitempty"`
	LastUsedAt  *time.Time `json:"lastUsedAt,omitempty"`
	CreatedBy   string     `json:"createdBy,omitempty"`
	// Issuer is the issuer of the tokens that a platform sees; empty if it named none.
	Issuer string `json:"issuer,omitempty"`
	// SessionOf is the token that a session of the console was opened with; nil for other tokens.
	SessionOf *uuid.UUID `json:"sessionOf,omitempty"`
}

// Caller is the owner of a valid token.
type Caller struct {
	TokenID uuid.UUID // for a JWT, the id of its issuer; for a session, the id of the token it was opened with
	Class   Class
	Tenant  tenant.Tenant // zero for operators
	// Subject is the subject of a JWT; empty for leaver's tokens.
	Subject string
	// Issuer is the issuer of the tokens that a platform sees; empty if it named none.
	Issuer string
	// Scopes are those of a client's access token, of which TokenID is the client; nil for other tokens.
	Scopes []Scope
}

// May reports whether the caller's token permits what a scope stands for. The scopes of tokens that are not
// a client's are those of their class.
func (c Caller) May(scope Scope) bool { return c.Scopes == nil || slices.Contains(c.Scopes, scope) }

// NameIssuers returns the issuers whose names the caller means by a `sub` or a client_id: its own,
// and the directory, which is the empty string, unless the tenant lists other subject issuers.
func (c Caller) NameIssuers() []string {
	if c.Issuer == "" || c.Tenant.NamesSubjectsOf(c.Issuer) {
		return []string{"", c.Issuer}
	}
	return []string{c.Issuer}
}

// Actor returns the name of the caller for events, evidence and acts.
func (c Caller) Actor() string {
	if c.Subject != "" {
		return "jwt/" + c.TokenID.String() + "/" + c.Subject
	}
	if c.Scopes != nil {
		return ClientActor(c.TokenID)
	}
	return string(c.Class) + "-token/" + c.TokenID.String()
}

// ClientActor returns the name of a client for events, evidence and acts.
func ClientActor(id uuid.UUID) string { return "client/" + id.String() }

// NewToken describes a token to issue. TTL zero means that it does not expire.
type NewToken struct {
	Class       Class
	Description string
	TTL         time.Duration
	Issuer      string // for platforms: the issuer of the tokens that they see
}

// installationClasses returns the classes of tokens that belong to no tenant.
func installationClasses() []Class { return append(OperatorClasses(), ClassApprover) }

// OperatorClasses returns the classes of tokens without a tenant that the API issues: those of operators, viewers and
// auditors.
func OperatorClasses() []Class { return []Class{ClassOperator, ClassViewer, ClassAuditor} }

// Issue creates a token and returns its secret, which is not stored. Tokens of operators, viewers, auditors and
// approvers require the zero tenant.
func (s *Store) Issue(ctx context.Context, tenant uuid.UUID, n NewToken) (Token, string, error) {
	if slices.Contains(installationClasses(), n.Class) != (tenant == uuid.Nil) {
		return Token{}, "", fmt.Errorf("a token of class %s cannot belong to tenant %s", n.Class, tenant)
	}
	secret := newSecret(string(n.Class))
	t := Token{ID: uuid.New(), Class: n.Class, Description: n.Description, CreatedBy: audit.Actor(ctx), Issuer: n.Issuer}
	if n.TTL > 0 {
		expires := time.Now().Add(n.TTL).UTC().Truncate(time.Second)
		t.ExpiresAt = &expires
	}
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			insert into tokens (id, tenant_id, class, hash, description, expires_at, created_by, issuer)
			values ($1, nullif($2, '00000000-0000-0000-0000-000000000000'::uuid), $3, $4, $5, $6, $7, $8)
			returning created_at`,
			t.ID, tenant, t.Class, hash(secret), t.Description, t.ExpiresAt, t.CreatedBy, t.Issuer).Scan(&t.CreatedAt)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.TokenIssue, t.ID.String(), nil, t)
	})
	if err != nil {
		return Token{}, "", fmt.Errorf("issue a token: %w", err)
	}
	return t, secret, nil
}

// newSecret returns the secret of a new token, which shows its kind.
func newSecret(kind string) string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	return strings.Join([]string{tokenPrefix, kind, base64.RawURLEncoding.EncodeToString(raw)}, "_")
}

// issuedByAPI returns the token classes that operators manage. Approvers' tokens are not
// among them: an operator who revokes them could prevent approvals.
func issuedByAPI() []Class {
	return append([]Class{ClassSCIM, ClassPlatform, ClassReceiver}, OperatorClasses()...)
}

// Tokens lists the tokens of a tenant, or of the installation for the zero tenant, with the open sessions. classes
// defaults to those that operators manage.
func (s *Store) Tokens(ctx context.Context, tenant uuid.UUID, classes ...Class) ([]Token, error) {
	if len(classes) == 0 {
		classes = issuedByAPI()
	}
	var tokens []Token
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select id, class, description, created_at, expires_at, revoked_at, last_used_at, created_by, issuer, session_of
			  from tokens where tenant_id is not distinct from leaver_tenant() and class = any ($1)
			   and (session_of is null or revoked_at is null and expires_at > now())
			 order by created_at, id`, classes)
		if err != nil {
			return err
		}
		tokens, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Token])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return tokens, nil
}

// Revoke revokes a token: at once in this process, within cacheTTL in others. Revoking it again is not
// an error. The streams of a receiver's token are paused. The token must be of one of the classes, which default to
// those that operators manage.
// Error: [ErrTokenNotFound].
func (s *Store) Revoke(ctx context.Context, tenant, id uuid.UUID, classes ...Class) error {
	if len(classes) == 0 {
		classes = issuedByAPI()
	}
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var before Token
		err := tx.QueryRow(ctx, `
			select id, class, description, created_at, expires_at, revoked_at, created_by from tokens
			 where id = $1 and tenant_id is not distinct from leaver_tenant() and class = any ($2) for update`, id, classes).
			Scan(&before.ID, &before.Class, &before.Description,
				&before.CreatedAt, &before.ExpiresAt, &before.RevokedAt, &before.CreatedBy)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrTokenNotFound
		case err != nil:
			return err
		case before.RevokedAt != nil:
			return nil
		}
		if _, err := tx.Exec(ctx, `update tokens set revoked_at = now() where id = $1`, id); err != nil {
			return err
		}
		if before.Class == ClassReceiver {
			actor := Caller{TokenID: id, Class: ClassReceiver}.Actor()
			if err := pauseStreams(ctx, tx, tenant, actor, "the token was revoked"); err != nil {
				return err
			}
		}
		return audit.Record(ctx, tx, tenant, audit.TokenRevoke, id.String(), before, nil)
	})
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	s.forget()
	return nil
}

// validity is the cached state of a valid token.
type validity struct {
	caller  Caller
	expires *time.Time
}

// Authenticate returns the caller if secret is a valid token of one of the classes. The look-up is by
// hash, so no secret is compared byte by byte. A valid token is cached for cacheTTL.
// Error: [ErrUnauthorized].
func (s *Store) Authenticate(ctx context.Context, secret string, classes ...Class) (Caller, error) {
	if !strings.HasPrefix(secret, tokenPrefix+"_") {
		return Caller{}, ErrUnauthorized // not a token of leaver: no look-up
	}
	sum := sha256.Sum256([]byte(secret))
	v, err := s.callers.Get(ctx, sum, func(ctx context.Context) (validity, error) { return s.lookUp(ctx, sum) })
	if err != nil {
		return Caller{}, err
	}
	if v.expires != nil && !time.Now().Before(*v.expires) {
		return Caller{}, ErrUnauthorized
	}
	if v.caller.Class == classClient {
		v.caller.Class = classAmong(classes, v.caller.Scopes)
	}
	if !slices.Contains(classes, v.caller.Class) {
		return Caller{}, ErrUnauthorized
	}
	return v.caller, nil
}

// classAmong returns the first class that the scopes permit, or "".
func classAmong(classes []Class, scopes []Scope) Class {
	for _, class := range classes {
		if slices.ContainsFunc(scopes, func(s Scope) bool { return s.class() == class }) {
			return class
		}
	}
	return ""
}

func (s *Store) lookUp(ctx context.Context, sum [32]byte) (validity, error) {
	var v validity
	var of *tenant.Row
	err := database.Together(ctx, s.db, uuid.Nil, database.Statement{
		SQL:  `select id, class, issuer, scopes, expires_at, tenant from authenticate_token($1)`,
		Args: []any{sum[:]},
		Collect: database.Fields(
			&v.caller.TokenID, &v.caller.Class, &v.caller.Issuer, &v.caller.Scopes, &v.expires, &of),
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return validity{}, ErrUnauthorized
	}
	if err != nil {
		return validity{}, fmt.Errorf("authenticate: %w", err)
	}
	if of != nil {
		v.caller.Tenant = tenant.Tenant(*of)
	}
	if v.caller.Class != classClient {
		v.caller.Scopes = nil
	}
	return v, nil
}

// Bearer returns the bearer token of a request's Authorization header (RFC 6750 section 2.1),
// or "". It rejects repeated headers, of which a proxy may have checked a different one.
func Bearer(header http.Header) string {
	values := header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}

// hash returns the SHA-256 hash of a secret. A slow hash is not needed, since a secret has 256 random
// bits.
func hash(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
