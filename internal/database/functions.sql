-- The database's functions and triggers, which `leaver migrate` applies each time. They
-- enforce integrity and visibility; the events of a change are decided in Go. A migration
-- drops a function that is removed here.

-- Append-only tables.

create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    -- erase_records, erase_histories and erase_principal set it. The application has no right to change these tables itself.
    if tg_op = 'UPDATE' and coalesce(current_setting('leaver.erasing', true), '') = 'on' then
        return null;
    end if;
    raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;

-- queue_evidence queues new rows of a table for the hash chain. It runs as the owner, so that the application cannot
-- queue what is in no table.
create or replace function queue_evidence() returns trigger
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    insert into public.evidence_pending (tenant_id, source, record)
    select coalesce(added.tenant_id, '00000000-0000-0000-0000-000000000000'), tg_table_name,
           to_jsonb(added) - array['tenant_id', 'history']
      from added;
    return null;
end $$;

-- erase_records empties the texts of entries of a tenant's chain, and of the rows that they are copies of, and returns the
-- numbers of these entries. The caller records them in erasures in the same transaction.
create or replace function erase_records(tenant uuid, sequences bigint[]) returns bigint[]
    language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    erased bigint[];
begin
    perform public.check_erasable(tenant);
    perform set_config('leaver.erasing', 'on', true);
    with old as materialized (
      select e.sequence, e.source, e.item_id, (e.record::jsonb ->> 'id')::bigint as id from public.evidence_chain e
       where e.tenant_id = tenant and e.sequence = any (sequences) and e.texts is not null for update),
    details as (update public.evidence x set detail = '' from old o
      where o.source = 'evidence' and x.tenant_id = tenant and x.id = o.id),
    reasons as (update public.acts x set reason = '' from old o
      where o.source = 'acts' and x.tenant_id = tenant and x.id = o.id),
    states as (update public.credential_states x set reason = '' from old o
      where o.source = 'credential_states' and x.tenant_id = tenant and x.item_id = o.item_id and x.id = o.id),
    changes as (update public.admin_acts x set before = null, after = null from old o
      where o.source = 'admin_acts' and x.tenant_id = tenant and x.id = o.id),
    emptied as (update public.evidence_chain x set texts = null, salt = null from old o
      where x.tenant_id = tenant and x.sequence = o.sequence returning x.sequence)
    select coalesce(array_agg(sequence), '{}') into erased from emptied;
    perform set_config('leaver.erasing', '', true);
    return erased;
end $$;

-- erase_histories empties the archived histories of a tenant that are older than a time.
create or replace function erase_histories(tenant uuid, older timestamptz) returns void
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    perform public.check_erasable(tenant);
    perform set_config('leaver.erasing', 'on', true);
    update public.cascade_histories x set history = null
     where x.tenant_id = tenant and x.archived_at < older and x.history is not null;
    perform set_config('leaver.erasing', '', true);
end $$;

-- check_erasable raises an exception for another tenant, or one with a legal hold. A hold waits for the transaction.
create or replace function check_erasable(tenant uuid) returns void language plpgsql as $$
begin
    perform 1 from public.tenants t where t.id = tenant for share;
    if tenant is distinct from public.leaver_tenant()
       or exists (select 1 from public.tenants t where t.id = tenant and t.legal_hold <> '') then
        raise exception 'nothing of this tenant may be erased' using errcode = 'insufficient_privilege';
    end if;
end $$;

-- erase_principal removes what names a deleted user, whose credentials are ended. Its id stays, and what is about the id
-- alone.
create or replace function erase_principal(tenant uuid, principal uuid) returns void
    language plpgsql security definer set search_path = pg_catalog, public as $$
declare
    held uuid[];
    cascades uuid[];
begin
    perform public.check_erasable(tenant);
    held := array(select c.id from public.credentials c where c.tenant_id = tenant and c.principal_id = principal);
    cascades := array(select e.id from public.lifecycle_events e where e.tenant_id = tenant and e.principal_id = principal);
    update public.resources r
       set unique_name = null, display_name = null, external_id = null, document = '{}', folded = '{}', extensions = '{}'
     where r.tenant_id = tenant and r.id = principal and r.type = 'User' and r.deleted_at is not null
       and not exists (select 1 from public.credentials c
                        where c.id = any (held) and c.tenant_id = tenant and c.state in ('live', 'ending', 'failed', 'waived'));
    if not found then
        raise exception 'the principal is not a deleted user without access' using errcode = 'insufficient_privilege';
    end if;
    perform set_config('leaver.erasing', 'on', true);
    update public.changes x set ignored = '{}' where x.tenant_id = tenant and x.resource_id = principal and x.ignored <> '{}';
    update public.evidence x set detail = ''
     where x.tenant_id = tenant and (x.item_id = any (held) or x.event_id = any (cascades)) and x.detail <> '';
    update public.acts x set reason = '' where x.tenant_id = tenant and x.event_id = any (cascades) and x.reason <> '';
    update public.credential_states x set reason = ''
     where x.tenant_id = tenant and (x.item_id = any (held) or x.event_id = any (cascades)) and x.reason <> '';
    update public.cascade_histories x set history = null where x.tenant_id = tenant and x.event_id = any (cascades);
    perform set_config('leaver.erasing', '', true);
    update public.credentials x
       set reference = 'erased/' || x.id, account = '', secret = null, reason = '', relied_on_by = '{}', scopes = '{}'
     where x.tenant_id = tenant and x.id = any (held);
    update public.unmanaged x set reference = 'erased/' || x.id, principal_id = null, scopes = '{}'
     where x.tenant_id = tenant and (x.principal_id = principal or x.item_id = any (held));
    update public.rotations x set reference = 'erased/' || x.id, new_reference = '', new_secret = null
     where x.tenant_id = tenant and x.step in ('done', 'abandoned')
       and exists (select 1 from public.rotation_holders h where h.tenant_id = tenant and h.rotation_id = x.id)
       and not exists (select 1 from public.rotation_holders h
                        where h.tenant_id = tenant and h.rotation_id = x.id and h.item_id <> all (held));
    update public.waivers x set reason = '' where x.tenant_id = tenant and x.item_id = any (held);
    update public.lifecycle_events x set last_error = null, trace = null
     where x.tenant_id = tenant and x.principal_id = principal;
    delete from public.principal_names x where x.tenant_id = tenant and x.principal_id = principal;
    delete from public.unique_values x where x.tenant_id = tenant and x.resource_id = principal;
    delete from public.signals x where x.tenant_id = tenant and x.principal_id = principal;
    delete from public.account_leases x where x.tenant_id = tenant and x.item_id = any (held);
end $$;

-- evidence_due returns the tenants whose chains lack records, or have records that are older than an interval and not
-- signed. The installation is the tenant 0.
create or replace function evidence_due(signed_within interval) returns setof uuid
    language sql stable security definer set search_path = pg_catalog, public as $$
    select t.id from (select id from public.tenants union all select '00000000-0000-0000-0000-000000000000') t
     where exists (select 1 from public.evidence_pending p where p.tenant_id = t.id)
    union
    select tenant_id from public.evidence_heads where sequence > signed_sequence and signed_at < now() - signed_within
$$;

-- unarchived_cascades claims closed cascades whose histories are not archived, for a minute.
create or replace function unarchived_cascades(at_most int) returns table (tenant_id uuid, event_id uuid, workflow_id text, run_id text)
    language sql security definer set search_path = pg_catalog, public as $$
    update public.lifecycle_events e set archive_due_at = now() + interval '1 minute'
      from (select u.tenant_id, u.id from public.lifecycle_events u
             where u.closed_at is not null and (u.archived_at is null or u.archived_at < u.closed_at)
               and (u.kind = 'leaver' or u.ends) and coalesce(u.archive_due_at, u.closed_at) <= now()
             order by coalesce(u.archive_due_at, u.closed_at) limit at_most for update skip locked) c
     where e.tenant_id = c.tenant_id and e.id = c.id
    returning e.tenant_id, e.id, e.workflow_id, coalesce(e.run_id, '')
$$;

-- claim_audit claims the longest unclaimed chain with records that a sink has not confirmed, for lease.
create or replace function claim_audit(of_sink text, lease interval) returns table (tenant_id uuid, sequence bigint)
    language sql security definer set search_path = pg_catalog, public as $$
    insert into public.audit_positions (tenant_id, sink)
    select h.tenant_id, of_sink from public.evidence_heads h
     where h.sequence > 0 and not exists (
       select 1 from public.audit_positions p where p.tenant_id = h.tenant_id and p.sink = of_sink)
    on conflict do nothing;
    update public.audit_positions p set claimed_until = now() + lease
      from (select a.tenant_id from public.audit_positions a join public.evidence_heads h on h.tenant_id = a.tenant_id
             where a.sink = of_sink and h.sequence > a.sequence and (a.claimed_until is null or a.claimed_until < now())
             order by a.claimed_until nulls first limit 1 for update of a skip locked) due
     where p.tenant_id = due.tenant_id and p.sink = of_sink
    returning p.tenant_id, p.sequence
$$;

-- audit_health returns the records that a sink has not confirmed, and the failure that lasts longest.
create or replace function audit_health(of_sink text) returns table (pending bigint, failed_at timestamptz, failure text)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select coalesce((select sum(h.sequence - coalesce(p.sequence, 0))::bigint from public.evidence_heads h
                       left join public.audit_positions p on p.tenant_id = h.tenant_id and p.sink = of_sink), 0),
           last.failed_at, coalesce(last.failure, '')
      from (values (1)) one left join lateral (
        select p.failed_at, p.failure from public.audit_positions p where p.sink = of_sink and p.failed_at is not null
         order by p.failed_at limit 1) last on true
$$;

-- keep_state records each state of an item.
create or replace function keep_state() returns trigger language plpgsql as $$
begin
    insert into credential_states (tenant_id, item_id, state, reason, event_id, actor)
    values (new.tenant_id, new.id, new.state, new.reason, new.event_id, coalesce(current_setting('leaver.actor', true), ''));
    return null;
end $$;

-- Traversals of the graph. They are in plpgsql, which caches plans in the session; a function
-- in sql is planned at each call.

-- active_owner returns a user who owns the agent, directly or through groups, and is not
-- restricted, other than `leaving`; null if there is none. The recursive query is evaluated
-- lazily, and `offset 0` forces a nested loop over the owners, so that the search stops at
-- the first active owner, however many members a group has.
create or replace function active_owner(tenant uuid, agent uuid, leaving uuid) returns uuid
    language plpgsql stable as $$
begin
    return (
      with recursive owners (id) as (
        select e.target_id from edges e where e.tenant_id = tenant and e.source_id = agent and e.attribute = 'owners' and not e.restricted
        union
        select e.target_id from owners o
          join resources g on g.tenant_id = tenant and g.id = o.id and g.type = 'Group' and g.deleted_at is null
          join edges e on e.tenant_id = tenant and e.source_id = g.id and e.attribute = 'members' and not e.restricted)
      select o.id from owners o cross join lateral (
        select 1 from resources p
         where p.tenant_id = tenant and p.id = o.id and p.type = 'User' and p.deleted_at is null and p.id is distinct from leaving
           and not exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = p.id)
        offset 0) active
       limit 1);
end $$;

-- agents_ending_with returns the agents that would have no active owner without a
-- principal: the principal itself if it is an agent; the agents that only it owns; and,
-- recursively, sub-agents without another active owner. `union` visits each agent once, so
-- that cycles end.
create or replace function agents_ending_with(tenant uuid, leaving uuid) returns setof uuid
    language plpgsql stable as $$
begin
    return query
    with recursive owning (id) as (
      select leaving
      union
      select e.source_id from owning o
        join edges e on e.tenant_id = tenant and e.target_id = o.id and e.attribute = 'members'),
    ending (id) as (
      select a.id from (
        select r.id from resources r where r.tenant_id = tenant and r.id = leaving and r.type = 'Agent'
        union
        select e.source_id from owning o
          join edges e on e.tenant_id = tenant and e.target_id = o.id and e.attribute = 'owners'
         where active_owner(tenant, e.source_id, leaving) is null) a
      union
      select e.source_id from ending n
        join edges e on e.tenant_id = tenant and e.attribute = 'parent' and e.target_id = n.id
       where active_owner(tenant, e.source_id, leaving) is null)
    select ending.id from ending;
end $$;

-- groups_of returns the groups that a principal is a member of, directly or through other
-- groups. The recursion carries the names: for a lookup at the end, the planner would expect
-- hundreds of groups, and scan a small table.
create or replace function groups_of(tenant uuid, principal uuid) returns table (id uuid, display text, direct boolean)
    language plpgsql stable as $$
begin
    return query
    with recursive up (id, display, direct) as (
      select g.id, g.display_name, true from edges e
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null
       where e.tenant_id = tenant and e.target_id = principal and e.attribute = 'members'
      union
      select g.id, g.display_name, false from up
        join edges e on e.tenant_id = tenant and e.target_id = up.id and e.attribute = 'members'
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null)
    select up.id, coalesce(up.display, ''), bool_or(up.direct) from up where up.id <> principal group by up.id, up.display;
end $$;

-- members_within returns all direct and indirect members of a group, as the filter
-- `groups eq` selects them.
create or replace function members_within(tenant uuid, top uuid) returns setof uuid
    language plpgsql stable as $$
begin
    return query
    with recursive down (id) as (
      select e.target_id from edges e
        join resources g on g.tenant_id = tenant and g.id = top and g.deleted_at is null
       where e.tenant_id = tenant and e.source_id = top and e.attribute = 'members'
      union
      select e.target_id from down
        join resources g on g.tenant_id = tenant and g.id = down.id and g.type = 'Group' and g.deleted_at is null
        join edges e on e.tenant_id = tenant and e.source_id = down.id and e.attribute = 'members')
    select down.id from down where down.id <> top;
end $$;

-- delegates reports whether an agent holds a live credential of a user, or whether the user
-- is in a group that owns the agent.
create or replace function delegates(tenant uuid, agent uuid, principal uuid) returns boolean
    language plpgsql stable as $$
begin
    return exists (select 1 from credentials i where i.tenant_id = tenant and i.agent_id = agent and i.principal_id = principal and i.state = 'live')
        or exists (select 1 from groups_of(tenant, principal) g
             join edges e on e.tenant_id = tenant and e.source_id = agent and e.attribute = 'owners' and e.target_id = g.id);
end $$;

-- has_name reports whether a row of principal_names is a name that a token carries. Names of
-- people and e-mail addresses are compared without regard to case.
create or replace function has_name(
    n principal_names, issuers text[], name_folded text, name_exact text) returns boolean
    language sql immutable as $$
    select n.issuer = any (issuers)
       and n.value = case when n.kind in ('userName', 'agentUserName', 'emails') then name_folded else name_exact end
$$;

-- principals_named returns the live principals of a type (any type if it is empty) that a name
-- may mean, and of_id itself for the directory: at most two. kinds limits the attributes; null
-- is all. issued is when the token with the name was issued, if that is known: then the holders
-- at that time are meant, although they may have lost the name since. Otherwise the current
-- holders are meant, together with one who lost the name within a day: a token that names it may
-- still be valid. An e-mail address counts only if there is no other name, unless the name is
-- the claim of a token: anybody may have it.
create or replace function principals_named(
    tenant uuid, of_type text, issuers text[], of_id uuid, name_folded text, name_exact text, claim boolean,
    issued timestamptz, kinds text[] default null) returns uuid[]
    language plpgsql stable as $$
declare
    ids uuid[] := '{}';
    emails boolean[];
    meant uuid[]; -- the holders when the token was issued
    held uuid[];  -- the current holders
    lost uuid[];  -- who lost the name since
begin
    if of_id is not null and '' = any (issuers) then
        ids := array(
          select r.id from resources r
           where r.tenant_id = tenant and r.id = of_id and r.type in ('User', 'Agent')
             and (of_type = '' or r.type = of_type) and r.deleted_at is null);
        if ids <> '{}' and not claim then
            return ids;
        end if;
    end if;
    foreach emails slice 1 in array
        case when claim then array[[true, false]] else array[[false, false], [true, true]] end
    loop
        select array_agg(h.id) filter (where h.meant), array_agg(h.id) filter (where h.held),
               array_agg(h.id) filter (where h.lost)
          into meant, held, lost
          from (
            select n.principal_id id, bool_or(n.since <= issued and (n.until is null or n.until > issued)) meant,
                   bool_or(n.until is null) held,
                   bool_or(n.until > coalesce(issued, now() - interval '1 day')) lost
              from principal_names n join resources r on r.tenant_id = tenant and r.id = n.principal_id
             where n.tenant_id = tenant and n.value in (name_folded, name_exact)
               and has_name(n, issuers, name_folded, name_exact) and (n.kind = 'emails') = any (emails)
               and (kinds is null or n.kind = any (kinds)) and (of_type = '' or r.type = of_type)
             group by n.principal_id) h;
        if meant is not null then
            ids := ids || array(
              select r.id from unnest(meant) m (id) join resources r on r.tenant_id = tenant and r.id = m.id
               where r.deleted_at is null);
            exit;
        end if;
        if held is not null then
            ids := ids || held || coalesce(lost, '{}');
            exit;
        end if;
    end loop;
    return array(select distinct i.id from unnest(ids) i (id) limit 2);
end $$;

-- agent_existed reports whether an agent of any issuer has or had a name or an id: a deleted
-- agent keeps both.
create or replace function agent_existed(
    tenant uuid, of_id uuid, name_folded text, name_exact text) returns boolean
    language plpgsql stable as $$
begin
    return exists (select 1 from resources r where r.tenant_id = tenant and r.id = of_id and r.type = 'Agent')
        or exists (
          select 1 from principal_names n
            join resources r on r.tenant_id = tenant and r.id = n.principal_id and r.type = 'Agent'
           where n.tenant_id = tenant and n.value in (name_folded, name_exact)
             and has_name(n, array[n.issuer], name_folded, name_exact));
end $$;

-- agents_acting returns those of the agents with a name that act for a principal: it owns them,
-- directly or through a group, or they hold a live credential of it, or it is the agent itself.
-- OAuth clients are often shared by the agents of many people. At most two are returned, one of
-- them perhaps an agent that lost the name within a day. The plan is generic: planning takes longer
-- than the query. Owners are an array, since a generic plan of a join with groups_of reads all edges.
-- Most names are of one agent, which the principal owns: that is looked up first.
create or replace function agents_acting(
    tenant uuid, principal uuid, issuers text[], of_id uuid, name_folded text, name_exact text) returns uuid[]
    language plpgsql stable set plan_cache_mode = force_generic_plan as $$
declare
    owners uuid[];
    sole uuid[]; -- the only agent with the name, if the principal owns it
begin
    if of_id is null then
        select case when count(*) = 1 and bool_and(h.held and exists (
                 select 1 from edges e
                  where e.tenant_id = tenant and e.source_id = h.id and e.attribute = 'owners' and e.target_id = principal))
               then array_agg(h.id) end into sole
          from (
            select n.principal_id id, bool_or(n.until is null) held
              from principal_names n
              join resources r on r.tenant_id = tenant and r.id = n.principal_id and r.type = 'Agent'
             where n.tenant_id = tenant and n.value in (name_folded, name_exact)
               and has_name(n, issuers, name_folded, name_exact)
               and (n.until is null or n.until > now() - interval '1 day')
             group by n.principal_id limit 2) h;
        if sole is not null then
            return sole;
        end if;
    end if;
    owners := principal || array(select g.id from groups_of(tenant, principal) g);
    return (
      with mine (id) as (
        select e.source_id from edges e
         where e.tenant_id = tenant and e.attribute = 'owners' and e.target_id = any (owners)
        union
        select i.agent_id from credentials i
         where i.tenant_id = tenant and i.principal_id = principal and i.agent_id is not null and i.state = 'live'
        union
        select principal),
      named (id, held) as (
        select m.id, bool_or((m.id = of_id and '' = any (issuers)) or n.until is null)
          from mine m
          join resources r on r.tenant_id = tenant and r.id = m.id and r.type = 'Agent'
          left join principal_names n on n.tenant_id = tenant and n.principal_id = m.id
            and n.value in (name_folded, name_exact) and has_name(n, issuers, name_folded, name_exact)
            and (n.until is null or n.until > now() - interval '1 day')
         where n.value is not null or (m.id = of_id and '' = any (issuers) and r.deleted_at is null) group by m.id)
      select case when bool_or(held) then (array_agg(id order by held desc))[1:2] else '{}' end from named);
end $$;

-- parents_above returns how many parents an agent has if its parent is the given one; -1 for
-- a cycle.
create or replace function parents_above(tenant uuid, agent uuid, parent uuid) returns int
    language plpgsql stable as $$
declare
    above uuid := parent;
    n int := 0;
begin
    while above is not null loop
        n := n + 1;
        if above = agent then return -1; end if;
        if n > 1000 then return n; end if;
        above := (select e.target_id from edges e where e.tenant_id = tenant and e.source_id = above and e.attribute = 'parent' limit 1);
    end loop;
    return n;
end $$;

-- relations_of returns the relations of a resource as JSON: its restriction, its groups, its
-- owners and its parent.
create or replace function relations_of(tenant uuid, resource uuid) returns jsonb
    language plpgsql stable as $$
begin
    return jsonb_build_object(
      'restriction', (
        select jsonb_build_object('since', x.since, 'cause', x.cause, 'workflowId', coalesce(e.workflow_id, ''), 'survivors', coalesce(e.survivors, 0))
          from restrictions x left join lifecycle_events e on e.tenant_id = tenant and e.id = x.event_id
         where x.tenant_id = tenant and x.principal_id = resource),
      'groups', (
        select jsonb_agg(jsonb_build_object('attribute', 'groups', 'value', g.id, 'type', case when g.direct then 'direct' else 'indirect' end, 'display', g.display) order by g.id)
          from groups_of(tenant, resource) g),
      'edges', (
        select jsonb_agg(jsonb_build_object('attribute', e.attribute, 'value', t.id, 'type', t.type, 'display', coalesce(t.display_name, '')) order by e.attribute, t.id)
          from edges e join resources t on t.tenant_id = tenant and t.id = e.target_id and t.deleted_at is null
         where e.tenant_id = tenant and e.source_id = resource and e.attribute in ('owners', 'parent')));
end $$;

-- other_holders returns the items of other principals that hold the account of an item and
-- keep it. With the default estimate of 1,000 rows the planner would read all of the tenant's
-- credentials for a join with them.
create or replace function other_holders(item credentials) returns setof uuid
    language plpgsql stable rows 1 as $$
begin
    return query
    select o.id from credentials o
     where o.tenant_id = item.tenant_id and o.connector = item.connector and o.kind = item.kind and o.reference = item.reference
       and o.state in ('live', 'waived') and o.id <> item.id and o.principal_id <> item.principal_id
       and not exists (select 1 from restrictions x where x.tenant_id = o.tenant_id and x.principal_id in (o.principal_id, o.agent_id));
end $$;

-- relied_on reports whether others than these principals rely on the account of an item: by
-- its registration, by another registration of the account, or as holders that keep it.
create or replace function relied_on(item credentials, besides uuid[]) returns boolean
    language plpgsql stable as $$
begin
    return item.shared or item.relied_on_by <> '{}' or exists (
          select 1 from credentials o
           where o.tenant_id = item.tenant_id and o.connector = item.connector and o.kind = item.kind and o.reference = item.reference
             and o.state in ('live', 'ending', 'failed', 'waived') and (o.shared or o.relied_on_by <> '{}'))
        or exists (
          select 1 from other_holders(item) h join credentials o on o.tenant_id = item.tenant_id and o.id = h
           where o.principal_id <> all (besides));
end $$;

-- of_later_life reports whether one of the principals returned between an event and the
-- registration of an item. A later sequence of the item is not enough: registrations take no
-- lock that a deactivation waits for, so an item that was admitted before the event may have
-- a later sequence.
create or replace function of_later_life(tenant uuid, event_sequence bigint, item_sequence bigint, principals uuid[]) returns boolean
    language plpgsql stable as $$
begin
    return item_sequence > event_sequence and exists (
        select 1 from lifecycle_events j
         where j.tenant_id = tenant and j.principal_id = any (principals) and j.kind = 'joiner' and 'active' = any (j.changed)
           and j.sequence > event_sequence and j.sequence < item_sequence);
end $$;

-- entitlements_stale reports whether the principal's entitlements are invalidated and not
-- evaluated yet.
create or replace function entitlements_stale(tenant uuid, principal uuid) returns boolean
    language plpgsql stable as $$
begin
    return exists (select 1 from invalidations d where d.tenant_id = tenant and d.principal_id in (principal, tenant));
end $$;

-- lock_key returns the key of the advisory lock of an account or a principal.
create or replace function lock_key(tenant uuid, parts text[]) returns bigint
    language sql immutable parallel safe
    as $$ select hashtextextended(array_to_string(array_prepend(tenant::text, parts), E'\x1f'), 0) $$;

-- Marks of restricted members and owners, for active_owner.

create or replace function mark_new_edges() returns trigger language plpgsql as $$
begin
    -- A later return waits for the lock, and then finds the edges. A return in progress is
    -- skipped, since it may wait for these edges: they stay unmarked.
    with held as materialized (
      select x.tenant_id, x.principal_id from restrictions x
       where (x.tenant_id, x.principal_id) in (select a.tenant_id, a.target_id from added a where a.attribute in ('members', 'owners'))
         for share skip locked)
    update edges e set restricted = true from added a join held x on x.tenant_id = a.tenant_id and x.principal_id = a.target_id
     where e.tenant_id = a.tenant_id and e.source_id = a.source_id and e.attribute = a.attribute and e.target_id = a.target_id
       and a.attribute in ('members', 'owners');
    return null;
end $$;
create or replace function mark_edges() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        -- A deactivation must not wait for a change of a group: locked edges stay unmarked.
        update edges e set restricted = true
          from (select u.source_id, u.attribute from edges u
                 where u.tenant_id = new.tenant_id and u.target_id = new.principal_id and u.attribute in ('members', 'owners') and not u.restricted
                   for no key update skip locked) m
         where e.tenant_id = new.tenant_id and e.target_id = new.principal_id and e.source_id = m.source_id and e.attribute = m.attribute;
    else
        update edges e set restricted = false where e.tenant_id = old.tenant_id and e.target_id = old.principal_id and e.attribute in ('members', 'owners') and e.restricted;
    end if;
    return null;
end $$;

-- Lookups across tenants, with the owner's rights. Each returns only what its caller may see.

create or replace function authenticate_token(token_hash bytea)
    returns table (id uuid, class text, issuer text, scopes text[], expires_at timestamptz, tenant jsonb)
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    return query
        select coalesce(p.id, t.id), t.class, t.issuer, '{}'::text[], least(t.expires_at, p.expires_at), to_jsonb(n)
          from public.tokens t left join public.tenants n on n.id = t.tenant_id left join public.tokens p on p.id = t.session_of
         where t.hash = token_hash
           and t.revoked_at is null and p.revoked_at is null
           and (t.expires_at is null or t.expires_at > now())
           and (p.expires_at is null or p.expires_at > now())
        union all
        select c.id, 'client', c.issuer, a.scopes, a.expires_at, to_jsonb(n)
          from public.access_tokens a
          join public.clients c on c.tenant_id = a.tenant_id and c.id = a.client_id
          join public.tenants n on n.id = a.tenant_id
         where a.hash = token_hash and a.expires_at > now();
    update public.tokens t set last_used_at = now()
     where t.hash = token_hash
       and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute');
end $$;

-- find_issuers is called before the tenant of a JWT is known.
create or replace function find_issuers(issuer_url text)
    returns table (id uuid, audience text, jwks_url text, subjects text[], uses text[], tenant jsonb)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select i.id, i.audience, i.jwks_url, i.subjects, i.uses, to_jsonb(n)
      from public.issuers i join public.tenants n on n.id = i.tenant_id
     where i.issuer = issuer_url
$$;

-- expired_agents returns expired agents that are not restricted yet, round robin over all
-- tenants.
create or replace function expired_agents(at_most int) returns table (tenant_id uuid, principal_id uuid)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select d.tenant_id, d.id from (
      select r.tenant_id, r.id, r.valid_until, row_number() over (partition by r.tenant_id order by r.valid_until) turn
        from public.resources r
       where r.valid_until <= now() and r.valid_until is not null and r.deleted_at is null
         and not exists (select 1 from public.restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)) d
     order by d.turn, d.valid_until limit at_most
$$;

-- due_events returns the events of all tenants whose workflows are to be started: at most
-- at_most for each tenant, actor and period (in seconds), leavers and others separately, in
-- the order of their sequences.
create or replace function due_events(at_most int, period int)
    returns table (tenant_id uuid, id uuid, sequence bigint, leaver boolean, actor text, period bigint)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select d.tenant_id, d.id, d.sequence, d.leaver, d.actor, d.period from (
      select e.*, row_number() over (partition by e.leaver, e.tenant_id, e.actor, e.period order by e.sequence) n from (
        select w.tenant_id, w.id, w.sequence, w.kind = 'leaver' leaver, w.actor, floor(extract(epoch from w.created_at) / $2)::bigint as period
          from public.lifecycle_events w where w.started_at is null and w.due_at <= now()) e) d
     where d.n <= at_most
$$;

-- running_leavers returns how many cascades of each tenant and actor were started within
-- the interval and are not closed.
create or replace function running_leavers(within interval) returns table (tenant_id uuid, actor text, running bigint)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select r.tenant_id, r.actor, count(*) from public.lifecycle_events r
     where r.kind = 'leaver' and r.started_at is not null and r.closed_at is null and r.started_at > now() - within
     group by 1, 2
$$;

-- claim_events leases the events that are still due and that no other relay is claiming. If a
-- relay crashes, its events become due again.
create or replace function claim_events(tenants uuid[], ids uuid[], lease interval) returns setof lifecycle_events
    language sql security definer set search_path = pg_catalog, public as $$
    update public.lifecycle_events e
       set due_at = now() + lease * least(power(2, e.attempts), 8), attempts = e.attempts + 1
      from (select d.tenant_id, d.id from unnest(tenants, ids) c (tenant_id, id)
              join public.lifecycle_events d on d.tenant_id = c.tenant_id and d.id = c.id
             where d.started_at is null and d.due_at <= now() for update of d skip locked) claimed
     where e.tenant_id = claimed.tenant_id and e.id = claimed.id
    returning e.*
$$;

-- claim_streams claims streams of all tenants with undelivered signals, least recently
-- claimed first, so that a stream whose receiver is down does not delay the others.
create or replace function claim_streams(at_most int, lease interval) returns table (tenant_id uuid, stream_id uuid)
    language sql security definer set search_path = pg_catalog, public as $$
    update public.streams c set claimed_until = now() + lease
      from (select s.tenant_id, s.id from public.streams s
             where s.method = 'push' and s.status = 'enabled' and (s.claimed_until is null or s.claimed_until < now())
               and exists (select 1 from public.signals g where g.tenant_id = s.tenant_id and g.stream_id = s.id and g.settled_at is null)
             order by s.claimed_until nulls first limit at_most for update skip locked) due
     where c.tenant_id = due.tenant_id and c.id = due.id
    returning c.tenant_id, c.id
$$;

-- sweep_signals expires signals that were not delivered in time and deletes old ones, at most
-- at_most of each. It returns their number.
create or replace function sweep_signals(retention interval, at_most int) returns bigint
    language sql security definer set search_path = pg_catalog, public as $$
    with late as (
      update public.signals g set settled_at = now(), outcome = 'expired'
        from (select tenant_id, stream_id, id from public.signals where settled_at is null and created_at < now() - retention limit at_most) l
       where g.tenant_id = l.tenant_id and g.stream_id = l.stream_id and g.id = l.id returning 1),
    gone as (
      delete from public.signals g
       using (select tenant_id, stream_id, id from public.signals where settled_at < now() - retention limit at_most) l
       where g.tenant_id = l.tenant_id and g.stream_id = l.stream_id and g.id = l.id returning 1)
    select (select count(*) from late) + (select count(*) from gone)
$$;

-- installation_health returns counts over all tenants. A backlog in the outbox is normal, so
-- an event counts as unstarted only a minute after its creation if more than two starts have
-- failed, or after 30 minutes.
create or replace function installation_health()
    returns table (unstarted bigint, survivors bigint, waived bigint, unmanaged bigint, holds bigint)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select (select count(*) from public.lifecycle_events where started_at is null
              and (attempts > 2 and created_at < now() - interval '1 minute' or created_at < now() - interval '30 minutes')),
           (select count(*) from public.credentials where state = 'failed'),
           (select count(*) from public.credentials where state = 'waived'),
           (select count(*) from public.unmanaged where item_id is null),
           (select count(*) from public.holds where approved_at is null)
$$;

-- waiting_health returns for how many seconds the oldest invalidation (of a principal that
-- is not restricted) and the oldest undelivered signal have waited, of all tenants.
create or replace function waiting_health() returns table (invalidations double precision, signals double precision)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select coalesce((select extract(epoch from now() - min(d.at)) from public.invalidations d
              where not exists (select 1 from public.restrictions x where x.tenant_id = d.tenant_id and x.principal_id = d.principal_id)), 0),
           coalesce((select extract(epoch from now() - min(g.created_at)) from public.signals g
              join public.streams s on s.tenant_id = g.tenant_id and s.id = g.stream_id and s.status = 'enabled'
             where g.settled_at is null), 0)
$$;

-- evidence_health returns, of all tenants: the records that are not chained, up to 100,000; the greatest age in seconds of
-- the last checkpoint of a chain with later records; the cascades that closed more than 10 minutes ago and are not
-- archived, up to 1,000; and for how many seconds an audit sink that is still tried has failed.
create or replace function evidence_health()
    returns table (unchained bigint, unsigned double precision, unarchived bigint, sink_failing double precision)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select (select count(*) from (select 1 from public.evidence_pending limit 100000) p),
           coalesce((select extract(epoch from now() - min(h.signed_at)) from public.evidence_heads h
             where h.sequence > h.signed_sequence), 0),
           (select count(*) from (
              select 1 from public.lifecycle_events u
               where u.closed_at is not null and (u.archived_at is null or u.archived_at < u.closed_at)
                 and (u.kind = 'leaver' or u.ends) and u.closed_at < now() - interval '10 minutes' limit 1000) c),
           coalesce((select extract(epoch from now() - min(p.failed_at)) from public.audit_positions p
             where p.claimed_until > now() - interval '1 hour'), 0)
$$;

-- connector_health returns, for each connector with any, the credentials of all tenants that cascades are ending and that
-- they failed to end, and the last failure with its reason.
create or replace function connector_health()
    returns table (connector text, ending bigint, failed bigint, failed_at timestamptz, reason text)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select i.connector, count(*) filter (where i.state = 'ending'), count(*) filter (where i.state = 'failed'),
           max(i.updated_at) filter (where i.state = 'failed'),
           coalesce((array_agg(i.reason order by i.updated_at desc) filter (where i.state = 'failed'))[1], '')
      from public.credentials i where i.state in ('ending', 'failed') group by 1
$$;

-- zero_health returns the median, the 95th percentile and the maximum of the seconds from the commit of a deactivation to
-- its last verified death, of up to 500 completed cascades of leavers of the last 24 hours, of all tenants; nulls if there are none.
create or replace function zero_health() returns table (median double precision, p95 double precision, worst double precision)
    language sql stable security definer set search_path = pg_catalog, public as $$
    with recent as (
      select e.tenant_id, e.id, e.created_at from public.lifecycle_events e
       where e.kind = 'leaver' and e.outcome = 'completed' and e.closed_at > now() - interval '1 day'
       order by e.closed_at desc limit 500),
    zeros as (
      select extract(epoch from (select max(v.at) from public.evidence v where v.tenant_id = r.tenant_id and v.event_id = r.id
         and v.step = 'probe-after' and v.outcome = 'dead') - r.created_at)::float8 seconds from recent r)
    select percentile_disc(0.5) within group (order by seconds), percentile_disc(0.95) within group (order by seconds), max(seconds) from zeros
$$;

-- zero_connectors returns, for the same cascades, the seconds to the last verified death at each connector with one.
create or replace function zero_connectors()
    returns table (connector text, median double precision, p95 double precision, worst double precision)
    language sql stable security definer set search_path = pg_catalog, public as $$
    with recent as (
      select e.tenant_id, e.id, e.created_at from public.lifecycle_events e
       where e.kind = 'leaver' and e.outcome = 'completed' and e.closed_at > now() - interval '1 day'
       order by e.closed_at desc limit 500),
    deaths as (
      select c.connector, extract(epoch from max(v.at) - r.created_at)::float8 seconds
        from recent r join public.evidence v on v.tenant_id = r.tenant_id and v.event_id = r.id
         and v.step = 'probe-after' and v.outcome = 'dead'
        join public.credentials c on c.tenant_id = r.tenant_id and c.id = v.item_id
       group by r.tenant_id, r.id, r.created_at, c.connector)
    select d.connector, percentile_disc(0.5) within group (order by seconds), percentile_disc(0.95) within group (order by seconds),
           max(seconds)
      from deaths d group by 1
$$;

-- running_health returns, for the cascades of all tenants that are open and not held for
-- approval: their number, the age of the oldest in seconds, how many no worker has begun a
-- minute after their start, and the longest time without progress in seconds. unasked is the
-- number of failed cascades for which a connector failed to list its credentials.
create or replace function running_health()
    returns table (running bigint, oldest double precision, unbegun bigint, stalled double precision, unasked bigint)
    language sql stable security definer set search_path = pg_catalog, public as $$
    with open as (
      select e.tenant_id, e.id, e.created_at, e.started_at, e.begun_at from public.lifecycle_events e
       where e.closed_at is null and (e.kind = 'leaver' or e.ends)
         and not exists (select 1 from public.holds b where b.tenant_id = e.tenant_id and b.id = e.hold_id and b.approved_at is null))
    select count(*), coalesce(extract(epoch from now() - min(o.created_at)), 0),
           count(*) filter (where o.begun_at is null and o.started_at < now() - interval '1 minute'),
           coalesce(extract(epoch from now() - min(greatest(o.begun_at, last.evidence, last.item)) filter (where o.begun_at is not null)), 0),
           (select count(*) from public.lifecycle_events f where f.outcome = 'failed' and f.not_asked <> '[]')
      from open o left join lateral (
        select (select v.at from public.evidence v where v.tenant_id = o.tenant_id and v.event_id = o.id order by v.id desc limit 1) evidence,
               (select max(i.updated_at) from public.credentials i where i.tenant_id = o.tenant_id and i.event_id = o.id) item) last on true
$$;

revoke execute on function authenticate_token(bytea), find_issuers(text), expired_agents(int), due_events(int, int), running_leavers(interval), claim_events(uuid[], uuid[], interval), claim_streams(int, interval),
    sweep_signals(interval, int), installation_health(), waiting_health(), running_health(), zero_health(), zero_connectors(), connector_health(), evidence_health(), evidence_due(interval), unarchived_cascades(int), claim_audit(text, interval), audit_health(text), erase_records(uuid, bigint[]), erase_histories(uuid, timestamptz), erase_principal(uuid, uuid) from public;
grant execute on function authenticate_token(bytea), find_issuers(text), expired_agents(int), due_events(int, int), running_leavers(interval), claim_events(uuid[], uuid[], interval), claim_streams(int, interval),
    sweep_signals(interval, int), installation_health(), waiting_health(), running_health(), zero_health(), zero_connectors(), connector_health(), evidence_health(), evidence_due(interval), unarchived_cascades(int), claim_audit(text, interval), audit_health(text), erase_records(uuid, bigint[]), erase_histories(uuid, timestamptz), erase_principal(uuid, uuid) to leaver_app;

-- Triggers. Creating or replacing one locks its table, so only those that are missing are
-- created: a migration drops a trigger that changes.
do $$
declare
    t record;
begin
    for t in select * from (values
        ('evidence_append_only', 'evidence', $t$before update or delete or truncate on evidence for each statement execute function refuse_change()$t$),
        ('acts_append_only', 'acts', $t$before update or delete or truncate on acts for each statement execute function refuse_change()$t$),
        ('admin_acts_append_only', 'admin_acts', $t$before update or delete or truncate on admin_acts for each statement execute function refuse_change()$t$),
        ('changes_append_only', 'changes', $t$before update or delete or truncate on changes for each statement execute function refuse_change()$t$),
        ('credential_states_append_only', 'credential_states', $t$before update or delete or truncate on credential_states for each statement execute function refuse_change()$t$),
        ('mappings_append_only', 'mappings', $t$before update or delete or truncate on mappings for each statement execute function refuse_change()$t$),
        ('entitlement_changes_append_only', 'entitlement_changes', $t$before update or delete or truncate on entitlement_changes for each statement execute function refuse_change()$t$),
        ('evidence_chained', 'evidence', $t$after insert on evidence referencing new table as added for each statement execute function queue_evidence()$t$),
        ('acts_chained', 'acts', $t$after insert on acts referencing new table as added for each statement execute function queue_evidence()$t$),
        ('admin_acts_chained', 'admin_acts', $t$after insert on admin_acts referencing new table as added for each statement execute function queue_evidence()$t$),
        ('credential_states_chained', 'credential_states', $t$after insert on credential_states referencing new table as added for each statement execute function queue_evidence()$t$),
        ('mappings_chained', 'mappings', $t$after insert on mappings referencing new table as added for each statement execute function queue_evidence()$t$),
        ('cascade_histories_chained', 'cascade_histories', $t$after insert on cascade_histories referencing new table as added for each statement execute function queue_evidence()$t$),
        ('erasures_append_only', 'erasures', $t$before update or delete or truncate on erasures for each statement execute function refuse_change()$t$),
        ('erasures_chained', 'erasures', $t$after insert on erasures referencing new table as added for each statement execute function queue_evidence()$t$),
        ('evidence_chain_append_only', 'evidence_chain', $t$before update or delete or truncate on evidence_chain for each statement execute function refuse_change()$t$),
        ('evidence_checkpoints_append_only', 'evidence_checkpoints', $t$before update or delete or truncate on evidence_checkpoints for each statement execute function refuse_change()$t$),
        ('cascade_histories_append_only', 'cascade_histories', $t$before update or delete or truncate on cascade_histories for each statement execute function refuse_change()$t$),
        ('credential_registered', 'credentials', $t$after insert on credentials for each row execute function keep_state()$t$),
        ('credential_changed', 'credentials', $t$after update of state on credentials for each row when (old.state is distinct from new.state or old.reason is distinct from new.reason) execute function keep_state()$t$),
        ('edges_are_marked', 'edges', $t$after insert on edges referencing new table as added for each statement execute function mark_new_edges()$t$),
        ('restriction_marks_edges', 'restrictions', $t$after insert or delete on restrictions for each row execute function mark_edges()$t$)) v (name, relation, definition)
    loop
        if not exists (select 1 from pg_trigger where tgname = t.name and tgrelid = t.relation::regclass) then
            execute format('create trigger %I %s', t.name, t.definition);
        end if;
    end loop;
end $$;
