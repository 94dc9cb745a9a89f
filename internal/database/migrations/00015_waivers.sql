-- +goose Up
-- Whether a waiver of this tenant needs an approver.
alter table tenants add column waiver_approval boolean not null default false;
grant update (waiver_approval) on tenants to leaver_app;

-- For connector_health.
create index credentials_backlog on credentials (connector) where state in ('ending', 'failed');

-- Requests for waivers, and what an approver decided.
create table waivers (
    tenant_id    uuid not null references tenants,
    id           uuid not null,
    event_id     uuid not null,
    item_id      uuid not null,
    until        timestamptz not null,
    reason       text not null,
    requested_by text not null,
    requested_at timestamptz not null default now(),
    decision     text check (decision in ('approved', 'declined')),
    decided_by   text,
    decided_at   timestamptz,
    primary key (tenant_id, id),
    foreign key (tenant_id, item_id) references credentials (tenant_id, id)
);
create index waivers_open on waivers (tenant_id, requested_at) where decision is null;
alter table waivers enable row level security;
create policy tenant on waivers using (tenant_id = leaver_tenant());
grant select, insert, update (decision, decided_by, decided_at) on waivers to leaver_app;
