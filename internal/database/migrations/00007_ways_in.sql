-- +goose Up

-- What an issuer's tokens are let in for: SCIM, global token revocation, or as a
-- transmitter's security events. One does not follow from another.
alter table issuers add column uses text[] not null default '{scim}' check (uses <> '{}' and uses <@ array['scim', 'revocation', 'events']);
drop function find_issuers(text);
-- +goose StatementBegin
create function find_issuers(issuer_url text)
    returns table (id uuid, audience text, jwks_url text, subjects text[], uses text[], tenant jsonb)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select i.id, i.audience, i.jwks_url, i.subjects, i.uses, to_jsonb(n)
      from public.issuers i join public.tenants n on n.id = i.tenant_id
     where i.issuer = issuer_url
$$;
-- +goose StatementEnd
revoke execute on function find_issuers(text) from public;
grant execute on function find_issuers(text) to leaver_app;

-- The ids of tokens that were acted upon, so that none is twice.
create table received_tokens (
    tenant_id   uuid not null,
    issuer_id   uuid not null,
    jti         text not null,
    received_at timestamptz not null default now(),
    primary key (tenant_id, issuer_id, jti)
);
create index received_tokens_at on received_tokens (tenant_id, received_at);
alter table received_tokens enable row level security;
create policy tenant on received_tokens using (tenant_id = leaver_tenant());
grant select, insert, delete on received_tokens to leaver_app;

-- +goose Down
drop table received_tokens;
drop function find_issuers(text);
-- +goose StatementBegin
create function find_issuers(issuer_url text)
    returns table (id uuid, audience text, jwks_url text, subjects text[], tenant jsonb)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select i.id, i.audience, i.jwks_url, i.subjects, to_jsonb(n)
      from public.issuers i join public.tenants n on n.id = i.tenant_id
     where i.issuer = issuer_url
$$;
-- +goose StatementEnd
revoke execute on function find_issuers(text) from public;
grant execute on function find_issuers(text) to leaver_app;
delete from issuers where not 'scim' = any (uses);
alter table issuers drop column uses;
