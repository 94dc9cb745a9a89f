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

	"github.com/leaverhq/leaver/internal/fault"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Issuer is an authorisation server whose JWTs open a tenant's SCIM (Entra's own, or
// one that issues them for client credentials), end sessions, or tell security events.
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
	Uses      []Use     `json:"uses"` // what its tokens are let in for
	CreatedAt time.Time `json:"createdAt"`
}

// Use is what an issuer's tokens are let in for. One does not follow from another.
type Use string

// The uses.
const (
	UseSCIM       Use = "scim"
	UseRevocation Use = "revocation" // global token revocation
	UseEvents     Use = "events"     // security events, as a transmitter
)

// Uses lists all.
func Uses() []Use { return []Use{UseSCIM, UseRevocation, UseEvents} }

// issuer is one as it is asked for when a token comes in.
type issuer struct {
	Issuer
	tenant tenant.Tenant
}

// The errors of issuers.
var (
	ErrIssuerNotFound = fault.New(fault.NotFound, "no such issuer")
	ErrIssuerExists   = fault.New(fault.Conflict, "the tenant has that issuer with that audience")
)

const (
	maxClaim    = 512 // bytes
	maxSubjects = 100
	// leeway is how far an issuer's clock may be off.
	leeway = time.Minute
)

// algorithms are those of RFC 7518 that need no shared secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}
}

// AddIssuer lets an issuer's JWTs in. Errors: [InvalidIssuerError], [ErrIssuerExists].
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
			insert into issuers (tenant_id, id, issuer, audience, jwks_url, subjects, uses) values ($1, $2, $3, $4, $5, $6, $7)
			returning created_at`, tenant, i.ID, i.Issuer, i.Audience, i.JWKSURL, i.Subjects, i.Uses).Scan(&i.CreatedAt)
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

// InvalidIssuerError says what is wrong with an issuer.
type InvalidIssuerError struct{ Field, Reason string }

func (e *InvalidIssuerError) Error() string { return e.Field + ": " + e.Reason }

// Code implements [fault.Coded].
func (e *InvalidIssuerError) Code() fault.Code { return fault.Unprocessable }

func check(i Issuer) error {
	for field, text := range map[string]string{"issuer": i.Issuer, "audience": i.Audience, "jwksUrl": i.JWKSURL} {
		if text == "" || len(text) > maxClaim {
			return &InvalidIssuerError{field, fmt.Sprintf("is missing, or longer than %d bytes", maxClaim)}
		}
	}
	u, err := url.Parse(i.JWKSURL)
	if err != nil || u.Host == "" || u.User != nil {
		return &InvalidIssuerError{"jwksUrl", "is no address of keys"}
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || (u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()))) {
		return &InvalidIssuerError{"jwksUrl", "needs https; http is for loopback only"}
	}
	if len(i.Subjects) > maxSubjects || slices.ContainsFunc(i.Subjects, func(s string) bool { return s == "" || len(s) > maxClaim }) {
		return &InvalidIssuerError{"subjects", fmt.Sprintf("are at most %d, of at most %d bytes", maxSubjects, maxClaim)}
	}
	return checkUses(i)
}

// checkUses keeps what may end people apart from SCIM, and to named callers.
func checkUses(i Issuer) error {
	for _, use := range i.Uses {
		switch {
		case !slices.Contains(Uses(), use):
			return &InvalidIssuerError{"uses", fmt.Sprintf("%q is none of %v", use, Uses())}
		case use == UseSCIM && len(i.Uses) > 1:
			return &InvalidIssuerError{"uses", "scim stands alone: give revocation and events an audience of their own"}
		case use == UseRevocation && len(i.Subjects) == 0:
			return &InvalidIssuerError{"subjects", "revocation needs them: who may end people"}
		}
	}
	return nil
}

// Issuers lists a tenant's issuers.
func (s *Store) Issuers(ctx context.Context, tenant uuid.UUID) ([]Issuer, error) {
	issuers, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Issuer], `select id, issuer, audience, jwks_url, subjects, uses, created_at from issuers where tenant_id = $1 order by created_at, id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list issuers: %w", err)
	}
	return issuers, nil
}

// RemoveIssuer keeps an issuer's JWTs out again. Error: [ErrIssuerNotFound].
func (s *Store) RemoveIssuer(ctx context.Context, tenant, id uuid.UUID) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			delete from issuers where tenant_id = $1 and id = $2 returning id, issuer, audience, jwks_url, subjects, uses, created_at`, tenant, id)
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

// claims are what is looked at in a JWT. azp, appid and client_id name the
// client where there is no user: OpenID, Entra v1 and RFC 9068 in turn.
type claims struct {
	jwt.Claims
	AuthorizedParty string `json:"azp"`
	AppID           string `json:"appid"`
	ClientID        string `json:"client_id"`
	// What tells an application's token from a user's: Entra's idtyp and oid, and scp,
	// which only delegated tokens have.
	IDType   string `json:"idtyp"`
	ObjectID string `json:"oid"`
	Scopes   any    `json:"scp"`
}

// subject is whom the token is recorded as.
func (c claims) subject() string {
	return cmp.Or(c.Subject, c.AuthorizedParty, c.AppID, c.ClientID)
}

// allowed reports whether one of an issuer's subjects lets the token in.
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

// ownedBy reports whether the token is the client's own, and not that of a user whom the
// client acts for.
func (c claims) ownedBy(client string) bool {
	switch {
	case c.IDType != "":
		return c.IDType == "app"
	case c.Scopes != nil:
		return false
	}
	return c.Subject == "" || c.Subject == client || c.Subject == c.ObjectID
}

// AuthenticateJWT names the caller who holds a JWT of a tenant's issuer
// (RFC 7519, RFC 8725): signed by one of its keys, for its audience, not
// expired. name is the tenant that the request's path names, or empty.
// Errors: [ErrUnauthorized], [ErrKeysUnavailable].
func (s *Store) AuthenticateJWT(ctx context.Context, raw, name string) (Caller, error) {
	opened, err := s.openJWT(ctx, raw, name, UseSCIM, verify)
	return opened.Caller, err
}

// opened is a JWT whose signature and claims hold.
type opened struct {
	Caller
	issuer string
	id     string // the jti claim
	token  *jwt.JSONWebToken
	key    any
}

// openJWT finds the one issuer of one tenant, for that use, that a JWT is of.
func (s *Store) openJWT(ctx context.Context, raw, name string, use Use, verify verifier) (opened, error) {
	token, err := jwt.ParseSigned(raw, algorithms())
	if err != nil || len(token.Headers) != 1 {
		return opened{}, ErrUnauthorized
	}
	var unverified claims
	if err := token.UnsafeClaimsWithoutVerification(&unverified); err != nil || unverified.Issuer == "" || len(unverified.Issuer) > maxClaim ||
		!utf8.ValidString(unverified.Issuer) || strings.ContainsRune(unverified.Issuer, 0) {
		return opened{}, ErrUnauthorized
	}
	issuers, err := s.issuers.Get(ctx, unverified.Issuer, func(ctx context.Context) ([]issuer, error) { return s.findIssuers(ctx, unverified.Issuer) })
	if err != nil {
		return opened{}, err
	}
	var found []opened
	for _, i := range issuers {
		// Who sends SCIM may share its issuer with another tenant, and say by the path
		// which is meant; what ends people may not.
		if (name != "" && i.tenant.Name != name && use == UseSCIM) || !unverified.Audience.Contains(i.Audience) || !slices.Contains(i.Uses, use) {
			continue
		}
		keys, err := s.keysAt(ctx, i.JWKSURL, token.Headers[0].KeyID)
		if err != nil {
			return opened{}, err
		}
		for _, key := range keys {
			// A key says what it is for; one of a secret would let anyone who knows
			// the public part sign.
			if (key.Use != "" && key.Use != "sig") || (key.Algorithm != "" && key.Algorithm != token.Headers[0].Algorithm) || !key.IsPublic() {
				continue
			}
			var c claims
			if token.Claims(key.Key, &c) != nil {
				continue
			}
			if subject, ok := verify(token, c, i); ok {
				caller := Caller{TokenID: i.ID, Class: ClassSCIM, Tenant: i.tenant, Subject: subject}
				found = append(found, opened{caller, i.Issuer.Issuer, c.ID, token, key.Key})
			}
			break
		}
	}
	// A token that would open two tenants names neither.
	if len(found) != 1 || (name != "" && found[0].Tenant.Name != name) || hasControl(found[0].Subject) || hasControl(found[0].id) {
		return opened{}, ErrUnauthorized
	}
	return found[0], nil
}

func hasControl(text string) bool { return strings.ContainsFunc(text, unicode.IsControl) }

// verifier checks the claims of a token whose signature holds, and returns who it is of.
type verifier func(token *jwt.JSONWebToken, c claims, i issuer) (subject string, ok bool)

// isBearer reports whether a token's type is one of those that open something: none,
// JWT, or an access token of RFC 9068. A token that was made for another purpose, such as
// a security event or a proof of possession, has another (RFC 8725 section 3.11).
func isBearer(token *jwt.JSONWebToken) bool {
	kind, present := token.Headers[0].ExtraHeaders["typ"]
	text, isText := kind.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "jwt", "at+jwt":
		return isText
	}
	return !present
}

// verify takes what says until when it is good.
func verify(token *jwt.JSONWebToken, c claims, i issuer) (subject string, ok bool) {
	if c.Expiry == nil || !isBearer(token) ||
		c.ValidateWithLeeway(jwt.Expected{Issuer: i.Issuer.Issuer, AnyAudience: jwt.Audience{i.Audience}, Time: time.Now()}, leeway) != nil {
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
