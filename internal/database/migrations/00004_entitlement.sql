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
    perform 1 from computations c where c.tenant_id = tenant and c.principal_id = any (principals)
      order by c.principal_id for update;
    if not found then return; end if;
    with lost as (
      delete from entitlements e
       where e.tenant_id = tenant and e.principal_id = any (principals)
         and exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = e.principal_id)
      returning e.principal_id, e.name)
    insert into entitlement_changes (tenant_id, principal_id, name, gained, version, event_id)
    select tenant, l.principal_id, l.name, false, c.version, event
      from lost l join computations c on c.tenant_id = tenant and c.principal_id = l.principal_id;
end $$;
-- +goose StatementEnd

-- +goose Down
drop function withdraw_entitlements(uuid, uuid[], uuid);
drop index lifecycle_events_list, lifecycle_events_principal;
alter table lifecycle_events drop column ends;
create index lifecycle_events_list on lifecycle_events (tenant_id, sequence desc) where kind = 'leaver';
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc) where kind = 'leaver';
drop table entitlement_changes, entitlements, computed_groups, computations, mappings;
