-- +goose Up
-- Records that the chain does not have yet. Triggers on the append-only tables write them, with the record as it was
-- committed. The installation's records have the tenant 0.
create table evidence_pending (
    tenant_id uuid not null,
    id        bigint generated always as identity,
    source    text not null, -- the table
    record    jsonb not null,
    primary key (tenant_id, id)
);

-- The hash chain of a tenant, or of the installation. hash is SHA-256 over the previous hash and the entry in canonical
-- JSON (RFC 8785), of which record is a member.
create table evidence_chain (
    tenant_id uuid not null,
    sequence  bigint not null check (sequence > 0),
    source    text not null,
    record    text not null, -- canonical JSON
    hash      bytea not null check (length(hash) = 32),
    chained_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, sequence)
);

-- The end of each chain, and what of it is signed: sealed, so that only a process with the key set can write it. The
-- other columns are for queries.
create table evidence_heads (
    tenant_id       uuid primary key,
    sequence        bigint not null default 0,
    signed_sequence bigint not null default 0,
    signed_at       timestamptz not null default now(),
    sealed          text not null default ''
);

-- The signed checkpoints of the chains. statement is what is signed: canonical JSON.
create table evidence_checkpoints (
    tenant_id uuid not null,
    sequence  bigint not null,
    statement text not null,
    signature bytea not null,
    primary key (tenant_id, sequence)
);

-- The Ed25519 keys that sign checkpoints, of the installation. They are sealed, so that only a process with the key set
-- can add one; the public keys are computed.
create table evidence_keys (
    id         uuid primary key,
    private    text not null,
    created_at timestamptz not null default now()
);

-- Closed workflow histories of cascades, in the order in which they were archived. history is compressed JSON, and null
-- if Temporal had deleted the run before it was archived. sha256 is of the JSON.
create table cascade_histories (
    tenant_id   uuid not null,
    id          bigint generated always as identity,
    event_id    uuid not null,
    cascade     jsonb not null, -- as it was when it closed
    workflow_id text not null,
    run_id      text not null,
    events      int not null,
    sha256      text not null,
    history     bytea,
    archived_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, id)
);
create unique index cascade_histories_run on cascade_histories (tenant_id, event_id, run_id);

alter table lifecycle_events add column archived_at timestamptz;
alter table lifecycle_events add column archive_due_at timestamptz; -- the next try, if the last one failed
create index lifecycle_events_unarchived on lifecycle_events (coalesce(archive_due_at, closed_at))
    where closed_at is not null and (archived_at is null or archived_at < closed_at) and (kind = 'leaver' or ends);

-- +goose StatementBegin
do $$
declare
    name text;
begin
    foreach name in array array['evidence_pending', 'evidence_chain', 'evidence_heads', 'evidence_checkpoints'] loop
        execute format('alter table %I enable row level security', name);
        execute format('create policy tenant on %I using (tenant_id = coalesce(leaver_tenant(), %L))', name, '00000000-0000-0000-0000-000000000000');
    end loop;
end $$;
-- +goose StatementEnd
alter table cascade_histories enable row level security;
create policy tenant on cascade_histories using (tenant_id = leaver_tenant());
grant select, delete on evidence_pending to leaver_app;
grant select, insert on evidence_chain, evidence_checkpoints, evidence_keys, cascade_histories to leaver_app;
grant select, insert, update on evidence_heads to leaver_app;

-- What was recorded before.
insert into evidence_pending (tenant_id, source, record)
select tenant_id, source, record from (
    select tenant_id, 'credential_states' source, to_jsonb(s) - 'tenant_id' record, at, id from credential_states s
    union all select tenant_id, 'evidence', to_jsonb(e) - 'tenant_id', at, id from evidence e
    union all select tenant_id, 'acts', to_jsonb(a) - 'tenant_id', at, id from acts a
    union all select coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'), 'admin_acts', to_jsonb(a) - 'tenant_id', at, id from admin_acts a
    union all select tenant_id, 'mappings', to_jsonb(m) - 'tenant_id', created_at, version from mappings m) r
 order by at, source, id;
