-- +goose Up

-- What else is known of an item: the entitlement that it was granted under, who
-- relies on it beside its registered holders, and until when a survivor is
-- tolerated.
alter table inventory
    add column entitlement  text not null default '',
    add column relied_on_by text[] not null default '{}',
    add column waived_until timestamptz,
    -- The reference that the first rotation found; empty is the one it has.
    add column account      text not null default '',
    drop constraint inventory_state_check,
    add constraint inventory_state_check
        check (state in ('live', 'ending', 'revoked', 'verified', 'expiring', 'survivor', 'waived', 'released')),
    drop constraint inventory_kind_check,
    add constraint inventory_kind_check
        check (kind in ('refresh_token', 'access_token', 'service_account', 'api_key', 'session', 'grant', 'scheduled_run'));
drop index inventory_live;
create unique index inventory_live on inventory (tenant_id, connector, kind, reference, principal_id)
    where state in ('live', 'ending', 'survivor', 'waived');

-- The history of an item's states, written by the row itself, so that no way of
-- changing a state can forget it.
create table inventory_states (
    tenant_id uuid not null,
    item_id   uuid not null,
    id        bigint generated always as identity,
    state     text not null,
    reason    text not null,
    event_id  uuid,
    at        timestamptz not null default clock_timestamp(),
    primary key (tenant_id, item_id, id)
);
-- +goose StatementBegin
create function keep_state() returns trigger language plpgsql as $$
begin
    insert into inventory_states (tenant_id, item_id, state, reason, event_id)
    values (new.tenant_id, new.id, new.state, new.reason, new.event_id);
    return null;
end $$;
-- +goose StatementEnd
create trigger inventory_registered after insert on inventory for each row execute function keep_state();
create trigger inventory_changed after update of state on inventory for each row
    when (old.state is distinct from new.state or old.reason is distinct from new.reason) execute function keep_state();
insert into inventory_states (tenant_id, item_id, state, reason, event_id, at)
    select tenant_id, id, state, reason, event_id, updated_at from inventory;
create trigger inventory_states_append_only before update or delete or truncate on inventory_states
    for each statement execute function refuse_change();

-- What connectors found and nobody registered. principal_id is what the
-- downstream's own label says; item_id is set once an operator has bound it.
create table unbound (
    tenant_id     uuid not null,
    id            uuid not null,
    connector     text not null,
    kind          text not null,
    reference     text not null,
    principal_id  uuid,
    scopes        text[] not null default '{}',
    expires_at    timestamptz,
    event_id      uuid,
    item_id       uuid,
    discovered_at timestamptz not null default now(),
    seen_at       timestamptz not null default now(),
    primary key (tenant_id, id),
    unique (tenant_id, connector, kind, reference),
    foreign key (tenant_id, item_id) references inventory (tenant_id, id)
);
create index unbound_event on unbound (tenant_id, event_id) where item_id is null and event_id is not null;

-- A rotation of one account: as far as it has come, so that whoever resumes it
-- makes no second secret. An account has one open rotation at most.
create table rotations (
    tenant_id     uuid not null,
    id            uuid not null,
    connector     text not null,
    kind          text not null,
    reference     text not null,
    new_reference text not null default '',
    new_secret    bytea not null,
    step          text not null default 'begun' check (step in ('begun', 'made', 'proven', 'published', 'retired', 'done', 'abandoned')),
    leased_by     text,
    leased_until  timestamptz,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    primary key (tenant_id, id)
);
create unique index rotations_open on rotations (tenant_id, connector, kind, reference) where step not in ('done', 'abandoned');
-- The items whose holders were given the new secret.
create table rotation_holders (
    tenant_id   uuid not null,
    rotation_id uuid not null,
    item_id     uuid not null,
    primary key (tenant_id, rotation_id, item_id),
    foreign key (tenant_id, rotation_id) references rotations (tenant_id, id)
);

-- A tenant's policy for mass deactivation, and for agents that nobody owns.
alter table tenants
    add column brake_leavers int check (brake_leavers > 0),
    add column brake_share   double precision check (brake_share > 0 and brake_share <= 1),
    add column brake_window  int not null default 3600, -- seconds
    add column orphans       text not null default 'suspend' check (orphans in ('suspend', 'manager'));
grant update (brake_leavers, brake_share, brake_window, orphans) on tenants to leaver_app;

-- A brake that is held: cascades of the tenant block access and wait with what
-- cannot be undone, until an approver releases it.
create table brakes (
    tenant_id   uuid not null,
    id          uuid not null,
    leavers     int not null,
    engaged_at  timestamptz not null default now(),
    released_at timestamptz,
    released_by text,
    reason      text,
    primary key (tenant_id, id)
);
create unique index brakes_held on brakes (tenant_id) where released_at is null;
alter table lifecycle_events add column brake_id uuid, add column waived int not null default 0;
create index lifecycle_events_held on lifecycle_events (tenant_id, brake_id) where brake_id is not null and closed_at is null;

alter table tokens drop constraint tokens_class_check, drop constraint tokens_check,
    add constraint tokens_class_check check (class in ('scim', 'platform', 'operator', 'approver')),
    add constraint tokens_check check ((class in ('operator', 'approver')) = (tenant_id is null));

-- Connectors that ops have paused, and had: of the installation, of no tenant.
create table connector_pauses (
    id         bigint generated always as identity primary key,
    connector  text not null,
    paused_at  timestamptz not null default now(),
    paused_by  text not null,
    reason     text not null,
    resumed_at timestamptz,
    resumed_by text,
    resumed_for text -- the reason
);
create unique index connector_pauses_open on connector_pauses (connector) where resumed_at is null;

-- How the reconciler and the drill ended: of the installation, of no tenant.
create table assurances (
    id     bigint generated always as identity primary key,
    kind   text not null check (kind in ('reconcile', 'drill')),
    at     timestamptz not null default now(),
    passed boolean not null,
    result jsonb not null
);
create index assurances_last on assurances (kind, passed, at desc);
grant select, insert on assurances to leaver_app;

alter table inventory_states enable row level security;
alter table unbound enable row level security;
alter table rotations enable row level security;
alter table rotation_holders enable row level security;
alter table brakes enable row level security;
create policy tenant on inventory_states using (tenant_id = leaver_tenant());
create policy tenant on unbound using (tenant_id = leaver_tenant());
create policy tenant on rotations using (tenant_id = leaver_tenant());
create policy tenant on rotation_holders using (tenant_id = leaver_tenant());
create policy tenant on brakes using (tenant_id = leaver_tenant());
grant select, insert on inventory_states, rotation_holders to leaver_app;
grant select, insert, update on unbound, rotations, brakes, connector_pauses to leaver_app;

-- Groups may own through groups. A recursive query is read lazily, and `offset 0`
-- keeps the look at each owner a loop: the first active one ends it, however
-- many members a group has.
-- +goose StatementBegin
create function active_owner(tenant uuid, agent uuid, leaving uuid) returns uuid
    language plpgsql stable as $$
begin
    return (
      with recursive owners (id) as (
        select e.target_id from edges e where e.tenant_id = tenant and e.source_id = agent and e.attribute = 'owners'
        union
        select e.target_id from owners o
          join resources g on g.tenant_id = tenant and g.id = o.id and g.type = 'Group' and g.deleted_at is null
          join edges e on e.tenant_id = tenant and e.source_id = g.id and e.attribute = 'members')
      select o.id from owners o cross join lateral (
        select 1 from resources p
         where p.tenant_id = tenant and p.id = o.id and p.type = 'User' and p.deleted_at is null and p.id is distinct from leaving
           and not exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = p.id)
        offset 0) active
       limit 1);
end $$;

create or replace function has_active_owner(tenant uuid, agent uuid, leaving uuid) returns boolean
    language plpgsql stable as $$
begin
    return active_owner(tenant, agent, leaving) is not null;
end $$;

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
         where not has_active_owner(tenant, e.source_id, leaving)) a
      union
      select e.source_id from ending n
        join edges e on e.tenant_id = tenant and e.attribute = 'parent' and e.target_id = n.id
       where not has_active_owner(tenant, e.source_id, leaving))
    select ending.id from ending;
end $$;

-- Whoever else holds the account of an item and may go on with it.
create function other_holders(item inventory) returns setof uuid
    language plpgsql stable as $$
begin
    return query
    select o.id from inventory o
     where o.tenant_id = item.tenant_id and o.connector = item.connector and o.kind = item.kind and o.reference = item.reference
       and o.state in ('live', 'waived') and o.id <> item.id and o.principal_id <> item.principal_id
       and not exists (select 1 from restrictions x where x.tenant_id = o.tenant_id and x.principal_id in (o.principal_id, o.agent_id));
end $$;

-- Whether others rely on the item's account: it is rotated then, and disabled otherwise.
create function rotates(item inventory) returns boolean
    language plpgsql stable as $$
begin
    return item.kind in ('service_account', 'api_key') and (
        item.shared or item.relied_on_by <> '{}' or exists (
          select 1 from inventory o
           where o.tenant_id = item.tenant_id and o.connector = item.connector and o.kind = item.kind and o.reference = item.reference
             and o.state in ('live', 'ending', 'survivor', 'waived') and (o.shared or o.relied_on_by <> '{}'))
        or exists (select 1 from other_holders(item)));
end $$;

-- How many parents are above an agent once it has that one; -1 is a circle.
create function parents_above(tenant uuid, agent uuid, parent uuid) returns int
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

-- What an operator must know of all tenants: counts, and nothing of anybody's. A
-- crowd of leavers waits in the outbox by design: an event counts as unstarted where
-- starting it has failed, or nobody has tried for long.
create function installation_health()
    returns table (unstarted bigint, survivors bigint, waived bigint, unbound bigint, brakes bigint)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select (select count(*) from public.lifecycle_events where started_at is null
              and (attempts > 2 and created_at < now() - interval '1 minute' or created_at < now() - interval '30 minutes')),
           (select count(*) from public.inventory where state = 'survivor'),
           (select count(*) from public.inventory where state = 'waived'),
           (select count(*) from public.unbound where item_id is null),
           (select count(*) from public.brakes where released_at is null)
$$;

-- Leavers first, and among them in turns: of tenants, of who sent them, and of the
-- minutes they came in. Whoever lets ten thousand go at once holds up no other
-- tenant's one, nor an operator's, nor one of ten minutes later. Of one sender only
-- so many are begun with at a time; the others wait here, and not in Temporal's
-- queues, before everybody's. A cascade that takes long counts no more.
drop function claim_events(int, interval);
create function claim_events(batch int, lease interval, at_once int)
    returns setof lifecycle_events
    language sql security definer set search_path = pg_catalog, public as $$
    with due as materialized (
      select w.tenant_id, w.id, w.sequence, w.kind, w.actor,
             row_number() over (partition by w.kind = 'leaver', w.tenant_id, w.actor, date_trunc('minute', w.created_at) order by w.sequence) turn
        from public.lifecycle_events w where w.started_at is null and w.due_at <= now()),
    running as (
      select r.tenant_id, r.actor, count(*) n from public.lifecycle_events r
       where r.kind = 'leaver' and r.started_at is not null and r.closed_at is null and r.started_at > now() - interval '30 seconds'
       group by 1, 2),
    admitted as materialized (
      select d.*, row_number() over (partition by d.kind = 'leaver', d.tenant_id, d.actor order by d.turn, d.sequence) + coalesce(r.n, 0) place
        from due d left join running r on d.kind = 'leaver' and r.tenant_id = d.tenant_id and r.actor = d.actor)
    update public.lifecycle_events e
       set due_at = now() + lease * least(power(2, e.attempts), 8), attempts = e.attempts + 1
      from (select d.tenant_id, d.id from public.lifecycle_events d
              join admitted a on a.tenant_id = d.tenant_id and a.id = d.id and (a.kind <> 'leaver' or a.place <= at_once)
             where d.started_at is null and d.due_at <= now()
             order by (d.kind = 'leaver') desc, a.turn, d.sequence
             limit batch for update of d skip locked) claimed
     where e.tenant_id = claimed.tenant_id and e.id = claimed.id
    returning e.*
$$;
-- +goose StatementEnd
revoke execute on function installation_health(), claim_events(int, interval, int) from public;
grant execute on function installation_health(), claim_events(int, interval, int) to leaver_app;
create index lifecycle_events_running on lifecycle_events (started_at) where kind = 'leaver' and started_at is not null and closed_at is null;
-- What is alive although it should not be is rare, and is counted often.
create index inventory_survivors on inventory (tenant_id, state) where state in ('survivor', 'waived');

-- +goose Down
drop index lifecycle_events_running;
drop function claim_events(int, interval, int);
-- +goose StatementBegin
create function claim_events(batch int, lease interval)
    returns setof lifecycle_events
    language sql security definer set search_path = pg_catalog, public as $$
    update public.lifecycle_events e
       set due_at = now() + lease * least(power(2, e.attempts), 8), attempts = e.attempts + 1
      from (select d.tenant_id, d.id from public.lifecycle_events d
             where d.started_at is null and d.due_at <= now()
             order by (d.kind = 'leaver') desc, d.sequence
             limit batch for update skip locked) due
     where e.tenant_id = due.tenant_id and e.id = due.id
    returning e.*
$$;

create or replace function agents_ending_with(tenant uuid, leaving uuid) returns setof uuid
    language plpgsql stable as $$
begin
    return query
    with recursive ending (id) as (
      select a.id from (
        select r.id from resources r where r.tenant_id = tenant and r.id = leaving and r.type = 'Agent'
        union
        select o.source_id from edges o
         where o.tenant_id = tenant and o.attribute = 'owners'
           and (o.target_id = leaving or o.target_id in (
                select m.source_id from edges m
                 where m.tenant_id = tenant and m.attribute = 'members' and m.target_id = leaving))
           and not has_active_owner(tenant, o.source_id, leaving)) a
      union
      select p.source_id from ending e
        join edges p on p.tenant_id = tenant and p.attribute = 'parent' and p.target_id = e.id
       where not has_active_owner(tenant, p.source_id, leaving))
    select id from ending;
end $$;

create or replace function has_active_owner(tenant uuid, agent uuid, leaving uuid) returns boolean
    language plpgsql stable as $$
begin
    return exists (
      select 1
        from edges o
        join resources r on r.tenant_id = o.tenant_id and r.id = o.target_id and r.deleted_at is null
        left join edges m on r.type = 'Group' and m.tenant_id = r.tenant_id and m.source_id = r.id and m.attribute = 'members'
        join resources p on p.tenant_id = o.tenant_id and p.id = coalesce(m.target_id, r.id)
                        and p.type = 'User' and p.deleted_at is null
       where o.tenant_id = tenant and o.source_id = agent and o.attribute = 'owners'
         and p.id is distinct from leaving
         and not exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = p.id));
end $$;
-- +goose StatementEnd
revoke execute on function claim_events(int, interval) from public;
grant execute on function claim_events(int, interval) to leaver_app;
drop function rotates(inventory), other_holders(inventory), parents_above(uuid, uuid, uuid), active_owner(uuid, uuid, uuid);
drop index inventory_survivors;
drop function installation_health();
drop table assurances, connector_pauses, brakes, rotation_holders, rotations, unbound, inventory_states;
alter table lifecycle_events drop column brake_id, drop column waived;
delete from tokens where class = 'approver';
alter table tokens drop constraint tokens_class_check, drop constraint tokens_check,
    add constraint tokens_class_check check (class in ('scim', 'platform', 'operator')),
    add constraint tokens_check check ((class = 'operator') = (tenant_id is null));
alter table tenants drop column orphans, drop column brake_window, drop column brake_share, drop column brake_leavers;
drop trigger inventory_registered on inventory;
drop trigger inventory_changed on inventory;
drop function keep_state();
update inventory set state = 'survivor' where state = 'waived';
update inventory set kind = 'session' where kind = 'grant'; -- the kind that is nearest
drop index inventory_live;
create unique index inventory_live on inventory (tenant_id, connector, kind, reference, principal_id)
    where state in ('live', 'ending', 'survivor');
alter table inventory drop constraint inventory_state_check,
    add constraint inventory_state_check check (state in ('live', 'ending', 'revoked', 'verified', 'expiring', 'survivor', 'released')),
    drop constraint inventory_kind_check,
    add constraint inventory_kind_check
        check (kind in ('refresh_token', 'access_token', 'service_account', 'api_key', 'session', 'scheduled_run')),
    drop column account, drop column waived_until, drop column relied_on_by, drop column entitlement;
