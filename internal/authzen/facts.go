package authzen

import (
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/textkey"
)

// partiesSQL reads the subject and the principal in one row. $3 and $5 are ids; $4 and $6 are
// names, used if the id is null; $7: the subject acts for a principal. Owner searches are
// skipped if the principal owns the agent directly. `offset 0` prevents flattening: under
// row-level security a condition that calls a function cannot use an index.
const partiesSQL = `
	select s.id, s.type, s.unique_name,
	       exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = s.id),
	       coalesce(s.valid_until <= now(), false),
	       case when s.type is distinct from 'Agent' then true when p.owns and not p.restricted then true
	            else active_owner($1, s.id, null) is not null end,
	       p.id, p.unique_name, p.restricted,
	       case when p.owns then true when p.id is null then false else delegates($1, s.id, p.id) end
	  from (select coalesce($3::uuid, principal_named($1, $2, $4)) id,
	               case when $7 then coalesce($5::uuid, principal_named($1, 'User', $6)) end principal offset 0) k
	  left join resources s on s.tenant_id = $1 and s.id = k.id and s.type = $2 and s.deleted_at is null
	  left join lateral (
	    select r.id, r.unique_name,
	           exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = r.id) restricted,
	           exists (
	             select 1 from edges e
	              where e.tenant_id = $1 and e.source_id = s.id and e.attribute = 'owners' and e.target_id = r.id) owns
	      from resources r
	     where r.tenant_id = $1 and r.id = k.principal and r.deleted_at is null and r.type = 'User' offset 0) p on true`

// credentialSQL reads a registration: at most one row.
//
//nolint:gosec // G101: the statement contains no credentials
const credentialSQL = `
	select principal_id, agent_id, entitlement, state = 'live', coalesce(expires_at <= now(), false), scopes
	  from credentials where tenant_id = $1 and id = $2`

// grantsSQL reads the entitlements of the credentials that a subject holds for its principal at a
// connector and that permit an action.
const grantsSQL = `
	select i.entitlement from credentials i
	 where i.tenant_id = $1 and i.principal_id = $3 and ($2 = $3 or i.agent_id = $2)
	   and i.connector = $4 and i.state = 'live'
	   and (i.expires_at is null or i.expires_at > now()) and (i.scopes = '{}' or $5 = any (i.scopes)) limit 1000`

// entitledSQL reads which of the entitlements $3 a principal has, and which it has lost.
const entitledSQL = `
	select exists (select 1 from mappings where tenant_id = $1),
	       exists (select 1 from invalidations where tenant_id = $1 and principal_id in ($2, $1)),
	       array(select name from entitlements where tenant_id = $1 and principal_id = $2 and name = any ($3)),
	       array(select distinct name from entitlement_changes
	              where tenant_id = $1 and principal_id = $2 and name = any ($3) and not gained)`

// acts reports whether the subject is an agent that acts on behalf of a user.
func (q Question) acts() bool { return q.SubjectType == directory.TypeAgent && q.OnBehalfOf != "" }

// ids returns the ids of the subject and the principal; ok is false if one is named.
func (q Question) ids() (subject, principal uuid.UUID, ok bool) {
	subject, ok = idOf(q.Subject)
	if principal = subject; ok && q.acts() {
		principal, ok = idOf(q.OnBehalfOf)
	}
	return subject, principal, ok
}

// names returns the entitlements that could allow the action.
func (q Question) names() []string {
	names := []string{"scope:" + q.Action, "scope:" + q.Action + ":own"}
	if q.ResourceType == "team" {
		names = append(names, "team:"+q.Resource)
	}
	return names
}

// read returns the statements that read the facts of a question. Facts that depend on a party given by
// name are read after its id is known, so that the name is resolved only once.
func (f *facts) read(tenant uuid.UUID, q Question) []database.Statement {
	subject, subjectName := idOrName(q.Subject)
	onBehalf, onBehalfName := idOrName(q.OnBehalfOf)
	statements := []database.Statement{{
		SQL: partiesSQL, Args: []any{tenant, q.SubjectType, subject, subjectName, onBehalf, onBehalfName, q.acts()},
		Collect: func(rows pgx.Rows) error { return f.collectParties(rows, q) },
	}}
	if item, ok := idOf(q.Resource); ok && q.ResourceType == "credential" {
		return append(statements, database.Statement{
			SQL: credentialSQL, Args: []any{tenant, item}, Collect: f.collectCredential,
		})
	}
	if subject, principal, ok := q.ids(); ok && q.ResourceType != "credential" {
		return append(statements, f.readMore(tenant, subject, principal, q))
	}
	return statements
}

// readMore returns the statement that reads what the answer still depends on: the grants at
// a connector, or what the principal is entitled to.
func (f *facts) readMore(tenant, subject, principal uuid.UUID, q Question) database.Statement {
	names := q.names()
	switch {
	case q.ResourceType == "connector" && f.grants == nil:
		f.grants = []string{}
		return database.Statement{
			SQL: grantsSQL, Args: []any{tenant, subject, principal, q.Resource, q.Action}, Collect: database.Each(f.grant()),
		}
	case q.ResourceType == "connector":
		names = f.grants
	case f.credential != nil:
		names = []string{f.credential.entitlement}
	}
	f.entitled = &entitled{}
	return database.Statement{
		SQL: entitledSQL, Args: []any{tenant, principal, names},
		Collect: database.Fields(&f.entitled.derives, &f.entitled.stale, &f.entitled.held, &f.entitled.lost),
	}
}

// grant returns the scan destinations of a grant, and the function that appends it.
func (f *facts) grant() (into []any, next func()) {
	var name string
	return []any{&name}, func() { f.grants = append(f.grants, name) }
}

// again returns the statement that reads the parties again by id. It is the last read before a
// decision, because a deactivation may have been committed in the meantime.
func (f *facts) again(tenant uuid.UUID, q Question) database.Statement {
	var onBehalf any
	if q.acts() {
		onBehalf = f.principal.ID
	}
	return database.Statement{
		SQL: partiesSQL, Args: []any{tenant, q.SubjectType, f.subject.ID, nil, onBehalf, nil, q.acts()},
		Collect: func(rows pgx.Rows) error { return f.collectParties(rows, q) },
	}
}

func (f *facts) collectParties(rows pgx.Rows, q Question) error {
	f.subject, f.principal = Party{}, Party{}
	var subject, principal struct {
		id         *uuid.UUID
		name       *string
		restricted *bool
	}
	var kind *string
	err := database.Fields(&subject.id, &kind, &subject.name, &subject.restricted, &f.subject.Expired, &f.subject.Owned,
		&principal.id, &principal.name, &principal.restricted, &f.delegated)(rows)
	if err != nil {
		return err
	}
	if subject.id != nil {
		f.subject.ID, f.subject.Type = *subject.id, *kind
		f.subject.Name, f.subject.Restricted = orEmpty(subject.name), *subject.restricted
	}
	switch {
	case !q.acts():
		f.principal, f.delegated = f.subject, true
	case principal.id != nil:
		f.principal = Party{
			ID: *principal.id, Type: directory.TypeUser, Name: orEmpty(principal.name), Restricted: *principal.restricted,
		}
	}
	return nil
}

func (f *facts) collectCredential(rows pgx.Rows) error {
	var c credential
	err := database.Fields(&c.principal, &c.agent, &c.entitlement, &c.live, &c.expired, &c.scopes)(rows)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	f.credential = &c
	return err
}

func orEmpty(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// idOrName returns text as an id if it is one, and as the comparison key of a name otherwise.
func idOrName(text string) (id, name any) {
	if text == "" {
		return nil, nil
	}
	if parsed, ok := idOf(text); ok {
		return parsed, nil
	}
	return nil, textkey.Fold(text)
}
