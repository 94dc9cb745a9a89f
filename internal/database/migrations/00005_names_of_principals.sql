-- +goose Up
-- The names of Users and Agents, as tokens and platforms carry them: each is the comparison
-- key of a SCIM attribute's value, and original the value. issuer is the authorization server
-- that the value belongs to; empty is the directory itself. since and until are when the
-- principal got and lost the name; until is null while it has it. position orders the values of
-- one attribute, a primary one first. `leaver migrate` fills the table for resources that an
-- older version stored.
create table principal_names (
    tenant_id    uuid not null,
    principal_id uuid not null,
    kind         text not null check (kind in ('userName', 'agentUserName', 'externalId', 'emails', 'subject', 'oAuthClientIdentifiers')),
    issuer       text not null default '',
    value        text not null,
    original     text not null,
    position     int not null default 0,
    since        timestamptz not null default now(),
    until        timestamptz,
    primary key (tenant_id, principal_id, kind, issuer, value),
    foreign key (tenant_id, principal_id) references resources (tenant_id, id)
);
create index principal_names_value on principal_names (tenant_id, value);
alter table principal_names enable row level security;
create policy tenant on principal_names using (tenant_id = leaver_tenant());
grant select, insert, update, delete on principal_names to leaver_app;

drop function if exists principal_named(uuid, text, text);

-- The issuer of the tokens that a platform sees: a `sub` or client_id is looked up as this
-- issuer's. functions.sql creates authenticate_token again, with the issuer.
alter table tokens add column issuer text not null default '';
drop function if exists authenticate_token(bytea);

-- unknown_agents decides a question whose context.agent is missing or unknown. The sub claims
-- of subject_issuers are names of the directory; empty is every issuer.
alter table tenants add column unknown_agents text not null default 'deny' check (unknown_agents in ('deny', 'allow'));
alter table tenants add column subject_issuers text[] not null default '{}';
grant update (unknown_agents, subject_issuers) on tenants to leaver_app;

-- The entitlements that a version of the rules grants or denies; null of a version that was
-- applied before this column existed.
alter table mappings add column grants text[];
