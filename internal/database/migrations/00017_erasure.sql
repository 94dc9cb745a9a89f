-- +goose Up
-- An entry's hash is over digest, SHA-256 of salt and record, so that an erased record leaves the chain verifiable.
-- Entries from before this migration have no digest, and cannot be erased.
alter table evidence_chain alter column record drop not null;
alter table evidence_chain add column salt bytea check (length(salt) = 16);
alter table evidence_chain add column digest bytea check (length(digest) = 32);

-- What was erased from the chains, and why. records are the erased entries: ranges of numbers, with both ends.
create table erasures (
    tenant_id    uuid not null references tenants,
    id           uuid not null,
    principal_id uuid, -- null: by the tenant's retention
    actor        text not null,
    reason       text not null,
    records      jsonb not null,
    at           timestamptz not null default clock_timestamp(),
    primary key (tenant_id, id)
);
alter table erasures enable row level security;
create policy tenant on erasures using (tenant_id = leaver_tenant());
grant select, insert on erasures to leaver_app;

-- How long a tenant keeps the texts of its evidence, in days; null is for ever. A legal hold, which is its reason, keeps
-- all of it.
alter table tenants add column evidence_days int check (evidence_days >= 30);
alter table tenants add column legal_hold text not null default '';
grant update (evidence_days, legal_hold) on tenants to leaver_app;
