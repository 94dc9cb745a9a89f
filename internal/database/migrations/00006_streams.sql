-- +goose Up
-- How a stream names its subjects: empty is leaver's issuer with the SCIM id; iss_sub is the
-- subject of subject_issuer, and email an address. verified_at is the last verification that
-- the receiver asked for.
alter table streams add column subject_format text not null default '' check (subject_format in ('', 'iss_sub', 'email'));
alter table streams add column subject_issuer text not null default '';
alter table streams add column verified_at timestamptz;

-- The principals that a receiver removed from its stream, which carries all others.
create table stream_removals (
    tenant_id    uuid not null,
    stream_id    uuid not null,
    principal_id uuid not null,
    primary key (tenant_id, stream_id, principal_id),
    foreign key (tenant_id, stream_id) references streams (tenant_id, id) on delete cascade,
    foreign key (tenant_id, principal_id) references resources (tenant_id, id)
);
alter table stream_removals enable row level security;
create policy tenant on stream_removals using (tenant_id = leaver_tenant());
grant select, insert, delete on stream_removals to leaver_app;
