package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Issuer is an authorisation server whose JWTs a tenant accepts: for SCIM (Entra, or a server that
// issues them for client credentials), for global token revocation, or as security events.
type Issuer struct {
	ID       uuid.UUID `json:"id"`
	Issuer   string    `json:"issuer"`   // the iss claim
	Audience string    `json:"audience"` // the aud claim
	JWKSURL  string    `json:"jwksUrl"`  // where its keys are (RFC 7517)
	// Subjects lists the accepted subjects, for every use. `claim=value` matches one claim:
	// sub, or azp, appid or client_id of a token that was issued to the application itself
	// and not to a user. A bare value matches sub, or the client if the token has no sub. If
	// the list is empty, every token of the issuer with that audience is accepted.
	Subjects  []string  `json:"subjects"`
	Uses      []Use     `json:"uses"` // the APIs that accept its tokens
	CreatedAt time.Time `json:"createdAt"`
	// IntrospectionURL is where the issuer answers whether a token is active (RFC 7662), for the use access.
	IntrospectionURL string `json:"introspectionUrl,omitempty"`
}

// Use is an API that accepts an issuer's tokens. No use implies another.
type Use string

// The uses.
const (
	UseSCIM       Use = "scim"
	UseRevocation Use = "revocation" // global token revocation
	UseEvents     Use = "events"     // security events, as a transmitter
	UseAccess     Use = "access"     // tokens of users and agents, which gateways see
)

// Uses returns all uses.
func Uses() []Use { return []Use{UseSCIM, UseRevocation, UseEvents, UseAccess} }

// issuer is an issuer with its tenant.
type issuer struct {
	Issuer
	tenant tenant.Tenant
}

// The errors of issuers.
var (
	ErrIssuerNotFound = fault.New(fault.NotFound, "no such issuer")
	ErrIssuerExists   = fault.New(fault.Conflict,
		"the tenant already has this issuer with this audience: to change it, remove it and add it again")
)

const (
	maxClaim    = 512 // bytes
	maxSubjects = 100
	// leeway is the tolerated difference between clocks.
	leeway = time.Minute
)

// Algorithms returns the asymmetric signature algorithms of RFC 7518 and RFC 8037.
func Algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// AddIssuer adds an issuer whose JWTs the tenant accepts. Errors: [InvalidIssuerError], [ErrIssuerExists].
func (s *Store) AddIssuer(ctx context.Context, tenant uuid.UUID, i Issuer) (Issuer, error) {
	if err := check(i); err != nil {
		return Issuer{}, err
	}
	i.ID = uuid.New()
	if i.Subjects == nil {
		i.Subjects = []string{}
	}
	if len(i.Uses) == 0 {
		i.Uses = []Use{UseSCIM}
	}
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			insert into issuers (tenant_id, id, issuer, audience, jwks_url, subjects, uses, introspection_url)
			values ($1, $2, $3, $4, $5, $6, $7, $8)
			returning created_at`, tenant, i.ID, i.Issuer, i.Audience, i.JWKSURL, i.Subjects, i.Uses, i.IntrospectionURL).
			Scan(&i.CreatedAt)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.IssuerAdd, i.ID.String(), nil, i)
	})
	if database.IsUniqueViolation(err, "issuers_tenant_id_issuer_audience_key") {
		return Issuer{}, ErrIssuerExists
	}
	if err != nil {
		return Issuer{}, fmt.Errorf("add issuer: %w", err)
	}
	s.forget()
	return i, nil
}

// InvalidIssuerError is returned for an issuer with an invalid field.
type InvalidIssuerError struct{ Field, Reason string }

func (e *InvalidIssuerError) Error() string { return e.Field + ": " + e.Reason }

// Code implements [fault.Coded].
func (e *InvalidIssuerError) Code() fault.Code { return fault.Unprocessable }

func check(i Issuer) error {
	for field, text := range map[string]string{"issuer": i.Issuer, "audience": i.Audience, "jwksUrl": i.JWKSURL} {
		if text == "" || len(text) > maxClaim {
			return &InvalidIssuerError{field, fmt.Sprintf("must be 1 to %d bytes long", maxClaim)}
		}
	}
	if err := checkURL("jwksUrl", i.JWKSURL); err != nil {
		return err
	}
	if i.IntrospectionURL != "" {
		if err := checkURL("introspectionUrl", i.IntrospectionURL); err != nil {
			return err
		}
		if !slices.Contains(i.Uses, UseAccess) {
			return &InvalidIssuerError{"introspectionUrl", "requires the use access: add it to uses"}
		}
	}
	invalid := func(s string) bool { return s == "" || len(s) > maxClaim }
	if len(i.Subjects) > maxSubjects || slices.ContainsFunc(i.Subjects, invalid) {
		return &InvalidIssuerError{"subjects", fmt.Sprintf(
			"must be at most %d entries of 1 to %d bytes", maxSubjects, maxClaim)}
	}
	return checkUses(i)
}

// checkURL returns an error unless a text is an absolute https URL, or one of http on loopback.
func checkURL(field, text string) *InvalidIssuerError {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || len(text) > maxClaim {
		return &InvalidIssuerError{field, "must be an absolute URL, without user information"}
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !IsLoopback(u.Hostname())) {
		return &InvalidIssuerError{field, "must use https; http is allowed on loopback only"}
	}
	return nil
}

// IsLoopback reports whether a host, without a port, is this machine.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// checkUses checks that scim is not combined with other uses, and that revocation names its callers.
func checkUses(i Issuer) error {
	for _, use := range i.Uses {
		switch {
		case !slices.Contains(Uses(), use):
			return &InvalidIssuerError{"uses", fmt.Sprintf("must be one of %v, got %q", Uses(), use)}
		case use == UseSCIM && len(i.Uses) > 1:
			return &InvalidIssuerError{"uses", "scim cannot be combined with other uses: use another audience for them"}
		case use == UseRevocation && len(i.Subjects) == 0:
			return &InvalidIssuerError{"subjects", "are required for revocation: list the callers that may end principals"}
		}
	}
	return nil
}

// Issuers lists a tenant's issuers.
func (s *Store) Issuers(ctx context.Context, tenant uuid.UUID) ([]Issuer, error) {
	issuers, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Issuer], `
		select id, issuer, audience, jwks_url, subjects, uses, created_at, introspection_url
		  from issuers where tenant_id = $1 order by created_at, id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list issuers: %w", err)
	}
	return issuers, nil
}

// RemoveIssuer removes an issuer, whose JWTs are then rejected. Error: [ErrIssuerNotFound].
func (s *Store) RemoveIssuer(ctx context.Context, tenant, id uuid.UUID) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			delete from issuers where tenant_id = $1 and id = $2
			returning id, issuer, audience, jwks_url, subjects, uses, created_at, introspection_url`, tenant, id)
		if err != nil {
			return err
		}
		removed, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Issuer])
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrIssuerNotFound
		}
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.IssuerRemove, id.String(), removed, nil)
	})
	if err != nil {
		return fmt.Errorf("remove issuer %s: %w", id, err)
	}
	s.forget()
	return nil
}

// claims are the JWT claims that leaver evaluates. azp (OpenID), appid (Entra v1) and client_id
// (RFC 9068) name the client if there is no user.
type claims struct {
	jwt.Claims
	AuthorizedParty string `json:"azp"`
	AppID           string `json:"appid"`
	ClientID        string `json:"client_id"`
	CID             string `json:"cid"` // Okta's client_id
	// These claims distinguish an application's token from a user's: idtyp and oid (Entra), and scp,
	// which only delegated tokens have.
	IDType   string `json:"idtyp"`
	ObjectID string `json:"oid"`
	Scopes   any    `json:"scp"`
}

// subject returns the name under which the caller is recorded.
func (c claims) subject() string {
	return cmp.Or(c.Subject, c.AuthorizedParty, c.AppID, c.ClientID)
}

// allowed reports whether the token matches one of an issuer's subjects, or there are none.
func (c claims) allowed(subjects []string) bool {
	return len(subjects) == 0 || slices.ContainsFunc(subjects, c.is)
}

func (c claims) is(subject string) bool {
	claim, value, _ := strings.Cut(subject, "=")
	var client string
	switch claim {
	case "sub":
		return c.Subject != "" && c.Subject == value
	case "azp":
		client = c.AuthorizedParty
	case "appid":
		client = c.AppID
	case "client_id":
		client = c.ClientID
	default:
		return c.subject() == subject
	}
	return client != "" && client == value && c.ownedBy(client)
}

// ownedBy reports whether the token was issued to the client itself, and not to a user for whom the
// client acts.
func (c claims) ownedBy(client string) bool {
	switch {
	case c.IDType != "":
		return c.IDType == "app"
	case c.Scopes != nil:
		return false
	}
	return c.Subject == "" || c.Subject == client || c.Subject == c.ObjectID
}

// AuthenticateJWT returns the caller of a JWT of a tenant's issuer (RFC 7519, RFC 8725): signed by one
// of the issuer's keys, for its audience, and not expired. name is the tenant in the request's path, or
// empty.
// Errors: [ErrUnauthorized], [ErrKeysUnavailable].
func (s *Store) AuthenticateJWT(ctx context.Context, raw, name string) (Caller, error) {
	opened, err := s.openJWT(ctx, raw, name, UseSCIM, verify)
	return opened.Caller, err
}

// opened is a JWT with a valid signature and valid claims.
type opened struct {
	Caller
	issuer   string
	audience string
	id       string // the jti claim
	claims   claims
	token    *jwt.JSONWebToken
	key      any
}

// openJWT verifies a JWT for a use. Exactly one issuer of one tenant must match it.
func (s *Store) openJWT(ctx context.Context, raw, name string, use Use, verify verifier) (opened, error) {
	token, err := jwt.ParseSigned(raw, Algorithms())
	if err != nil || len(token.Headers) != 1 {
		return opened{}, ErrUnauthorized
	}
	var unverified claims
	if err := token.UnsafeClaimsWithoutVerification(&unverified); err != nil ||
		unverified.Issuer == "" || len(unverified.Issuer) > maxClaim ||
		!utf8.ValidString(unverified.Issuer) || strings.ContainsRune(unverified.Issuer, 0) {
		return opened{}, ErrUnauthorized
	}
	issuers, err := s.issuers.Get(ctx, unverified.Issuer,
		func(ctx context.Context) ([]issuer, error) { return s.findIssuers(ctx, unverified.Issuer) })
	if err != nil {
		return opened{}, err
	}
	var found []opened
	for _, i := range issuers {
		// For SCIM and access, two tenants may have the same issuer and audience, and name selects one. For
		// other uses they must not.
		if (name != "" && i.tenant.Name != name && (use == UseSCIM || use == UseAccess)) ||
			!unverified.Audience.Contains(i.Audience) || !slices.Contains(i.Uses, use) {
			continue
		}
		keys, err := s.keysAt(ctx, i.JWKSURL, token.Headers[0].KeyID)
		if err != nil {
			return opened{}, err
		}
		c, key, ok := claimsBy(token, keys)
		if !ok {
			continue
		}
		if subject, ok := verify(token, c, i); ok {
			caller := Caller{TokenID: i.ID, Class: ClassSCIM, Tenant: i.tenant, Subject: subject}
			found = append(found, opened{caller, i.Issuer.Issuer, i.Audience, c.ID, c, token, key})
		}
	}
	// A token that matches two tenants is rejected.
	if len(found) != 1 || (name != "" && found[0].Tenant.Name != name) ||
		hasControl(found[0].Subject) || hasControl(found[0].id) {
		return opened{}, ErrUnauthorized
	}
	return found[0], nil
}

// claimsBy returns the claims of a token, and the key that signed it, if it is one of the keys. The key must be
// for signatures and for the token's algorithm. It must be a public key: anyone who reads the key set could
// sign with a symmetric one.
func claimsBy(token *jwt.JSONWebToken, keys []jose.JSONWebKey) (c claims, signer any, ok bool) {
	for _, key := range keys {
		if (key.Use != "" && key.Use != "sig") || !key.IsPublic() ||
			(key.Algorithm != "" && key.Algorithm != token.Headers[0].Algorithm) {
			continue
		}
		var c claims
		if token.Claims(key.Key, &c) == nil {
			return c, key.Key, true
		}
	}
	return claims{}, nil, false
}

func hasControl(text string) bool { return strings.ContainsFunc(text, unicode.IsControl) }

// verifier checks the claims of a token with a valid signature, and returns the token's subject.
type verifier func(token *jwt.JSONWebToken, c claims, i issuer) (subject string, ok bool)

// isBearer reports whether a token's type permits its use as a bearer token: none, JWT, or an access
// token of RFC 9068. Tokens for other purposes, such as security events or proofs of possession, have
// other types (RFC 8725 section 3.11).
func isBearer(token *jwt.JSONWebToken) bool {
	kind, present := token.Headers[0].ExtraHeaders["typ"]
	text, isText := kind.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "jwt", "at+jwt":
		return isText
	}
	return !present
}

// verify accepts bearer tokens that have an expiry.
func verify(token *jwt.JSONWebToken, c claims, i issuer) (subject string, ok bool) {
	expected := jwt.Expected{Issuer: i.Issuer.Issuer, AnyAudience: jwt.Audience{i.Audience}, Time: time.Now()}
	if c.Expiry == nil || !isBearer(token) || c.ValidateWithLeeway(expected, leeway) != nil {
		return "", false
	}
	subject = c.subject()
	return subject, c.allowed(i.Subjects) && subject != "" && len(subject) <= maxClaim
}

func (s *Store) findIssuers(ctx context.Context, name string) ([]issuer, error) {
	var found []issuer
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select id, audience, jwks_url, subjects, uses, tenant from find_issuers($1)`, name)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (issuer, error) {
			i := issuer{Issuer: Issuer{Issuer: name}}
			var of tenant.Row
			err := row.Scan(&i.ID, &i.Audience, &i.JWKSURL, &i.Subjects, &i.Uses, &of)
			i.tenant = tenant.Tenant(of)
			return i, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find issuers: %w", err)
	}
	return found, nil
}
