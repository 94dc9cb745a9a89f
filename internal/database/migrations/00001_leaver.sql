-- +goose Up

-- One order over lifecycle events and registrations (I3): both draw from it
-- while they hold the principal's row, so that a cascade can tell what was
-- issued before it from what was issued after a return.
create sequence lifecycle_sequence;

-- The tenant of the transaction, set by the application with `set local`.
-- Unset is null: a query that forgets its tenant sees no tenant's rows.
-- +goose StatementBegin
create function leaver_tenant() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('leaver.tenant', true), '')::uuid $$;
-- +goose StatementEnd

create table tenants (
    id         uuid primary key,
    name       text not null unique check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    profile    text not null default 'default' check (profile in ('default', 'entra', 'okta', 'strict')),
    created_at timestamptz not null default now()
);

-- Tokens of class operator belong to no tenant.
create table tokens (
    id           uuid primary key,
    tenant_id    uuid references tenants,
    class        text not null check (class in ('scim', 'platform', 'operator')),
    hash         bytea not null unique check (length(hash) = 32),
    description  text not null default '',
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    check ((class = 'operator') = (tenant_id is null))
);

-- Users, Groups and Agents. The document holds what clients wrote; what is
-- indexed stands beside it. A deleted resource stays as a tombstone: ids are
-- never reused, and its cascade still needs its edges.
create table resources (
    tenant_id    uuid not null references tenants,
    id           uuid not null,
    type         text not null check (type in ('User', 'Group', 'Agent')),
    unique_name  text,
    display_name text,
    external_id  text,
    active       boolean,
    version      bigint not null default 1,
    document     jsonb not null,
    created_at   timestamptz not null,
    modified_at  timestamptz not null,
    deleted_at   timestamptz,
    primary key (tenant_id, id)
);
create unique index resources_unique_name on resources (tenant_id, type, unique_name) where deleted_at is null;
create index resources_external_id on resources (tenant_id, type, external_id) where deleted_at is null;
create index resources_display_name on resources (tenant_id, type, left(lower(display_name), 200)) where deleted_at is null;
create index resources_list on resources (tenant_id, type, id) where deleted_at is null;

-- Group.members, Agent.owners and Agent.parent: the edges that a cascade walks.
create table edges (
    tenant_id uuid not null,
    source_id uuid not null,
    attribute text not null check (attribute in ('members', 'owners', 'parent')),
    target_id uuid not null,
    primary key (tenant_id, source_id, attribute, target_id),
    foreign key (tenant_id, source_id) references resources (tenant_id, id),
    foreign key (tenant_id, target_id) references resources (tenant_id, id)
);
create index edges_target on edges (tenant_id, target_id, attribute);

-- What decision points consult. Only an explicit return lifts a restriction.
create table restrictions (
    tenant_id    uuid not null,
    principal_id uuid not null,
    cause        text not null check (cause in ('deactivated', 'deleted', 'orphaned')),
    event_id     uuid, -- null where the principal was inactive from the start
    since        timestamptz not null default now(),
    primary key (tenant_id, principal_id),
    foreign key (tenant_id, principal_id) references resources (tenant_id, id)
);

-- Lifecycle events: the outbox, and for ever the guard against a second run.
create table lifecycle_events (
    tenant_id      uuid not null references tenants,
    id             uuid not null,
    sequence       bigint not null unique default nextval('lifecycle_sequence'),
    kind           text not null check (kind in ('joiner', 'mover', 'leaver', 'team-sync')),
    principal_id   uuid not null,
    principal_type text not null,
    trigger        text not null,
    actor          text not null,
    changed        text[] not null default '{}',
    workflow_id    text not null unique,
    created_at     timestamptz not null default now(),
    due_at         timestamptz not null,
    attempts       int not null default 0,
    last_error     text,
    started_at     timestamptz,
    run_id         text,
    closed_at      timestamptz,
    outcome        text check (outcome in ('completed', 'failed')),
    verified       int not null default 0,
    revoked        int not null default 0,
    expiring       int not null default 0,
    survivors      int not null default 0,
    primary key (tenant_id, id),
    foreign key (tenant_id, principal_id) references resources (tenant_id, id)
);
create index lifecycle_events_outbox on lifecycle_events (due_at) where started_at is null;
create index lifecycle_events_list on lifecycle_events (tenant_id, kind, sequence desc);
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc);

-- Credentials and scheduled runs, bound to the SCIM id of the principal they
-- were issued for and of the agent that holds them.
create table inventory (
    tenant_id      uuid not null,
    id             uuid not null,
    principal_id   uuid not null,
    agent_id       uuid,
    kind           text not null check (kind in ('refresh_token', 'access_token', 'service_account', 'api_key', 'session', 'scheduled_run')),
    connector      text not null,
    reference      text not null,
    secret         bytea,
    pending_secret bytea,
    shared         boolean not null default false,
    scopes         text[] not null default '{}',
    issued_at      timestamptz not null,
    expires_at     timestamptz,
    sequence       bigint not null default nextval('lifecycle_sequence'),
    state          text not null default 'live'
                   check (state in ('live', 'ending', 'revoked', 'verified', 'expiring', 'survivor', 'released')),
    reason         text not null default '',
    event_id       uuid,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    primary key (tenant_id, id),
    foreign key (tenant_id, principal_id) references resources (tenant_id, id),
    foreign key (tenant_id, agent_id) references resources (tenant_id, id)
);
create index inventory_principal on inventory (tenant_id, principal_id, id);
create index inventory_agent on inventory (tenant_id, agent_id, id) where agent_id is not null;
create index inventory_event on inventory (tenant_id, event_id) where event_id is not null;
-- One row for what is alive downstream: a second registration is a conflict.
create unique index inventory_live on inventory (tenant_id, connector, kind, reference, principal_id)
    where state in ('live', 'ending', 'survivor');

-- Whether an agent has an owner who is here and not restricted: a user, or a
-- member of a group. The one who is leaving does not count, whatever is stored.
-- +goose StatementBegin
-- (plpgsql keeps its plans for the session; sql functions are planned each time.)
create function has_active_owner(tenant uuid, agent uuid, leaving uuid) returns boolean
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

-- The agents that end with a principal: an agent itself; a user's agents whom
-- nobody else owns; and, down the parents, sub-agents without an owner of their
-- own. `union` meets each agent once, so cycles end.
-- +goose StatementBegin
create function agents_ending_with(tenant uuid, leaving uuid) returns setof uuid
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
-- +goose StatementEnd

-- Evidence is append-only: a row for each step of each attempt.
create table evidence (
    tenant_id   uuid not null,
    id          bigint generated always as identity,
    item_id     uuid not null,
    event_id    uuid not null,
    workflow_id text not null,
    run_id      text not null,
    activity_id text not null,
    attempt     int not null,
    step        text not null,
    outcome     text not null,
    detail      text not null default '',
    at          timestamptz not null default clock_timestamp(),
    primary key (tenant_id, id),
    foreign key (tenant_id, item_id) references inventory (tenant_id, id)
);
create index evidence_item on evidence (tenant_id, item_id, id);
create index evidence_event on evidence (tenant_id, event_id, id);

-- What operators did, with who and why (retry, rerun).
create table acts (
    tenant_id uuid not null references tenants,
    id        bigint generated always as identity,
    event_id  uuid not null,
    actor     text not null,
    verb      text not null,
    reason    text not null,
    at        timestamptz not null default now(),
    primary key (tenant_id, id)
);

-- +goose StatementBegin
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end $$;
-- +goose StatementEnd
create trigger evidence_append_only before update or delete or truncate on evidence
    for each statement execute function refuse_change();
create trigger acts_append_only before update or delete or truncate on acts
    for each statement execute function refuse_change();

-- Row-level security: the second wall (I8).
alter table tokens enable row level security;
alter table resources enable row level security;
alter table edges enable row level security;
alter table restrictions enable row level security;
alter table lifecycle_events enable row level security;
alter table inventory enable row level security;
alter table evidence enable row level security;
alter table acts enable row level security;
-- Without a tenant only the tokens of no tenant are visible: the operators'.
create policy tenant on tokens using (tenant_id is not distinct from leaver_tenant());
create policy tenant on resources using (tenant_id = leaver_tenant());
create policy tenant on edges using (tenant_id = leaver_tenant());
create policy tenant on restrictions using (tenant_id = leaver_tenant());
create policy tenant on lifecycle_events using (tenant_id = leaver_tenant());
create policy tenant on inventory using (tenant_id = leaver_tenant());
create policy tenant on evidence using (tenant_id = leaver_tenant());
create policy tenant on acts using (tenant_id = leaver_tenant());

-- The application's role; `leaver migrate` makes login roles members of it.
-- Roles belong to the cluster, so another database's migration may have won.
-- +goose StatementBegin
do $$
begin
    create role leaver_app nologin nosuperuser nobypassrls;
exception when duplicate_object or unique_violation then
    null;
end $$;
-- +goose StatementEnd
grant usage on sequence lifecycle_sequence to leaver_app;
grant select, insert on tenants to leaver_app;
grant select, insert, update on tokens, resources, lifecycle_events, inventory to leaver_app;
grant select, insert, update, delete on restrictions to leaver_app;
grant select, insert, delete on edges to leaver_app;
grant select, insert on evidence, acts to leaver_app;

-- Two questions are asked before a tenant is known. Each is a function with
-- its owner's rights that returns only what its caller may learn.

-- +goose StatementBegin
create function authenticate_token(token_hash bytea)
    returns table (id uuid, class text, tenant_id uuid, tenant_name text, profile text)
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    return query
        select t.id, t.class, t.tenant_id, coalesce(n.name, ''), coalesce(n.profile, '')
          from public.tokens t left join public.tenants n on n.id = t.tenant_id
         where t.hash = token_hash
           and t.revoked_at is null
           and (t.expires_at is null or t.expires_at > now());
    update public.tokens t set last_used_at = now()
     where t.hash = token_hash
       and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute');
end $$;

-- The relay's claim: leavers first, then the order of commit. A claim is a
-- lease; a relay that dies loses nothing, since the row falls due again.
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
-- +goose StatementEnd
revoke execute on function authenticate_token(bytea), claim_events(int, interval) from public;
grant execute on function authenticate_token(bytea), claim_events(int, interval) to leaver_app;

-- +goose Down
drop function claim_events(int, interval), authenticate_token(bytea);
drop table acts, evidence, inventory, lifecycle_events, restrictions, edges, resources, tokens, tenants;
drop function refuse_change(), agents_ending_with(uuid, uuid), has_active_owner(uuid, uuid, uuid), leaver_tenant();
drop sequence lifecycle_sequence;
