package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/tenant"
)

const (
	// AccessTTL is the lifetime of the access tokens of clients: the maximum of the CAEP Interoperability
	// Profile 1.0.
	AccessTTL = time.Hour
	// maxAssertionLife is the maximum lifetime of a client's assertion.
	maxAssertionLife = time.Hour
	// maxTokensPerMinute limits the tokens that a client is issued.
	maxTokensPerMinute = 60
)

// Assertion is a client's request for an access token.
type Assertion struct {
	JWT       string   // the client's assertion
	Client    string   // the client_id, which may be empty
	Audiences []string // of which the assertion has one and no other
	Scopes    []Scope  // empty for all that the client may request
}

// Exchange verifies a client's assertion (RFC 7523 section 3) and issues an access token. The assertion must
// have a jti and a lifetime of at most maxAssertionLife, and is accepted once. Exchange returns the token's
// scopes and its secret.
// Errors: [ErrUnauthorized], [ErrKeysUnavailable], [ErrTooManyTokens], [InvalidScopeError].
func (s *Store) Exchange(ctx context.Context, of tenant.Tenant, a Assertion) ([]Scope, string, error) {
	client, claims, err := s.authenticateClient(ctx, of, a)
	if err != nil {
		return nil, "", err
	}
	scopes := slices.Compact(slices.Sorted(slices.Values(a.Scopes)))
	if len(scopes) == 0 {
		scopes = client.Scopes
	}
	for _, scope := range scopes {
		if !slices.Contains(client.Scopes, scope) {
			return nil, "", &InvalidScopeError{scope, client.Scopes}
		}
	}
	secret := newSecret("access")
	err = s.db.InTenant(ctx, of.ID, func(tx pgx.Tx) error {
		if err := receiveOnce(ctx, tx, of.ID, client, claims); err != nil {
			return err
		}
		return issueAccess(ctx, tx, of.ID, client.ID, secret, scopes)
	})
	if err != nil {
		return nil, "", fmt.Errorf("issue a token for client %s: %w", client.ID, err)
	}
	return scopes, secret, nil
}

// InvalidScopeError is returned if a client requests a scope that it may not have.
type InvalidScopeError struct {
	Scope   Scope
	Allowed []Scope
}

func (e *InvalidScopeError) Error() string {
	return fmt.Sprintf("the client may request the scopes %v, got %q", e.Allowed, e.Scope)
}

// authenticateClient returns the client that signed an assertion, with the assertion's claims.
func (s *Store) authenticateClient(
	ctx context.Context, of tenant.Tenant, a Assertion,
) (Client, claims, error) {
	token, err := jwt.ParseSigned(a.JWT, Algorithms())
	if err != nil || len(token.Headers) != 1 || !isAssertion(token) {
		return Client{}, claims{}, ErrUnauthorized
	}
	var unverified claims
	if err := token.UnsafeClaimsWithoutVerification(&unverified); err != nil {
		return Client{}, claims{}, ErrUnauthorized
	}
	id, err := uuid.Parse(unverified.Issuer)
	if err != nil || unverified.Issuer != id.String() || (a.Client != "" && a.Client != unverified.Issuer) {
		return Client{}, claims{}, ErrUnauthorized
	}
	client, err := database.Row(ctx, s.db, of.ID, pgx.RowToStructByPos[Client], `
		select `+clientColumns+` from clients where tenant_id = $1 and id = $2`, of.ID, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Client{}, claims{}, ErrUnauthorized
	}
	if err != nil {
		return Client{}, claims{}, fmt.Errorf("find client %s: %w", id, err)
	}
	keys, err := s.keysOf(ctx, client, token.Headers[0].KeyID)
	if err != nil {
		return Client{}, claims{}, err
	}
	if len(keys) > maxClientKeys { // each of them would be tried
		return Client{}, claims{}, ErrUnauthorized
	}
	c, _, ok := claimsBy(token, keys)
	if !ok || !c.asserts(client, a.Audiences) {
		return Client{}, claims{}, ErrUnauthorized
	}
	return client, c, nil
}

// isAssertion reports whether a token's type permits its use for client authentication.
func isAssertion(token *jwt.JSONWebToken) bool {
	kind, present := token.Headers[0].ExtraHeaders["typ"]
	text, _ := kind.(string)
	switch strings.TrimPrefix(strings.ToLower(text), "application/") {
	case "jwt", "client-authentication+jwt": // the latter by draft-ietf-oauth-rfc7523bis
		return true
	}
	return !present
}

// asserts reports whether the claims identify the client to one of the audiences.
func (c claims) asserts(client Client, audiences []string) bool {
	now := time.Now()
	return c.Subject == c.Issuer && c.Issuer == client.ID.String() &&
		c.ID != "" && len(c.ID) <= maxClaim && !hasControl(c.ID) &&
		len(c.Audience) == 1 && slices.Contains(audiences, c.Audience[0]) &&
		c.Expiry != nil && !c.Expiry.Time().After(now.Add(maxAssertionLife+leeway)) &&
		c.ValidateWithLeeway(jwt.Expected{Time: now}, leeway) == nil
}

func (s *Store) keysOf(ctx context.Context, client Client, id string) ([]jose.JSONWebKey, error) {
	if client.JWKSURL != "" {
		return s.keysAt(ctx, client.JWKSURL, id)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(client.JWKS, &set); err != nil {
		return nil, fmt.Errorf("read the keys of client %s: %w", client.ID, err)
	}
	if id == "" {
		return set.Keys, nil
	}
	return set.Key(id), nil
}

// receiveOnce stores the jti of a client's assertion. Error: [ErrUnauthorized] if it is stored already.
func receiveOnce(ctx context.Context, tx pgx.Tx, of uuid.UUID, client Client, c claims) error {
	tag, err := tx.Exec(ctx, `
		with expired as (
		  delete from received_tokens where tenant_id = $1 and issuer = $2 and received_at < now() - $4::interval)
		insert into received_tokens (tenant_id, issuer, jti) values ($1, $2, $3) on conflict do nothing`,
		of, client.ID.String(), c.ID, 2*maxAssertionLife)
	if err == nil && tag.RowsAffected() == 0 {
		return ErrUnauthorized
	}
	return err
}

// issueAccess stores an access token, and deletes the client's expired ones.
func issueAccess(ctx context.Context, tx pgx.Tx, of, client uuid.UUID, secret string, scopes []Scope) error {
	// The row lock orders the requests of a client, so that the count is exact.
	tag, err := tx.Exec(ctx, `
		update clients set last_used_at = now() where tenant_id = $1 and id = $2`, of, client)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 { // removed since it was read
		return ErrUnauthorized
	}
	tag, err = tx.Exec(ctx, `
		with expired as (
		  delete from access_tokens where tenant_id = $1 and client_id = $2 and expires_at < now())
		insert into access_tokens (hash, tenant_id, client_id, scopes, expires_at)
		select $3, $1, $2, $4, now() + $5::interval
		 where $6 > (select count(*) from access_tokens
		              where tenant_id = $1 and client_id = $2 and created_at > now() - interval '1 minute')`,
		of, client, hash(secret), scopes, AccessTTL, maxTokensPerMinute)
	if err == nil && tag.RowsAffected() == 0 {
		return ErrTooManyTokens
	}
	return err
}
