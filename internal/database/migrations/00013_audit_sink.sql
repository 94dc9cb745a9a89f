-- +goose Up
-- What of each chain the audit sink has confirmed. A sink with another name begins again.
create table audit_positions (
    tenant_id     uuid not null,
    sink          text not null,
    sequence      bigint not null default 0,
    claimed_until timestamptz,
    failed_at     timestamptz,
    failure       text not null default '',
    primary key (tenant_id, sink)
);
alter table audit_positions enable row level security;
create policy tenant on audit_positions using (tenant_id = coalesce(leaver_tenant(), '00000000-0000-0000-0000-000000000000'));
grant select, update on audit_positions to leaver_app;
