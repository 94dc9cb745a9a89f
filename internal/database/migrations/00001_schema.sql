-- +goose Up

-- Functions and triggers are in functions.sql, which `leaver migrate` applies after these
-- files. The role leaver_app stands for the installation's own.

-- One sequence for lifecycle events and registrations (I3). A cascade compares numbers to
-- separate credentials issued before it from those issued after a return.
create sequence lifecycle_sequence;

-- The tenant of the transaction. Unset is null: a query that does not name its tenant
-- sees no tenant's rows.
-- +goose StatementBegin
create function leaver_tenant() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('leaver.tenant', true), '')::uuid $$;
-- +goose StatementEnd

-- schema_version counts the changes of a tenant's schemas, so that processes know when to
-- read them again.
create table tenants (
    id                  uuid primary key,
    name                text not null unique check (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    profile             text not null default 'default' check (profile in ('default', 'entra', 'okta', 'strict')),
    created_at          timestamptz not null default now(),
    public_discovery    boolean not null default false,
    requests_per_second int check (requests_per_second > 0), -- null: the installation's
    schema_version      bigint not null default 0,
    brake_leavers       int check (brake_leavers > 0),
    brake_share         double precision check (brake_share > 0 and brake_share <= 1),
    brake_window        int not null default 3600, -- seconds
    orphans             text not null default 'suspend' check (orphans in ('suspend', 'manager'))
);

-- Tokens of class operator and approver belong to no tenant.
create table tokens (
    id           uuid primary key,
    tenant_id    uuid references tenants,
    class        text not null check (class in ('scim', 'platform', 'operator', 'approver', 'receiver')),
    hash         bytea not null unique check (length(hash) = 32),
    description  text not null default '',
    created_at   timestamptz not null default now(),
    created_by   text not null default '',
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    check ((class in ('operator', 'approver')) = (tenant_id is null))
);

-- OpenID providers and authorization servers whose JWTs are accepted, each for some uses:
-- SCIM, global token revocation, or security events. One does not follow from another.
create table issuers (
    tenant_id  uuid not null references tenants,
    id         uuid not null,
    issuer     text not null,
    audience   text not null,
    jwks_url   text not null,
    subjects   text[] not null default '{}', -- empty: any subject of the issuer
    uses       text[] not null default '{scim}' check (uses <> '{}' and uses <@ array['scim', 'revocation', 'events']),
    created_at timestamptz not null default now(),
    primary key (tenant_id, id),
    unique (tenant_id, issuer, audience)
);
create index issuers_issuer on issuers (issuer);

-- The ids of tokens that were acted upon, by issuer, whatever becomes of the issuer's
-- registration.
create table received_tokens (
    tenant_id   uuid not null,
    issuer      text not null,
    jti         text not null,
    received_at timestamptz not null default now(),
    primary key (tenant_id, issuer, jti)
);
create index received_tokens_at on received_tokens (tenant_id, received_at);

-- Extension schemas that tenants declare (RFC 7643 section 7).
create table tenant_schemas (
    tenant_id     uuid not null references tenants,
    urn           text not null,
    resource_type text not null check (resource_type in ('User', 'Group', 'Agent')),
    definition    jsonb not null,
    primary key (tenant_id, urn)
);
create unique index tenant_schemas_urn on tenant_schemas (tenant_id, lower(urn));

-- Users, Groups and Agents. The document holds what clients wrote; what is indexed is in
-- columns. A deleted resource stays as a tombstone: ids are never reused, and its cascade
-- still needs its edges. No foreign key leads to tenants, which are never deleted: each
-- write would share-lock the tenant's one row.
create table resources (
    tenant_id    uuid not null,
    id           uuid not null,
    type         text not null check (type in ('User', 'Group', 'Agent')),
    unique_name  text collate "C", -- names sort by their bytes, so that sorting uses the index
    display_name text,
    external_id  text,
    active       boolean,
    valid_until  timestamptz, -- of an agent
    version      bigint not null default 1,
    document     jsonb not null,
    extensions   text[] not null default '{}', -- the URNs that the document holds
    created_at   timestamptz not null,
    modified_at  timestamptz not null,
    deleted_at   timestamptz,
    primary key (tenant_id, id)
) with (fillfactor = 85); -- an update of no indexed column finds room on its page (HOT)
-- Each index costs every write that it covers: those of one kind of row are of that kind only.
create unique index resources_unique_name on resources (tenant_id, type, unique_name) where deleted_at is null;
create index resources_external_id on resources (tenant_id, type, external_id) where deleted_at is null and external_id is not null;
create index resources_display_name on resources (tenant_id, left(lower(display_name), 200)) where deleted_at is null and type = 'Group';
create index resources_list on resources (tenant_id, type, id) where deleted_at is null;
create index resources_valid_until on resources (valid_until) where deleted_at is null and valid_until is not null;

-- Values that a tenant's schema declares unique. The built-in unique names have an index
-- of their own.
create table unique_values (
    tenant_id   uuid not null,
    type        text not null,
    attribute   text not null,
    value       text not null,
    resource_id uuid not null,
    primary key (tenant_id, type, attribute, value),
    foreign key (tenant_id, resource_id) references resources (tenant_id, id)
);
create index unique_values_resource on unique_values (tenant_id, resource_id);

-- Group.members, Agent.owners and Agent.parent: the edges that a cascade walks. restricted
-- marks members and owners that are restricted, so that the search for an agent's active
-- owner skips them; that search also reads the restrictions.
create table edges (
    tenant_id  uuid not null,
    source_id  uuid not null,
    attribute  text not null check (attribute in ('members', 'owners', 'parent')),
    target_id  uuid not null,
    restricted boolean not null default false,
    primary key (tenant_id, source_id, attribute, target_id),
    foreign key (tenant_id, source_id) references resources (tenant_id, id),
    foreign key (tenant_id, target_id) references resources (tenant_id, id)
);
create index edges_target on edges (tenant_id, target_id, attribute);
create index edges_unrestricted on edges (tenant_id, source_id, attribute) where not restricted;

-- The principals about which every decision is deny. Only an explicit return lifts a
-- restriction.
create table restrictions (
    tenant_id    uuid not null,
    principal_id uuid not null,
    cause        text not null check (cause in ('deactivated', 'deleted', 'orphaned')),
    event_id     uuid, -- null where the principal was inactive from the start
    since        timestamptz not null default now(),
    primary key (tenant_id, principal_id)
);

-- The audit trail of the directory: which attributes were changed by which actor, never the values.
create table changes (
    tenant_id     uuid not null,
    id            bigint generated always as identity,
    resource_id   uuid not null,
    resource_type text not null,
    version       bigint not null,
    trigger       text not null,
    actor         text not null,
    changed       text[] not null,
    at            timestamptz not null default now(),
    primary key (tenant_id, id)
);
create index changes_resource on changes (tenant_id, resource_id, id);

-- Lifecycle events: the outbox, and for ever the guard against a second run. A mover whose
-- event ends something is a cascade. async: its client did not wait (RFC 9967), and is
-- notified when the workflow closes.
create table lifecycle_events (
    tenant_id      uuid not null,
    id             uuid not null,
    sequence       bigint not null default nextval('lifecycle_sequence'),
    kind           text not null check (kind in ('joiner', 'mover', 'leaver', 'team-sync')),
    principal_id   uuid not null,
    principal_type text not null,
    trigger        text not null,
    actor          text not null,
    changed        text[] not null default '{}',
    workflow_id    text not null unique,
    ends           boolean not null default false,
    async          boolean not null default false,
    brake_id       uuid,
    created_at     timestamptz not null default now(),
    due_at         timestamptz not null,
    attempts       int not null default 0,
    last_error     text,
    started_at     timestamptz,
    run_id         text,
    closed_at      timestamptz,
    outcome        text check (outcome in ('completed', 'failed', 'cancelled')),
    verified       int not null default 0,
    revoked        int not null default 0,
    expiring       int not null default 0,
    survivors      int not null default 0,
    waived         int not null default 0,
    primary key (tenant_id, id)
);
create index lifecycle_events_outbox on lifecycle_events (due_at) where started_at is null;
create index lifecycle_events_list on lifecycle_events (tenant_id, sequence desc) where kind = 'leaver' or ends;
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc) where kind = 'leaver' or ends;
create index lifecycle_events_returns on lifecycle_events (tenant_id, principal_id, sequence) where kind = 'joiner' and 'active' = any (changed);
create index lifecycle_events_held on lifecycle_events (tenant_id, brake_id) where brake_id is not null and closed_at is null;
create index lifecycle_events_running on lifecycle_events (started_at) where kind = 'leaver' and started_at is not null and closed_at is null;

-- Credentials and scheduled runs, bound to the SCIM id of the principal they were issued
-- for and of the agent that holds them.
create table inventory (
    tenant_id        uuid not null,
    id               uuid not null,
    principal_id     uuid not null,
    agent_id         uuid,
    kind             text not null
                     check (kind in ('refresh_token', 'access_token', 'service_account', 'api_key', 'session', 'grant', 'scheduled_run')),
    connector        text not null,
    reference        text not null,
    account          text not null default '', -- the reference that the first rotation found; empty is the one it has
    secret           bytea,
    shared           boolean not null default false,
    relied_on_by     text[] not null default '{}',
    entitlement      text not null default '', -- what it was granted under
    scopes           text[] not null default '{}',
    issued_at        timestamptz not null,
    expires_at       timestamptz,
    expiry_probed_at timestamptz, -- when a probe saw dead what was left to expire
    sequence         bigint not null default nextval('lifecycle_sequence'),
    state            text not null default 'live'
                     check (state in ('live', 'ending', 'revoked', 'verified', 'expiring', 'survivor', 'waived', 'released')),
    reason           text not null default '',
    waived_until     timestamptz,
    event_id         uuid,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    primary key (tenant_id, id),
    foreign key (tenant_id, principal_id) references resources (tenant_id, id),
    foreign key (tenant_id, agent_id) references resources (tenant_id, id)
);
create index inventory_principal on inventory (tenant_id, principal_id, id);
create index inventory_agent on inventory (tenant_id, agent_id, id) where agent_id is not null;
create index inventory_event on inventory (tenant_id, event_id) where event_id is not null;
-- One row for what is alive downstream: a second registration is a conflict.
create unique index inventory_live on inventory (tenant_id, connector, kind, reference, principal_id)
    where state in ('live', 'ending', 'survivor', 'waived');
-- What is alive although it should not be is rare, and is counted often.
create index inventory_survivors on inventory (tenant_id, state) where state in ('survivor', 'waived');

-- The history of an item's states. actor registered or released it; it is empty of what
-- cascades do, which name their event.
create table inventory_states (
    tenant_id uuid not null,
    item_id   uuid not null,
    id        bigint generated always as identity,
    state     text not null,
    reason    text not null,
    event_id  uuid,
    actor     text not null default '',
    at        timestamptz not null default clock_timestamp(),
    primary key (tenant_id, item_id, id)
);

-- What connectors found and was not registered. principal_id is what the downstream's own
-- label says; item_id is set once an operator has bound it.
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

-- Leases on downstream accounts. An attempt changes an account only while it holds the
-- lease, so a suspended worker that resumes cannot change it. A later attempt at the same
-- item of the same event takes the lease over at once. Any other attempt waits until the
-- lease expires.
create table account_leases (
    tenant_id  uuid not null,
    connector  text not null,
    kind       text not null,
    reference  text not null,
    event_id   uuid not null,
    item_id    uuid not null,
    holder     uuid not null, -- of one attempt alone
    run_id     text not null,
    activity   text not null,
    attempt    int not null,
    started_at timestamptz not null, -- the attempt, by Temporal's clock
    expires_at timestamptz not null,
    primary key (tenant_id, connector, kind, reference)
);
create index account_leases_holder on account_leases (tenant_id, holder);

-- A rotation of one account, step by step, so that a process that resumes it makes no
-- second secret. An account has one open rotation at most. The sequence orders the
-- publications of an account; the secret is erased once nothing needs it.
create table rotations (
    tenant_id     uuid not null,
    id            uuid not null,
    connector     text not null,
    kind          text not null,
    reference     text not null,
    new_reference text not null default '',
    new_secret    bytea,
    step          text not null default 'begun' check (step in ('begun', 'made', 'proven', 'published', 'retired', 'done', 'abandoned')),
    sequence      bigint not null default nextval('lifecycle_sequence'),
    proven        uuid[], -- the registrations that had proven the account; null is all
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

-- Evidence: a row for each step of each attempt.
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

-- What operators did to cascades, with actor and reason (retry, rerun, waive, cancel).
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

-- What operators, approvers and platforms did otherwise: of the installation where no
-- tenant is named.
create table admin_acts (
    id        bigint generated always as identity primary key,
    tenant_id uuid references tenants,
    actor     text not null,
    verb      text not null,
    object    text not null,
    before    jsonb,
    after     jsonb,
    at        timestamptz not null default clock_timestamp()
);
create index admin_acts_tenant on admin_acts (tenant_id, id);

-- A brake that is held: cascades of the tenant block access and wait with what cannot be
-- undone, until an approver releases it.
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

-- Connectors that ops have paused, and had: of the installation, of no tenant.
create table connector_pauses (
    id          bigint generated always as identity primary key,
    connector   text not null,
    paused_at   timestamptz not null default now(),
    paused_by   text not null,
    reason      text not null,
    resumed_at  timestamptz,
    resumed_by  text,
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

-- A text sealed by each key that a process of the installation seals with: a process that
-- cannot open one has another key set.
create table keyset_canaries (
    key_id     bigint primary key,
    sealed     text not null,
    created_at timestamptz not null default now()
);

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

-- Under which version of the rules each principal was evaluated last. The row is the lock
-- under which that happens, so that the last evaluation has seen all.
create table computations (
    tenant_id    uuid not null,
    principal_id uuid not null,
    version      int not null default 0,
    computed_at  timestamptz not null default now(),
    primary key (tenant_id, principal_id)
);
-- The groups that the evaluation met. Principals that entered or left one since are found
-- by comparing.
create table computed_groups (
    tenant_id    uuid not null,
    principal_id uuid not null,
    group_id     uuid not null,
    direct       boolean not null,
    primary key (tenant_id, principal_id, group_id)
);
create index computed_groups_group on computed_groups (tenant_id, group_id, principal_id);

-- Changes that may have changed what a principal is entitled to, and are not evaluated
-- yet. Rows are only inserted, so that no write waits for an evaluation, which deletes
-- those that it found behind its lock. A row whose principal is the tenant is about every
-- principal. Decisions evaluate entitlements themselves meanwhile.
create table invalidations (
    tenant_id    uuid not null,
    principal_id uuid not null,
    id           bigint generated always as identity,
    cause        uuid not null, -- the principal, the group, or the tenant, whose rules changed
    at           timestamptz not null default now(),
    primary key (tenant_id, principal_id, id)
);
create index invalidations_cause on invalidations (tenant_id, cause, id);

-- What a principal is entitled to, as team:…, role:… or scope:…, and what gave it.
create table entitlements (
    tenant_id    uuid not null,
    principal_id uuid not null,
    name         text not null,
    sources      jsonb not null, -- [{"rule", "group", "groupName", "when"}]
    since        timestamptz not null default now(),
    primary key (tenant_id, principal_id, name)
);
-- Gains and losses of entitlements, and the event of each: the audit trail.
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

-- The keys that sign security event tokens: of the installation, of no tenant. The private
-- part is sealed; the public one is served as long as a token that it signed may be under way.
create table signing_keys (
    id         uuid primary key,
    private    bytea not null,
    public     jsonb not null, -- JWK
    created_at timestamptz not null default now()
);

-- Streams of security events (OpenID Shared Signals Framework 1.0).
create table streams (
    tenant_id            uuid not null references tenants,
    id                   uuid not null,
    issuer               text not null,
    audience             text[] not null,
    method               text not null check (method in ('push', 'poll')),
    endpoint             text not null default '', -- of push
    authorization_header bytea,                    -- sealed
    requested            text[] not null default '{}',
    events               text[] not null, -- what is delivered
    description          text not null default '',
    status               text not null default 'enabled' check (status in ('enabled', 'paused', 'disabled')),
    reason               text not null default '',
    created_by           text not null,
    created_at           timestamptz not null default now(),
    last_error           text not null default '',
    last_error_at        timestamptz,
    claimed_until        timestamptz, -- by the process that pushes its events
    primary key (tenant_id, id)
);

-- What each stream has yet to deliver, in its order, and for a while what it has. once
-- identifies what happened, so that it is emitted once. No foreign key leads to streams: a
-- stream that is deleted must hold up no write that emits something. What it leaves behind
-- is swept.
create table signals (
    tenant_id      uuid not null,
    stream_id      uuid not null,
    id             bigint generated always as identity,
    jti            uuid not null default gen_random_uuid(),
    principal_id   uuid, -- null: about the stream itself
    principal_type text,
    type           text not null,
    event          jsonb not null,
    txn            text not null default '',
    once           text not null,
    created_at     timestamptz not null default now(),
    settled_at     timestamptz,
    outcome        text check (outcome in ('delivered', 'refused', 'expired')),
    detail         text not null default '',
    primary key (tenant_id, stream_id, id)
);
create unique index signals_once on signals (tenant_id, stream_id, once);
create unique index signals_jti on signals (tenant_id, stream_id, jti);
create index signals_waiting on signals (tenant_id, stream_id, id) where settled_at is null;
create index signals_settled on signals (settled_at) where settled_at is not null;
create index signals_age on signals (created_at) where settled_at is null;
create index signals_failed on signals (tenant_id, stream_id, outcome) where outcome in ('refused', 'expired');

-- Row-level security: the second layer of tenant isolation (I8).
-- +goose StatementBegin
do $$
declare
    name text;
begin
    foreach name in array array['issuers', 'received_tokens', 'tenant_schemas', 'resources', 'unique_values', 'edges', 'restrictions', 'changes',
        'lifecycle_events', 'inventory', 'inventory_states', 'unbound', 'account_leases', 'rotations', 'rotation_holders', 'evidence', 'acts', 'brakes',
        'mappings', 'computations', 'computed_groups', 'invalidations', 'entitlements', 'entitlement_changes', 'streams', 'signals'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy tenant on %I using (tenant_id = leaver_tenant())', name);
    end loop;
end $$;
-- +goose StatementEnd
-- Without a tenant only the rows of no tenant are visible: the operators' tokens, and acts
-- on the installation.
alter table tokens enable row level security;
create policy tenant on tokens using (tenant_id is not distinct from leaver_tenant());
alter table admin_acts enable row level security;
create policy tenant on admin_acts for select using (tenant_id is not distinct from leaver_tenant());
create policy added on admin_acts for insert with check (true);

-- The application's role; `leaver migrate` makes login roles members of it. Roles belong
-- to the cluster, so another migration may have created it.
-- +goose StatementBegin
do $$
begin
    create role leaver_app nologin nosuperuser nobypassrls;
exception when duplicate_object or unique_violation then
    null;
end $$;
-- +goose StatementEnd
grant usage on sequence lifecycle_sequence to leaver_app;
grant select, insert on tenants, changes, inventory_states, rotation_holders, evidence, acts, admin_acts, assurances, keyset_canaries, mappings,
    entitlement_changes to leaver_app;
grant update (profile, public_discovery, requests_per_second, schema_version, brake_leavers, brake_share, brake_window, orphans) on tenants to leaver_app;
grant select, insert, update on tokens, resources, lifecycle_events, inventory, unbound, rotations, brakes, connector_pauses, computations to leaver_app;
grant select, insert, delete on issuers, received_tokens, unique_values, edges, invalidations, signing_keys to leaver_app;
grant update (restricted) on edges to leaver_app;
grant select, insert, update, delete on tenant_schemas, restrictions, account_leases, computed_groups, entitlements, streams, signals to leaver_app;
