package authzen

import (
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// partiesSQL reads the subject and the principal in one row. The subject of type $2 has the id $3, or
// the name $4 (folded) and $5 (exact); $6: it acts for a principal, whose type, id and name are $7 to
// $10. $11 are the issuers of the names; $12: a text in the form of an id may be a name, too. $13 is when
// the token with the names was issued. Without names, parties are read by id only. An agent's name is
// looked up among those that act for the principal first. Owner searches are skipped if the principal
// owns the agent directly. `offset 0` prevents flattening: under row-level security a condition that
// calls a function cannot use an index. The ids of the parties are set for the later statements of the same
// transaction, which then need no round trip of their own.
const partiesSQL = `
	select s.id, s.type, s.unique_name,
	       exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = s.id),
	       coalesce(s.valid_until <= now(), false),
	       case when s.type is distinct from 'Agent' then true when p.owns and not p.restricted then true
	            else active_owner($1, s.id, null) is not null end,
	       s.valid_until, p.id, p.type, p.unique_name, p.restricted,
	       case when p.owns then true when p.id is null then false else delegates($1, s.id, p.id) end,
	       cardinality(k.subjects), coalesce(cardinality(k.principals), 0), coalesce(cardinality(k.acting), 0) > 0,
	       $2 = 'Agent' and k.subjects = '{}' and agent_existed($1, $3, $4, $5),
	       set_config('leaver.subject', coalesce(k.subject, k.principal)::text, true),
	       set_config('leaver.principal', (case when $6 then k.principal else k.subject end)::text, true)
	  from (
	    select l.*, case when cardinality(l.subjects) = 1 then l.subjects[1] end subject,
	           case when cardinality(l.principals) = 1 then l.principals[1] end principal
	      from (
	        select m.principals, m.acting,
	               case when m.direct then array[$3::uuid] when cardinality(m.acting) > 0 then m.acting
	                 else principals_named($1, $2, $11, $3, $4, $5, $12, $13) end subjects
	          from (
	            select n.principals, n.direct,
	                   case when $2 = 'Agent' and not n.direct and cardinality(n.principals) = 1
	                     then agents_acting($1, n.principals[1], $11, $3, $4, $5) end acting
	              from (
	                select case when not $6 then null
	                            when $8::uuid is not null and ($9::text is null or not $12 and exists (
	                              select 1 from resources r where r.tenant_id = $1 and r.id = $8)) then array[$8::uuid]
	                            else principals_named($1, $7, $11, $8, $9, $10, $12, $13) end principals,
	                       $3::uuid is not null and ($4::text is null or not $12 and exists (
	                         select 1 from resources r where r.tenant_id = $1 and r.id = $3)) direct
	                offset 0) n
	            offset 0) m
	        offset 0) l
	    offset 0) k
	  left join resources s on s.tenant_id = $1 and s.id = k.subject
	   and ($2 = '' or s.type = $2) and s.type in ('User', 'Agent') and s.deleted_at is null
	  left join lateral (
	    select r.id, r.type, r.unique_name,
	           exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = r.id) restricted,
	           exists (
	             select 1 from edges e
	              where e.tenant_id = $1 and e.source_id = s.id and e.attribute = 'owners' and e.target_id = r.id) owns
	      from resources r
	     where r.tenant_id = $1 and r.id = k.principal
	       and r.deleted_at is null and r.type in ('User', 'Agent') and ($7 = '' or r.type = $7) offset 0) p on true`

// credentialSQL reads a registration: at most one row.
//
//nolint:gosec // G101: the statement contains no credentials
const credentialSQL = `
	select principal_id, agent_id, entitlement, state = 'live', coalesce(expires_at <= now(), false), scopes, expires_at
	  from credentials where tenant_id = $1 and id = $2`

// grantsSQL reads the entitlements of the credentials that the subject, which partiesSQL has set, holds for its
// principal at a connector and that permit an action.
const grantsSQL = `
	select i.entitlement
	  from nullif(current_setting('leaver.subject'), '') subject,
	       nullif(current_setting('leaver.principal'), '') principal,
	       credentials i
	 where i.tenant_id = $1 and i.principal_id = principal::uuid
	   and (subject = principal or i.agent_id = subject::uuid)
	   and i.connector = $2 and i.state = 'live'
	   and (i.expires_at is null or i.expires_at > now()) and (i.scopes = '{}' or $3 = any (i.scopes)) limit 1000`

// entitledSQL reads which of the entitlements $2 the principal, which partiesSQL has set, has, and which it has
// lost; and whether the rules name the scope $3 or a finer one. The names of rules that an older version applied
// are not known: they may name any.
const entitledSQL = `
	select exists (select 1 from mappings where tenant_id = $1),
	       coalesce((select m.grants is null or exists (
	                          select 1 from unnest(m.grants) g where g = $3 or starts_with(g, $3 || ':'))
	                   from mappings m where m.tenant_id = $1 order by m.version desc limit 1), false),
	       exists (select 1 from invalidations where tenant_id = $1 and principal_id in (p.id, $1)),
	       array(select name from entitlements where tenant_id = $1 and principal_id = p.id and name = any ($2)),
	       array(select distinct name from entitlement_changes
	              where tenant_id = $1 and principal_id = p.id and name = any ($2) and not gained)
	  from (select nullif(current_setting('leaver.principal'), '')::uuid id) p`

// acts reports whether the subject is an agent that acts on behalf of a user.
func (q Question) acts() bool { return q.SubjectType == directory.TypeAgent && q.OnBehalfOf != "" }

// issued returns when the token with the names was issued, or nil.
func (q Question) issued() *time.Time {
	if q.IssuedAt.IsZero() {
		return nil
	}
	return &q.IssuedAt
}

// names returns the entitlements that could allow the action.
func (q Question) names() []string {
	names := []string{"scope:" + q.Action, "scope:" + q.Action + ":own"}
	switch {
	case q.ResourceType == "team":
		names = append(names, "team:"+q.Resource)
	case isMCP(q.ResourceType, q.Action):
		names = append(names, "scope:"+q.Action+":"+q.Resource)
	}
	return names
}

// read returns the statements that read the facts of a question.
func (f *facts) read(tenant uuid.UUID, q Question) []database.Statement {
	subject, folded, exact := directory.Reference{Value: q.Subject}.Keys()
	args := []any{tenant, q.SubjectType, subject, folded, exact, q.acts(), q.OnBehalfOfType}
	onBehalf, folded, exact := directory.Reference{Value: q.OnBehalfOf}.Keys()
	statements := []database.Statement{{
		SQL: partiesSQL, Args: append(args, onBehalf, folded, exact, q.Issuers, q.Identity, q.issued()),
		Collect: func(rows pgx.Rows) error { return f.collectParties(rows, q) },
	}}
	if q.ResourceType != "credential" {
		return append(statements, f.readMore(tenant, q))
	}
	if item, ok := directory.ParseID(q.Resource); ok {
		statements = append(statements, database.Statement{
			SQL: credentialSQL, Args: []any{tenant, item}, Collect: f.collectCredential,
		})
	}
	return statements
}

// readMore returns the statement that reads what the answer still depends on: the grants at a connector, or what
// the principal is entitled to. It follows the statement that reads the parties, in the same transaction.
func (f *facts) readMore(tenant uuid.UUID, q Question) database.Statement {
	names := q.names()
	switch {
	case q.ResourceType == "connector" && f.grants == nil:
		f.grants = []string{}
		return database.Statement{
			SQL: grantsSQL, Args: []any{tenant, q.Resource, q.Action}, Collect: database.Each(f.grant()),
		}
	case q.ResourceType == "connector":
		names = f.grants
	case f.credential != nil:
		names = []string{f.credential.entitlement}
	}
	f.entitled = &entitled{}
	return database.Statement{
		SQL: entitledSQL, Args: []any{tenant, names, "scope:" + q.Action},
		Collect: database.Fields(
			&f.entitled.derives, &f.entitled.ruled, &f.entitled.stale, &f.entitled.held, &f.entitled.lost),
	}
}

// grant returns the scan destinations of a grant, and the function that appends it.
func (f *facts) grant() (into []any, next func()) {
	var name string
	return []any{&name}, func() { f.grants = append(f.grants, name) }
}

// again returns the statement that reads the parties again by id, because a deactivation may have been committed
// since.
func (f *facts) again(tenant uuid.UUID, q Question) database.Statement {
	var onBehalf any
	if q.acts() {
		onBehalf = f.principal.ID
	}
	return database.Statement{
		SQL: partiesSQL,
		Args: []any{
			tenant, f.subject.Type, f.subject.ID, nil, nil, q.acts(), q.OnBehalfOfType, onBehalf, nil, nil, q.Issuers,
			q.Identity, q.issued(),
		},
		Collect: func(rows pgx.Rows) error { return f.collectParties(rows, q) },
	}
}

func (f *facts) collectParties(rows pgx.Rows, q Question) error {
	f.subject, f.principal = Party{}, Party{}
	var subject, principal struct {
		id         *uuid.UUID
		kind, name *string
		restricted *bool
	}
	var subjectSet, principalSet *string // the results of set_config
	err := database.Fields(
		&subject.id, &subject.kind, &subject.name, &subject.restricted, &f.subject.Expired, &f.subject.Owned,
		&f.subject.ValidUntil, &principal.id, &principal.kind, &principal.name, &principal.restricted, &f.delegated,
		&f.subjects, &f.principals, &f.acting, &f.existed, &subjectSet, &principalSet)(rows)
	if err != nil {
		return err
	}
	if subject.id != nil {
		f.subject.ID, f.subject.Type = *subject.id, *subject.kind
		f.subject.Name, f.subject.Restricted = orEmpty(subject.name), *subject.restricted
	}
	if principal.id != nil {
		f.principal = Party{
			ID: *principal.id, Type: *principal.kind, Name: orEmpty(principal.name), Restricted: *principal.restricted,
		}
	}
	switch {
	case q.Through && q.AgentOptional && f.subjects == 0 && !f.existed:
		f.subject, f.delegated = f.principal, true // the decision is for the user only
	case !q.acts(), f.subject.ID != uuid.Nil && f.subject.ID == f.principal.ID:
		f.principal, f.delegated = f.subject, true
	}
	return nil
}

func (f *facts) collectCredential(rows pgx.Rows) error {
	var c credential
	err := database.Fields(&c.principal, &c.agent, &c.entitlement, &c.live, &c.expired, &c.scopes, &c.expires)(rows)
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
