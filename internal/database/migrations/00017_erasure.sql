-- +goose Up
-- The members of an entry's record that people or downstreams have worded are in texts. The entry's hash is over record
-- and digest, SHA-256 of salt and texts, so that erased texts leave the chain verifiable. Entries from before this
-- migration have their texts in record, and cannot be erased.
alter table evidence_chain add column texts text;
alter table evidence_chain add column salt bytea check (length(salt) = 16);
alter table evidence_chain add column digest bytea check (length(digest) = 32);

-- What entries are about, for erasures. Both are members of record; of an administrative act, item_id is its object.
alter table evidence_chain add column event_id uuid;
alter table evidence_chain add column item_id uuid;
create index evidence_chain_event on evidence_chain (tenant_id, event_id) where texts is not null;
create index evidence_chain_item on evidence_chain (tenant_id, item_id) where texts is not null;
create index evidence_chain_texts on evidence_chain (tenant_id, sequence) where texts is not null;
create index acts_event on acts (tenant_id, event_id);
create index signals_principal on signals (tenant_id, principal_id);

-- What was erased from the chains, and why. records are the erased entries: ranges of numbers, with both ends. seal is
-- all of it, sealed: only a process with the key set can add one.
create table erasures (
    tenant_id    uuid not null references tenants,
    id           uuid not null,
    principal_id uuid, -- null: by the tenant's retention
    actor        text not null,
    reason       text not null,
    records      jsonb not null,
    seal         text not null,
    at           timestamptz not null default clock_timestamp(),
    primary key (tenant_id, id)
);
alter table erasures enable row level security;
create policy tenant on erasures using (tenant_id = leaver_tenant());
grant select, insert on erasures to leaver_app;

-- How long a tenant keeps the texts of its evidence, in days; null is for ever. A legal hold, which is its reason, keeps
-- all of them.
alter table tenants add column evidence_days int check (evidence_days >= 30);
alter table tenants add column legal_hold text not null default '';
grant update (evidence_days, legal_hold) on tenants to leaver_app;
