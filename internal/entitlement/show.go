package entitlement

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Entitlement is an entitlement of a principal with its sources.
type Entitlement struct {
	Name    string           `json:"name"`
	Sources []mapping.Source `json:"sources"`
	Since   time.Time        `json:"since"`
}

// Of returns a principal's stored entitlements, sorted by name.
func (s *Store) Of(ctx context.Context, of, principal uuid.UUID) ([]Entitlement, error) {
	held, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[Entitlement], `select name, sources, since
		from entitlements where tenant_id = $1 and principal_id = $2 order by name`, of, principal)
	if err != nil {
		return nil, fmt.Errorf("list entitlements of %s: %w", principal, err)
	}
	return held, nil
}

// Turn is one entitlement that was gained or lost.
type Turn struct {
	Name    string     `json:"name"`
	Gained  bool       `json:"gained"`
	Version int        `json:"mappingVersion"`
	Event   *uuid.UUID `json:"eventId,omitempty"`
	At      time.Time  `json:"at"`
}

// Turns returns the entitlements that a principal has gained and lost, newest first.
func (s *Store) Turns(ctx context.Context, of, principal uuid.UUID, limit int) ([]Turn, error) {
	turns, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[Turn], `
		select name, gained, version, event_id, at from entitlement_changes
		 where tenant_id = $1 and principal_id = $2 order by id desc limit $3`, of, principal, limit)
	if err != nil {
		return nil, fmt.Errorf("list entitlement changes of %s: %w", principal, err)
	}
	return turns, nil
}

// Test evaluates a document for a principal without storing the result; if document is nil,
// it evaluates the current rules. Errors: mapping.Error, [ErrNoMapping], [ErrUnknownPrincipal].
func (s *Store) Test(ctx context.Context, of, principal uuid.UUID, document *string) (mapping.Result, error) {
	var result mapping.Result
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) (err error) {
		var rules *mapping.Rules
		if document == nil {
			rules, _, err = s.current(ctx, tx, of)
		} else {
			rules, err = s.draft(ctx, tx, of, *document)
		}
		if err != nil {
			return err
		}
		read, err := readPrincipals(ctx, tx, of, []uuid.UUID{principal})
		if err != nil {
			return err
		}
		if len(read) == 0 {
			return ErrUnknownPrincipal
		}
		result = rules.Apply(read[0].Principal)
		return nil
	})
	if err != nil {
		return mapping.Result{}, fmt.Errorf("test mapping: %w", err)
	}
	return result, nil
}

// Live evaluates a principal's current entitlements, for decisions while the stored ones are
// invalidated. Error: [ErrUnknownPrincipal].
func (s *Store) Live(ctx context.Context, of, principal uuid.UUID) ([]string, error) {
	names := []string{}
	result, err := s.Test(ctx, of, principal, nil)
	if errors.Is(err, ErrNoMapping) {
		return names, nil
	}
	return slices.AppendSeq(names, maps.Keys(result.Entitlements)), err
}

// draft compiles a document that is not applied.
func (s *Store) draft(ctx context.Context, tx pgx.Tx, of uuid.UUID, document string) (*mapping.Rules, error) {
	schemas, err := tenant.ReadSchemas(ctx, tx, of)
	if err != nil {
		return nil, err
	}
	return s.compile(document, schemas)
}

// Difference lists the changes that a document would cause if it were applied.
type Difference struct {
	Base       int            `json:"baseVersion"` // 0 if there are no rules yet
	Principals int            `json:"principals"`  // number of principals that would gain or lose
	Gained     map[string]int `json:"gained"`      // number of principals, by entitlement
	Lost       map[string]int `json:"lost"`
	Ends       int            `json:"ends"` // credentials and scheduled runs that would be ended
	Failed     map[string]int `json:"failed,omitempty"`
	// Changes lists the first maxNamed principals.
	Changes []connectors.EntitlementChange `json:"changes"`
}

const (
	maxNamed = 500 // in a Difference
	diffPage = 1000
)

// Diff returns the entitlements that principals would gain and lose by a document. It reads
// one page of principals at a time. Errors: mapping.Error, and [ErrOutdated] if other rules
// are applied meanwhile.
func (s *Store) Diff(ctx context.Context, of uuid.UUID, document string) (Difference, error) {
	d := Difference{
		Base: -1, Gained: make(map[string]int), Lost: make(map[string]int), Failed: make(map[string]int),
		Changes: []connectors.EntitlementChange{},
	}
	var rules *mapping.Rules
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) (err error) {
		rules, err = s.draft(ctx, tx, of, document)
		return err
	})
	for after := uuid.Nil; err == nil; {
		var ids []uuid.UUID
		if ids, err = s.Everybody(ctx, of, after, diffPage); err == nil {
			err = s.diffPage(ctx, of, rules, ids, &d)
		}
		if err != nil || len(ids) < diffPage {
			break
		}
		after = ids[len(ids)-1]
	}
	if err != nil {
		return d, fmt.Errorf("compare mapping: %w", err)
	}
	return d, nil
}

func (s *Store) diffPage(ctx context.Context, of uuid.UUID, rules *mapping.Rules, ids []uuid.UUID,
	d *Difference,
) error {
	return s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		var version int
		if err := tx.QueryRow(ctx, `select coalesce(max(version), 0) from mappings where tenant_id = $1`,
			of).Scan(&version); err != nil {
			return err
		}
		if d.Base >= 0 && d.Base != version {
			return ErrOutdated
		}
		d.Base = version
		read, err := readPrincipals(ctx, tx, of, ids)
		if err != nil {
			return err
		}
		held, err := namesOf(ctx, tx, `select principal_id, name from entitlements where tenant_id = $1
			and principal_id = any ($2)`, of, ids)
		if err != nil {
			return err
		}
		granted, err := namesOf(ctx, tx, `
			select principal_id, entitlement from credentials
			 where tenant_id = $1 and principal_id = any ($2) and state = 'live'
			   and entitlement ~ '^(team|role|scope):.'`, of, ids)
		if err != nil {
			return err
		}
		for _, p := range read {
			if !p.here {
				continue
			}
			result := rules.Apply(p.Principal)
			for _, f := range result.Failed {
				d.Failed[f.Rule]++
			}
			d.add(p.ID, result.Entitlements, held[p.ID], granted[p.ID])
		}
		return nil
	})
}

// add adds one principal to the difference.
func (d *Difference) add(id uuid.UUID, wanted map[string][]mapping.Source, held, granted []string) {
	c := connectors.EntitlementChange{Principal: id}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.Contains(held, name) {
			c.Gained = append(c.Gained, name)
			d.Gained[name]++
		}
	}
	for _, name := range held {
		if wanted[name] == nil {
			c.Lost = append(c.Lost, name)
			d.Lost[name]++
		}
	}
	for _, name := range granted {
		if wanted[name] == nil {
			d.Ends++
		}
	}
	if len(c.Gained)+len(c.Lost) == 0 {
		return
	}
	d.Principals++
	if len(d.Changes) < maxNamed {
		d.Changes = append(d.Changes, c)
	}
}

func namesOf(ctx context.Context, tx pgx.Tx, sql string, args ...any) (map[uuid.UUID][]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found := make(map[uuid.UUID][]string)
	var id uuid.UUID
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		found[id] = append(found[id], name)
		return nil
	})
	return found, err
}
