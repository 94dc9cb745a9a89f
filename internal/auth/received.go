package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// typeSET is the explicit type of security event tokens (RFC 8417 section 2.3).
const typeSET = "secevent+jwt"

func isSET(token *jwt.JSONWebToken) bool {
	kind, _ := token.Headers[0].ExtraHeaders["typ"].(string)
	return strings.EqualFold(strings.TrimPrefix(strings.ToLower(kind), "application/"), typeSET)
}

const (
	// maxSETAge is the maximum age of a security event. Transmitters store undelivered events for that
	// long, and leaver the ids of processed ones.
	maxSETAge = 30 * 24 * time.Hour
	// maxRevocationLife is the maximum lifetime of a token for global token revocation.
	maxRevocationLife = time.Hour
)

// AuthenticateRevocation returns the caller of a global token revocation
// (draft-parecki-oauth-global-token-revocation). The JWT must have a jti and a lifetime of at most
// maxRevocationLife, and may be used once: see [Store.Known] and [Store.Receive].
// Errors: [ErrUnauthorized], [ErrKeysUnavailable].
func (s *Store) AuthenticateRevocation(ctx context.Context, raw, name string) (Received, error) {
	o, err := s.openJWT(ctx, raw, name, UseRevocation, func(token *jwt.JSONWebToken, c claims, i issuer) (string, bool) {
		subject, ok := verify(token, c, i)
		return subject, ok && c.ID != "" && len(c.ID) <= maxClaim &&
			c.IssuedAt != nil && c.Expiry.Time().Sub(c.IssuedAt.Time()) <= maxRevocationLife
	})
	return Received{Caller: o.Caller, Issuer: o.issuer, ID: o.id, IssuedAt: o.claims.IssuedAt.Time()}, err
}

// Received is a verified token that is processed once.
type Received struct {
	Caller
	Issuer string
	ID     string // the jti claim
	// IssuedAt is the iat claim, in whole seconds.
	IssuedAt time.Time
	// SubjectID and Events are set for security event tokens.
	SubjectID json.RawMessage
	Events    map[string]json.RawMessage
}

// OpenSET verifies a security event token (RFC 8417) of a transmitter that the tenant has
// configured. Errors: [ErrUnauthorized], [ErrKeysUnavailable].
func (s *Store) OpenSET(ctx context.Context, raw, name string) (Received, error) {
	o, err := s.openJWT(ctx, raw, name, UseEvents, func(token *jwt.JSONWebToken, c claims, i issuer) (string, bool) {
		now := time.Now()
		ok := isSET(token) && c.ID != "" && len(c.ID) <= maxClaim && c.IssuedAt != nil && c.Expiry == nil &&
			c.IssuedAt.Time().Before(now.Add(leeway)) && c.IssuedAt.Time().After(now.Add(-maxSETAge))
		return i.Issuer.Issuer, ok && c.allowed(i.Subjects)
	})
	if err != nil {
		return Received{}, err
	}
	var said struct {
		SubjectID json.RawMessage            `json:"sub_id"`
		Events    map[string]json.RawMessage `json:"events"`
	}
	if err := o.token.Claims(o.key, &said); err != nil {
		return Received{}, ErrUnauthorized
	}
	return Received{
		Caller: o.Caller, Issuer: o.issuer, ID: o.id, IssuedAt: o.claims.IssuedAt.Time(), SubjectID: said.SubjectID,
		Events: said.Events,
	}, nil
}

// Known reports whether a token was processed before, even if its issuer was removed and added again
// since.
func (s *Store) Known(ctx context.Context, r Received) (bool, error) {
	known, err := database.Row(ctx, s.db, r.Tenant.ID, pgx.RowTo[bool], `
		select exists (select 1 from received_tokens where tenant_id = $1 and issuer = $2 and jti = $3)`,
		r.Tenant.ID, r.Issuer, r.ID)
	if err != nil {
		return false, fmt.Errorf("look up a received token: %w", err)
	}
	return known, nil
}

// Receive stores that a token was processed. Call it after processing: to process a token twice is
// harmless, to skip one is not.
func (s *Store) Receive(ctx context.Context, r Received) error {
	err := database.Exec(ctx, s.db, r.Tenant.ID, `
		with forgotten as (
		  delete from received_tokens where tenant_id = $1 and received_at < now() - $4::interval)
		insert into received_tokens (tenant_id, issuer, jti) values ($1, $2, $3) on conflict do nothing`,
		r.Tenant.ID, r.Issuer, r.ID, maxSETAge+time.Hour)
	if err != nil {
		return fmt.Errorf("store a received token: %w", err)
	}
	return nil
}
