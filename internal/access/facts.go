package access

import (
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// factsSQL reads the facts of one question: one row. Each fact is one index probe, but the
// search for an owner, and for a group that owns the agent; what the question cannot need
// is not read. Who is asked about by name is given by $4 and $6.
const factsSQL = `
	select s.id, s.type, s.unique_name, exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = s.id),
	       coalesce(s.valid_until <= now(), false),
	       case when s.type is distinct from 'Agent' then true when o.direct and not p.restricted then true
	            else active_owner($1, s.id, null) is not null end,
	       p.id, p.type, p.unique_name, p.restricted,
	       case when $7 = 'credential' then false when s.id = p.id or o.direct then true
	            else exists (select 1 from inventory i where i.tenant_id = $1 and i.agent_id = s.id and i.principal_id = p.id and i.state = 'live')
	              or exists (select 1 from groups_of($1, p.id) g join edges e on e.tenant_id = $1 and e.source_id = s.id and e.attribute = 'owners' and e.target_id = g.id) end,
	       exists (select 1 from mappings m where m.tenant_id = $1),
	       exists (select 1 from invalidations v where v.tenant_id = $1 and v.principal_id in (p.id, $1)),
	       c.principal_id, c.agent_id, c.entitlement, c.state = 'live', coalesce(c.expires_at <= now(), false), c.scopes,
	       g.grants, h.held,
	       case when $7 in ('credential', 'connector') or (('scope:' || $9) = any (h.held) and ($7 <> 'team' or ('team:' || $12) = any (h.held))) then '{}' else array(
	         select distinct l.name from entitlement_changes l where l.tenant_id = $1 and l.principal_id = p.id and l.name = any ($10::text[]) and not l.gained) end
	  from (select 1) one
	  left join resources s on s.tenant_id = $1 and s.type = $2 and s.deleted_at is null and s.id = coalesce($3::uuid, (
	         select r.id from resources r where r.tenant_id = $1 and r.type = $2 and r.unique_name = $4 and r.deleted_at is null))
	  left join lateral (
	    select r.id, r.type, r.unique_name, exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = r.id) restricted
	      from resources r where r.tenant_id = $1 and r.deleted_at is null and r.type = case when $11 then 'User' else s.type end
	       and r.id = case when not $11 then s.id else coalesce($5::uuid, (
	           select n.id from resources n where n.tenant_id = $1 and n.type = 'User' and n.unique_name = $6 and n.deleted_at is null)) end) p on true
	  left join lateral (
	    select exists (select 1 from edges e where e.tenant_id = $1 and e.source_id = s.id and e.attribute = 'owners' and e.target_id = p.id) direct) o on true
	  left join inventory c on $7 = 'credential' and c.tenant_id = $1 and c.id = $8::uuid
	  left join lateral (
	    select case when $7 = 'connector' then array(
	      select i.entitlement from inventory i
	       where i.tenant_id = $1 and i.principal_id = p.id and i.connector = $12 and i.state = 'live' and (s.id = p.id or i.agent_id = s.id)
	         and (i.expires_at is null or i.expires_at > now()) and (i.scopes = '{}' or $9 = any (i.scopes)) limit 1000) else '{}' end grants) g on true
	  left join lateral (
	    select array(select e.name from entitlements e
	      where e.tenant_id = $1 and e.principal_id = p.id and e.name = any ($10::text[] || c.entitlement || g.grants)) held) h on true`

// read returns the statement that reads the facts of a question.
func (f *facts) read(tenant uuid.UUID, q Question) database.Statement {
	subject, subjectName := idOrName(q.Subject)
	onBehalf, onBehalfName := idOrName(q.OnBehalfOf)
	acts := q.SubjectType == directory.TypeAgent && q.OnBehalfOf != ""
	var item any
	if id, ok := idOf(q.Resource); ok && q.ResourceType == "credential" {
		item = id
	}
	names := []string{}
	if q.ResourceType != "credential" && q.ResourceType != "connector" {
		names = []string{"scope:" + q.Action, "scope:" + q.Action + ":own"}
	}
	if q.ResourceType == "team" {
		names = append(names, "team:"+q.Resource)
	}
	return database.Statement{
		SQL:     factsSQL,
		Args:    []any{tenant, q.SubjectType, subject, subjectName, onBehalf, onBehalfName, q.ResourceType, item, q.Action, names, acts, q.Resource},
		Collect: f.collect,
	}
}

// collect scans the one row of [factsSQL].
func (f *facts) collect(rows pgx.Rows) error {
	type party struct {
		id         *uuid.UUID
		kind, name *string
		restricted *bool
	}
	var subject, principal party
	var c credential
	var holder *uuid.UUID
	var entitlement *string
	var live *bool
	_, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{}, row.Scan(&subject.id, &subject.kind, &subject.name, &subject.restricted, &f.subject.Expired, &f.subject.Owned,
			&principal.id, &principal.kind, &principal.name, &principal.restricted, &f.delegated, &f.derives, &f.stale,
			&holder, &c.agent, &entitlement, &live, &c.expired, &c.scopes, &f.grants, &f.held, &f.lost)
	})
	if err != nil {
		return err
	}
	if subject.id != nil {
		f.subject.ID, f.subject.Type, f.subject.Name, f.subject.Restricted = *subject.id, *subject.kind, orEmpty(subject.name), *subject.restricted
	}
	switch {
	case principal.id == nil:
	case f.subject.ID == *principal.id:
		f.principal = f.subject
	default:
		f.principal = Party{ID: *principal.id, Type: *principal.kind, Name: orEmpty(principal.name), Restricted: *principal.restricted}
	}
	if holder != nil {
		c.principal, c.entitlement, c.live = *holder, orEmpty(entitlement), *live
		f.credential = &c
	}
	return nil
}

func orEmpty(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

// idOrName reads a SCIM id, or else a name, which is folded. A name cannot stand for
// another's id, since an id is looked up as nothing else.
func idOrName(text string) (id, name any) {
	if text == "" {
		return nil, nil
	}
	if parsed, ok := idOf(text); ok {
		return parsed, nil
	}
	return nil, strings.ToLower(text)
}
