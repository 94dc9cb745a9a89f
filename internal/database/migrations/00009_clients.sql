-- +goose Up
-- The OAuth clients of a tenant, which authenticate with a key of their own (private_key_jwt).
create table clients (
    tenant_id    uuid not null references tenants,
    id           uuid not null,
    description  text not null default '',
    scopes       text[] not null check (scopes <> '{}' and scopes <@ array['scim', 'authzen', 'ssf.read', 'ssf.manage']),
    jwks_url     text not null default '',
    jwks         jsonb, -- public keys, if there is no jwks_url
    issuer       text not null default '', -- of the tokens that a gateway sees
    created_at   timestamptz not null default now(),
    created_by   text not null default '',
    last_used_at timestamptz,
    primary key (tenant_id, id),
    check ((jwks is null) = (jwks_url <> ''))
);
alter table clients enable row level security;
create policy tenant on clients using (tenant_id = leaver_tenant());
grant select, insert, delete on clients to leaver_app;
grant update (last_used_at) on clients to leaver_app;

-- The tokens that the token endpoint issued to clients. A client that is removed loses them.
create table access_tokens (
    hash       bytea primary key check (length(hash) = 32),
    tenant_id  uuid not null,
    client_id  uuid not null,
    scopes     text[] not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    foreign key (tenant_id, client_id) references clients (tenant_id, id) on delete cascade
);
create index access_tokens_client on access_tokens (tenant_id, client_id, created_at);
alter table access_tokens enable row level security;
create policy tenant on access_tokens using (tenant_id = leaver_tenant());
grant select, insert, delete on access_tokens to leaver_app;

alter table tenants drop constraint tenants_profile_check;
alter table tenants add constraint tenants_profile_check check (profile in ('default', 'entra', 'okta', 'strict', 'interop'));
-- The SCIM profile of IPSIE's account lifecycle: only the IdP changes the directory, and only by OAuth.
alter table tenants add column ipsie boolean not null default false;
grant update (ipsie) on tenants to leaver_app;

-- The result of authenticate_token has new columns.
drop function if exists authenticate_token(bytea);
