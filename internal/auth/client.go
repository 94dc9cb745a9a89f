package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Scope is what an access token of a client permits (RFC 6749 section 3.3).
type Scope string

// The scopes.
const (
	ScopeSCIM      Scope = "scim"
	ScopeAuthZEN   Scope = "authzen"    // decisions, introspection, and names of principals
	ScopeSSFRead   Scope = "ssf.read"   // CAEP Interoperability Profile 1.0
	ScopeSSFManage Scope = "ssf.manage" // includes ssf.read
)

// Scopes returns all scopes.
func Scopes() []Scope { return []Scope{ScopeSCIM, ScopeAuthZEN, ScopeSSFRead, ScopeSSFManage} }

// class returns the class of the tokens with the scope.
func (s Scope) class() Class {
	switch s {
	case ScopeSCIM:
		return ClassSCIM
	case ScopeAuthZEN:
		return ClassGateway
	case ScopeSSFRead, ScopeSSFManage:
		return ClassReceiver
	}
	return ""
}

// Client is an OAuth client of a tenant, which authenticates by JWTs that it signs (RFC 7523 section 2.2).
type Client struct {
	ID          uuid.UUID `json:"id"`
	Description string    `json:"description"`
	Scopes      []Scope   `json:"scopes"`            // that it may request
	JWKSURL     string    `json:"jwksUrl,omitempty"` // where its public keys are
	// JWKS are its public keys, if there is no JWKSURL.
	JWKS json.RawMessage `json:"jwks,omitempty"`
	// Issuer is the issuer of the tokens that a gateway sees; empty if it named none.
	Issuer     string     `json:"issuer,omitempty"`
	CreatedAt  time.Time  `json:"createdAt"`
	CreatedBy  string     `json:"createdBy,omitempty"`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty"`
}

// The errors of clients.
var (
	ErrClientNotFound = fault.New(fault.NotFound, "no such client")
	// ErrTooManyTokens is returned if a client requests more than maxTokensPerMinute tokens.
	ErrTooManyTokens = fault.New(fault.Throttled, "the client requests too many tokens: use each until it expires")
)

// InvalidClientError is returned for a client with an invalid field.
type InvalidClientError struct{ Field, Reason string }

func (e *InvalidClientError) Error() string { return e.Field + " " + e.Reason }

// Code implements [fault.Coded].
func (e *InvalidClientError) Code() fault.Code { return fault.Unprocessable }

const clientColumns = `id, description, scopes, jwks_url, jwks, issuer, created_at, created_by, last_used_at`

// AddClient adds a client. Error: [InvalidClientError].
func (s *Store) AddClient(ctx context.Context, of uuid.UUID, c Client) (Client, error) {
	if err := c.check(); err != nil {
		return Client{}, err
	}
	slices.Sort(c.Scopes)
	c.Scopes = slices.Compact(c.Scopes)
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			insert into clients (tenant_id, id, description, scopes, jwks_url, jwks, issuer, created_by)
			values ($1, $2, $3, $4, $5, $6, $7, $8) returning `+clientColumns,
			of, uuid.New(), c.Description, c.Scopes, c.JWKSURL, c.JWKS, c.Issuer, audit.Actor(ctx))
		if err != nil {
			return err
		}
		if c, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Client]); err != nil {
			return err
		}
		return audit.Record(ctx, tx, of, audit.ClientAdd, c.ID.String(), nil, c)
	})
	if err != nil {
		return Client{}, fmt.Errorf("add a client: %w", err)
	}
	return c, nil
}

func (c Client) check() error {
	unknown := func(scope Scope) bool { return !slices.Contains(Scopes(), scope) }
	switch {
	case len(c.Scopes) == 0 || slices.ContainsFunc(c.Scopes, unknown):
		return &InvalidClientError{"scopes", fmt.Sprintf("must be one or more of %v, got %v", Scopes(), c.Scopes)}
	case len(c.Description) > maxClaim || hasControl(c.Description):
		return &InvalidClientError{
			"description", fmt.Sprintf("must be at most %d bytes without control characters", maxClaim),
		}
	case c.Issuer != "" && (!slices.Contains(c.Scopes, ScopeAuthZEN) || !tenant.ValidIssuer(c.Issuer)):
		return &InvalidClientError{
			"issuer", fmt.Sprintf("must be an absolute URL, and is for the scope authzen, got %q", c.Issuer),
		}
	case (c.JWKSURL == "") == (c.JWKS == nil):
		return &InvalidClientError{"jwksUrl", "or jwks is required, and not both"}
	case c.JWKS != nil:
		return checkKeys(c.JWKS)
	}
	if err := checkURL("jwksUrl", c.JWKSURL); err != nil {
		return &InvalidClientError{"jwksUrl", err.Reason}
	}
	return nil
}

const maxClientKeys = 10

// checkKeys returns an error unless a key set (RFC 7517) has public keys only, for signatures.
func checkKeys(raw json.RawMessage) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Keys) == 0 || len(set.Keys) > maxClientKeys {
		return &InvalidClientError{"jwks", fmt.Sprintf("must be a JWK set of 1 to %d keys", maxClientKeys)}
	}
	for _, key := range set.Keys {
		if !key.IsPublic() || !key.Valid() || (key.Use != "" && key.Use != "sig") {
			return &InvalidClientError{"jwks", "must have public keys for signatures only: never send a private key"}
		}
	}
	return nil
}

// Clients lists a tenant's clients.
func (s *Store) Clients(ctx context.Context, of uuid.UUID) ([]Client, error) {
	clients, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[Client], `
		select `+clientColumns+` from clients where tenant_id = $1 order by created_at, id`, of)
	if err != nil {
		return nil, fmt.Errorf("list clients: %w", err)
	}
	return clients, nil
}

// RemoveClient removes a client with its tokens, at once in this process, within cacheTTL in others, and pauses its
// streams of security events until they are assigned to another receiver.
// Error: [ErrClientNotFound].
func (s *Store) RemoveClient(ctx context.Context, of, id uuid.UUID) error {
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			delete from clients where tenant_id = $1 and id = $2 returning `+clientColumns, of, id)
		if err != nil {
			return err
		}
		removed, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Client])
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrClientNotFound
		}
		if err != nil {
			return err
		}
		if err := pauseStreams(ctx, tx, of, ClientActor(id), "the client was removed"); err != nil {
			return err
		}
		return audit.Record(ctx, tx, of, audit.ClientRemove, id.String(), removed, nil)
	})
	if err != nil {
		return fmt.Errorf("remove client %s: %w", id, err)
	}
	s.forget()
	return nil
}

// pauseStreams pauses the streams of a receiver that may no longer use leaver.
func pauseStreams(ctx context.Context, tx pgx.Tx, of uuid.UUID, actor, reason string) error {
	_, err := tx.Exec(ctx, `
		update streams set status = 'paused', reason = $3
		 where tenant_id = $1 and created_by = $2 and status = 'enabled'`, of, actor, reason)
	return err
}

// ErrNotReceiver is returned for a token or a client that cannot own a stream.
var ErrNotReceiver = fault.New(fault.Unprocessable,
	"tokenId must be a valid token of class receiver, or clientId a client with the scope ssf.manage, and not both")

// Receiver returns the actor that owns the streams of a token of class receiver, or of a client: one of the
// ids is zero. Error: [ErrNotReceiver].
func (s *Store) Receiver(ctx context.Context, of, token, client uuid.UUID) (actor string, err error) {
	if (token == uuid.Nil) == (client == uuid.Nil) {
		return "", ErrNotReceiver
	}
	if client != uuid.Nil {
		clients, err := s.Clients(ctx, of)
		if err == nil && !slices.ContainsFunc(clients, func(c Client) bool {
			return c.ID == client && slices.Contains(c.Scopes, ScopeSSFManage)
		}) {
			err = ErrNotReceiver
		}
		return ClientActor(client), err
	}
	tokens, err := s.Tokens(ctx, of, ClassReceiver)
	if err == nil && !slices.ContainsFunc(tokens, func(t Token) bool { return t.ID == token && t.RevokedAt == nil }) {
		err = ErrNotReceiver
	}
	return Caller{TokenID: token, Class: ClassReceiver}.Actor(), err
}
