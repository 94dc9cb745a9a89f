// Package entitlement stores the versions of a tenant's mapping rules, and the entitlements
// that each principal has by them, with their sources.
package entitlement

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/tenant"
)

// The errors of this package.
var (
	// ErrNoMapping is returned when the tenant has no mapping rules.
	ErrNoMapping = fault.New(fault.NotFound, "the tenant has no mapping: run `leaver mapping apply`")
	// ErrNoVersion is returned when no version of the rules has the number.
	ErrNoVersion = fault.New(fault.NotFound, "the mapping has no such version: run `leaver mapping history`")
	// ErrOutdated is returned when another version was applied concurrently.
	ErrOutdated = fault.New(fault.Conflict,
		"another version of the mapping was applied meanwhile: run `leaver mapping diff` again")
	// ErrUnknownPrincipal is returned when no live User or Agent of the tenant has the ID.
	ErrUnknownPrincipal = fault.New(fault.NotFound, "no such principal")
)

// Store stores rules and entitlements.
type Store struct {
	db         *database.DB
	vocabulary func([]tenant.Schema) (mapping.Vocabulary, error)

	rules *expirable.LRU[rulesKey, *mapping.Rules]
}

// rulesKey names what rules were compiled from. The rules of a key never change.
type rulesKey struct {
	tenant        uuid.UUID
	version       int
	schemaVersion int64
}

// NewStore returns a store on db. vocabulary returns the attributes that the rules of a tenant
// with the given schemas may name.
func NewStore(db *database.DB, vocabulary func([]tenant.Schema) (mapping.Vocabulary, error)) *Store {
	return &Store{db: db, vocabulary: vocabulary, rules: expirable.NewLRU[rulesKey, *mapping.Rules](maxRules, nil, 0)}
}

// Version is an applied version of the rules.
type Version struct {
	Version   int       `json:"version"`
	Document  string    `json:"document,omitempty"`
	Actor     string    `json:"actor"`
	Reason    string    `json:"reason"`
	CreatedAt time.Time `json:"createdAt"`
}

const versionColumns = `version, document, actor, reason, created_at`

// Current returns the current version of the rules. Error: [ErrNoMapping].
func (s *Store) Current(ctx context.Context, of uuid.UUID) (*Version, error) {
	return s.one(ctx, of, ErrNoMapping, `
		select `+versionColumns+` from mappings where tenant_id = $1 order by version desc limit 1`, of)
}

// Derives reports whether the tenant has rules.
func (s *Store) Derives(ctx context.Context, of uuid.UUID) (bool, error) {
	_, err := s.Current(ctx, of)
	if errors.Is(err, ErrNoMapping) {
		return false, nil
	}
	return err == nil, err
}

// Get returns one version. Error: [ErrNoVersion].
func (s *Store) Get(ctx context.Context, of uuid.UUID, version int) (*Version, error) {
	return s.one(ctx, of, ErrNoVersion, `select `+versionColumns+` from mappings where tenant_id = $1
		and version = $2`, of, version)
}

func (s *Store) one(ctx context.Context, of uuid.UUID, missing error, sql string, args ...any) (*Version, error) {
	v, err := database.Row(ctx, s.db, of, pgx.RowToAddrOfStructByPos[Version], sql, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, missing
	}
	if err != nil {
		return nil, fmt.Errorf("read the mapping: %w", err)
	}
	return v, nil
}

// History returns the versions without their documents, newest first. before is the last
// version of the previous page; 0 for the first page.
func (s *Store) History(ctx context.Context, of uuid.UUID, before, limit int) ([]Version, error) {
	versions, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[Version], `
		select version, '', actor, reason, created_at from mappings
		 where tenant_id = $1 and ($2 = 0 or version < $2) order by version desc limit $3`, of, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read the mapping's history: %w", err)
	}
	return versions, nil
}

// Apply stores a document as the next version, and commits the event that causes an evaluation
// of every principal. base is the version that it replaces; -1 stands for any.
// Errors: mapping.Error, [ErrOutdated].
func (s *Store) Apply(ctx context.Context, of uuid.UUID, document string, base int,
	by, reason string,
) (*Version, error) {
	var applied *Version
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		// Schemas and rules must fit, so concurrent changes of them wait for each other.
		schemas, err := tenant.LockSchemas(ctx, tx, of)
		if err != nil {
			return err
		}
		rules, err := s.compile(document, schemas)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			with latest as (select coalesce(max(version), 0) version from mappings where tenant_id = $1)
			insert into mappings (tenant_id, version, document, actor, reason, grants)
			select $1, version + 1, $2, $3, $4, $6 from latest where $5 = -1 or version = $5
			returning `+versionColumns, of, document, by, reason, base, rules.Entitlements())
		if err != nil {
			return err
		}
		applied, err = pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Version])
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrOutdated
		}
		if err != nil {
			return err
		}
		_, err = lifecycle.In(tx, of, lifecycle.Cause{Trigger: lifecycle.TriggerMapping, Actor: by}).
			Emit(ctx, lifecycle.TeamSync, []string{"mapping"}, lifecycle.Emission{},
				lifecycle.Principal{ID: of, Type: "Tenant", Version: int64(applied.Version)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("apply mapping: %w", err)
	}
	return applied, nil
}

// Rollback applies an earlier version again, as the next one.
// Errors: [ErrNoVersion], and those of [Store.Apply].
func (s *Store) Rollback(ctx context.Context, of uuid.UUID, version int, by, reason string) (*Version, error) {
	earlier, err := s.Get(ctx, of, version)
	if err != nil {
		return nil, err
	}
	return s.Apply(ctx, of, earlier.Document, -1, by, fmt.Sprintf("back to version %d: %s", version, reason))
}

// Check returns an error if the current rules do not compile with the schemas.
func (s *Store) Check(ctx context.Context, of uuid.UUID, schemas []tenant.Schema) error {
	current, err := s.Current(ctx, of)
	if errors.Is(err, ErrNoMapping) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = s.compile(current.Document, schemas)
	return err
}

func (s *Store) compile(document string, schemas []tenant.Schema) (*mapping.Rules, error) {
	vocabulary, err := s.vocabulary(schemas)
	if err != nil {
		return nil, err
	}
	return mapping.Compile(document, vocabulary)
}

// current returns the compiled rules of the version that the transaction sees, and that
// version. It caches them. Error: [ErrNoMapping].
func (s *Store) current(ctx context.Context, tx pgx.Tx, of uuid.UUID) (*mapping.Rules, int, error) {
	k := rulesKey{tenant: of}
	err := tx.QueryRow(ctx, `
		select m.version, t.schema_version from mappings m join tenants t on t.id = m.tenant_id
		 where m.tenant_id = $1 order by m.version desc limit 1`, of).Scan(&k.version, &k.schemaVersion)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, ErrNoMapping
	}
	if err != nil {
		return nil, 0, err
	}
	if rules, ok := s.rules.Get(k); ok {
		return rules, k.version, nil
	}
	schemas, err := tenant.ReadSchemas(ctx, tx, of)
	if err != nil {
		return nil, 0, err
	}
	var document string
	if err := tx.QueryRow(ctx, `select document from mappings where tenant_id = $1 and version = $2`, of,
		k.version).Scan(&document); err != nil {
		return nil, 0, err
	}
	rules, err := s.compile(document, schemas)
	if err != nil {
		return nil, 0, fmt.Errorf("compile version %d of the mapping: %w", k.version, err)
	}
	s.rules.Add(k, rules)
	return rules, k.version, nil
}

// maxRules bounds the compiled rules that a process keeps.
const maxRules = 1000
