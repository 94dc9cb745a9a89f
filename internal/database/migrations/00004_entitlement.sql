-- +goose Up

-- A tenant's mapping rules, each version for ever; the newest is in force.
create table mappings (
    tenant_id  uuid not null references tenants,
    version    int not null check (version > 0),
    document   text not null, -- YAML
    actor      text not null,
    reason     text not null,
    created_at timestamptz not null default now(),
    primary key (tenant_id, version)
);
create trigger mappings_append_only before update or delete or truncate on mappings
    for each statement execute function refuse_change();

-- Under which version of the rules each principal was computed last. The row is
-- the lock under which that happens, so that the last computation has seen all.
create table computations (
    tenant_id    uuid not null,
    principal_id uuid not null,
    version      int not null default 0,
    computed_at  timestamptz not null default now(),
    primary key (tenant_id, principal_id)
);
-- The groups that the computation met. Who entered or left one since is found by
-- comparing.
create table computed_groups (
    tenant_id    uuid not null,
    principal_id uuid not null,
    group_id     uuid not null,
    direct       boolean not null,
    primary key (tenant_id, principal_id, group_id)
);
create index computed_groups_group on computed_groups (tenant_id, group_id, principal_id);

-- What may have changed what a principal is entitled to and has not been computed yet:
-- written by the rows that change, and only ever inserted, so that no write waits for a
-- computation. A row whose principal is the tenant is about everybody. Whoever decides
-- meanwhile derives entitlements by itself.
create table doubts (
    tenant_id    uuid not null,
    principal_id uuid not null,
    id           bigint generated always as identity,
    cause        uuid not null, -- the principal, the group, or the tenant, whose rules changed
    at           timestamptz not null default now(),
    primary key (tenant_id, principal_id, id)
);
create index doubts_cause on doubts (tenant_id, cause, id);

-- What a principal is entitled to, as team:…, role:… or scope:…, and what gave it.
create table entitlements (
    tenant_id    uuid not null,
    principal_id uuid not null,
    name         text not null,
    sources      jsonb not null, -- [{"rule", "group", "groupName", "when"}]
    since        timestamptz not null default now(),
    primary key (tenant_id, principal_id, name)
);
-- Who gained and lost what, and by which event: the audit trail.
create table entitlement_changes (
    tenant_id    uuid not null,
    id           bigint generated always as identity,
    principal_id uuid not null,
    name         text not null,
    gained       boolean not null,
    version      int not null,
    event_id     uuid,
    at           timestamptz not null default now(),
    primary key (tenant_id, id)
);
create index entitlement_changes_principal on entitlement_changes (tenant_id, principal_id, id);
create index entitlement_changes_event on entitlement_changes (tenant_id, event_id, principal_id) where event_id is not null;
create trigger entitlement_changes_append_only before update or delete or truncate on entitlement_changes
    for each statement execute function refuse_change();

-- A mover that has lost an entitlement ends what was granted under it: a cascade.
alter table lifecycle_events add column ends boolean not null default false;
drop index lifecycle_events_list, lifecycle_events_principal;
create index lifecycle_events_list on lifecycle_events (tenant_id, sequence desc) where kind = 'leaver' or ends;
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc) where kind = 'leaver' or ends;

alter table mappings enable row level security;
alter table doubts enable row level security;
create policy tenant on doubts using (tenant_id = leaver_tenant());
grant select, insert, delete on doubts to leaver_app;
alter table computations enable row level security;
alter table computed_groups enable row level security;
alter table entitlements enable row level security;
alter table entitlement_changes enable row level security;
create policy tenant on mappings using (tenant_id = leaver_tenant());
create policy tenant on computations using (tenant_id = leaver_tenant());
create policy tenant on computed_groups using (tenant_id = leaver_tenant());
create policy tenant on entitlements using (tenant_id = leaver_tenant());
create policy tenant on entitlement_changes using (tenant_id = leaver_tenant());
grant select, insert on mappings, entitlement_changes to leaver_app;
grant select, insert, update on computations to leaver_app;
grant select, insert, update, delete on computed_groups, entitlements to leaver_app;

-- Whoever is restricted is entitled to nothing. It waits for a computation that is
-- under way and may not have seen the restriction.
-- +goose StatementBegin
create function withdraw_entitlements(tenant uuid, principals uuid[], event uuid) returns void
    language plpgsql as $$
begin
    -- A first computation may be under way, too.
    insert into computations (tenant_id, principal_id) select tenant, p from (select p from unnest(principals) p order by p) o
      on conflict do nothing;
    perform 1 from computations c where c.tenant_id = tenant and c.principal_id = any (principals)
      order by c.principal_id for update;
    with lost as (
      delete from entitlements e
       where e.tenant_id = tenant and e.principal_id = any (principals)
         and exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = e.principal_id)
      returning e.principal_id, e.name)
    insert into entitlement_changes (tenant_id, principal_id, name, gained, version, event_id)
    select tenant, l.principal_id, l.name, false, c.version, event
      from lost l join computations c on c.tenant_id = tenant and c.principal_id = l.principal_id;
end $$;

-- The doubts that rows leave, where the tenant derives anything.
create function doubt_event() returns trigger language plpgsql as $$
begin
    insert into doubts (tenant_id, principal_id, cause)
    select new.tenant_id, case new.kind when 'team-sync' then new.tenant_id else new.principal_id end, new.principal_id
     where exists (select 1 from mappings m where m.tenant_id = new.tenant_id);
    return null;
end $$;
create function doubt_members() returns trigger language plpgsql as $$
begin
    insert into doubts (tenant_id, principal_id, cause)
    select c.tenant_id, case r.type when 'Group' then c.tenant_id else c.target_id end, c.source_id
      from changed c join resources r on r.tenant_id = c.tenant_id and r.id = c.target_id
     where c.attribute = 'members' and exists (select 1 from mappings m where m.tenant_id = c.tenant_id);
    return null;
end $$;
create function doubt_everybody() returns trigger language plpgsql as $$
begin
    insert into doubts (tenant_id, principal_id, cause) values (new.tenant_id, new.tenant_id, new.tenant_id);
    return null;
end $$;
-- +goose StatementEnd
-- Whoever changes or returns, and a group whose name changes or that goes, is an event in
-- the same commit; who is restricted has no need, and members are told apart below.
create trigger event_is_doubted after insert on lifecycle_events for each row
    when ((new.kind in ('joiner', 'mover') and new.trigger <> 'entitlement-lost')
          or (new.kind = 'team-sync' and new.principal_type = 'Group' and new.changed <> '{members}')) execute function doubt_event();
create trigger members_are_doubted after insert on edges referencing new table as changed
    for each statement execute function doubt_members();
create trigger former_members_are_doubted after delete on edges referencing old table as changed
    for each statement execute function doubt_members();
create trigger everybody_is_doubted after insert on mappings for each row execute function doubt_everybody();

-- +goose Down
drop trigger event_is_doubted on lifecycle_events;
drop trigger members_are_doubted on edges;
drop trigger former_members_are_doubted on edges;
-- What is of no principal: earlier versions know of none such.
delete from lifecycle_events where principal_type = 'Tenant';
drop function withdraw_entitlements(uuid, uuid[], uuid);
drop index lifecycle_events_list, lifecycle_events_principal;
alter table lifecycle_events drop column ends;
create index lifecycle_events_list on lifecycle_events (tenant_id, sequence desc) where kind = 'leaver';
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc) where kind = 'leaver';
drop table entitlement_changes, entitlements, doubts, computed_groups, computations, mappings;
drop function doubt_event(), doubt_members(), doubt_everybody();
