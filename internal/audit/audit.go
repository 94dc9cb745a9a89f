// Package audit records administrative acts on the installation and its tenants: the actor,
// the verb, the object, and its state before and after. Rows are append-only and contain no
// secrets.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// The verbs.
const (
	TenantCreate    = "tenant.create"
	TenantConfigure = "tenant.configure"
	TokenIssue      = "token.issue"
	TokenRevoke     = "token.revoke"
	IssuerAdd       = "issuer.add"
	IssuerRemove    = "issuer.remove"
	ClientAdd       = "client.add"
	ClientRemove    = "client.remove"
	SchemaPut       = "schema.put"
	SchemaDelete    = "schema.delete"
	SignInRefuse    = "sign-in.refuse"
	StreamAssign    = "stream.assign"
	EvidenceExport  = "evidence.export"
	HoldApprove     = "hold.approve"
	ConnectorPause  = "connector.pause"
	ConnectorResume = "connector.resume"

	PrincipalErase = "principal.erase"

	CredentialRelease = "credential.release" //nolint:gosec // a verb
	CredentialCorrect = "credential.correct" //nolint:gosec // a verb
)

// Act is one administrative act.
type Act struct {
	ID     int64           `json:"id"`
	Actor  string          `json:"actor"`
	Verb   string          `json:"verb"`
	Object string          `json:"object"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	At     time.Time       `json:"at"`
}

// byDatabase is the actor of commands that access the database directly, without a token.
const byDatabase = "database"

type actorKey struct{}

// WithActor returns a context with the actor of the acts that are recorded with it.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor returns the context's actor, or "database" if the context has none.
func Actor(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok && actor != "" {
		return actor
	}
	return byDatabase
}

// Record stores an act of the context's actor, in the transaction of the change. before or after is nil
// if the object did not exist before, or does not exist after. The zero tenant is the installation.
func Record(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, verb, object string, before, after any) error {
	var states [2]*string
	for i, state := range []any{before, after} {
		if state == nil {
			continue
		}
		encoded, err := json.Marshal(state)
		if err != nil {
			return fmt.Errorf("record %s: %w", verb, err)
		}
		text := string(encoded)
		states[i] = &text
	}
	_, err := tx.Exec(ctx, `
		insert into admin_acts (tenant_id, actor, verb, object, before, after)
		values (nullif($1, '00000000-0000-0000-0000-000000000000'::uuid), $2, $3, $4, $5::jsonb, $6::jsonb)`,
		tenant, Actor(ctx), verb, object, states[0], states[1])
	if err != nil {
		return fmt.Errorf("record %s: %w", verb, err)
	}
	return nil
}

// Attribute sets the context's actor as the actor of the credential states that the transaction writes.
func Attribute(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, `select set_config('leaver.actor', $1, true)`, Actor(ctx))
	return err
}

// Store reads acts.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db} }

// List returns a page of a tenant's acts, or of the installation's for the zero tenant, in order, after
// the act with id after.
func (s *Store) List(ctx context.Context, tenant uuid.UUID, after int64, limit int) ([]Act, error) {
	acts, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Act], `
		select id, actor, verb, object, before, after, at from admin_acts
		 where tenant_id is not distinct from leaver_tenant() and id > $1 order by id limit $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list administrative acts: %w", err)
	}
	return acts, nil
}
