-- +goose Up

-- A tenant's own choices for its SCIM endpoint. schema_version counts the
-- changes of its schemas, so that processes know when to read them again.
alter table tenants
    add column public_discovery    boolean not null default false,
    add column requests_per_second int check (requests_per_second > 0), -- null: the installation's
    add column schema_version      bigint not null default 0;
grant update (profile, public_discovery, requests_per_second, schema_version) on tenants to leaver_app;

-- Extension schemas that tenants declare (RFC 7643 section 7).
create table tenant_schemas (
    tenant_id     uuid not null references tenants,
    urn           text not null,
    resource_type text not null check (resource_type in ('User', 'Group', 'Agent')),
    definition    jsonb not null,
    primary key (tenant_id, urn)
);
create unique index tenant_schemas_urn on tenant_schemas (tenant_id, lower(urn));

-- OpenID providers and authorisation servers whose JWTs open a tenant's SCIM.
create table issuers (
    tenant_id  uuid not null references tenants,
    id         uuid not null,
    issuer     text not null,
    audience   text not null,
    jwks_url   text not null,
    subjects   text[] not null default '{}', -- empty: any subject of the issuer
    created_at timestamptz not null default now(),
    primary key (tenant_id, id),
    unique (tenant_id, issuer, audience)
);
create index issuers_issuer on issuers (issuer);

-- What stands in `schemas` follows from what the document holds.
alter table resources add column extensions text[] not null default '{}';
update resources set
    extensions = array(select u from jsonb_array_elements_text(document -> 'schemas') u
                        where u not like 'urn:ietf:params:scim:schemas:core:%'),
    document = document - 'schemas';
-- Plain: never restricted, in no group, with no owners; false means to look.
-- Nothing makes it true again.
alter table resources add column plain boolean not null default true;
update resources r set plain = false
 where r.type = 'Agent' or exists (select 1 from restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)
    or exists (select 1 from edges e where e.tenant_id = r.tenant_id and e.target_id = r.id and e.attribute = 'members');
-- Names sort by their bytes, folded as they are, so that sorting uses the index.
alter table resources alter column unique_name type text collate "C";
-- An update that changes no indexed column finds room on its page (HOT).
alter table resources set (fillfactor = 85);

-- A tenant is never deleted, nor a resource but as a tombstone, and whoever
-- writes an event or a restriction has just written its resource: these keys
-- proved nothing, and had every write share-lock the tenant's one row.
alter table resources drop constraint resources_tenant_id_fkey;
alter table lifecycle_events drop constraint lifecycle_events_tenant_id_fkey,
    drop constraint lifecycle_events_tenant_id_principal_id_fkey,
    drop constraint lifecycle_events_sequence_key; -- a sequence repeats nothing
alter table restrictions drop constraint restrictions_tenant_id_principal_id_fkey;

-- Each index costs every write that it covers: those of one kind of row are of
-- that kind only. Users are not looked for by displayName, nor events that are no
-- cascade at all.
drop index resources_external_id, resources_display_name, lifecycle_events_list, lifecycle_events_principal;
create index resources_external_id on resources (tenant_id, type, external_id) where deleted_at is null and external_id is not null;
create index resources_display_name on resources (tenant_id, left(lower(display_name), 200)) where deleted_at is null and type = 'Group';
create index lifecycle_events_list on lifecycle_events (tenant_id, sequence desc) where kind = 'leaver';
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc) where kind = 'leaver';

-- Values that a tenant's schema declares unique. The built-in unique names
-- have an index of their own.
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

-- The audit trail of the directory: who changed what, never the values.
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
create trigger changes_append_only before update or delete or truncate on changes
    for each statement execute function refuse_change();

alter table tenant_schemas enable row level security;
alter table issuers enable row level security;
alter table unique_values enable row level security;
alter table changes enable row level security;
create policy tenant on tenant_schemas using (tenant_id = leaver_tenant());
create policy tenant on issuers using (tenant_id = leaver_tenant());
create policy tenant on unique_values using (tenant_id = leaver_tenant());
create policy tenant on changes using (tenant_id = leaver_tenant());
grant select, insert, update, delete on tenant_schemas to leaver_app;
grant select, insert, delete on issuers, unique_values to leaver_app;
grant select, insert on changes to leaver_app;

-- The groups that a principal is a member of, directly or through other
-- groups. `union` meets each group once for each way, so cycles end.
-- +goose StatementBegin
create function groups_of(tenant uuid, principal uuid) returns table (id uuid, display text, direct boolean)
    language plpgsql stable as $$
begin
    return query
    with recursive up (id, direct) as (
      select g.id, true from edges e
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null
       where e.tenant_id = tenant and e.target_id = principal and e.attribute = 'members'
      union
      select g.id, false from up
        join edges e on e.tenant_id = tenant and e.target_id = up.id and e.attribute = 'members'
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null)
    select u.id, coalesce(g.display_name, ''), u.direct
      from (select up.id, bool_or(up.direct) direct from up group by up.id) u
      join resources g on g.tenant_id = tenant and g.id = u.id
     where u.id <> principal;
end $$;

-- What a read adds to a resource that is not plain: what restricts it, the
-- groups it is in, its owners and parent. A plain one costs no plan for that.
create function more_about(tenant uuid, resource uuid) returns jsonb
    language plpgsql stable as $$
begin
    return jsonb_build_object(
      'restriction', (
        select jsonb_build_object('since', x.since, 'cause', x.cause, 'workflowId', coalesce(e.workflow_id, ''), 'survivors', coalesce(e.survivors, 0))
          from restrictions x left join lifecycle_events e on e.tenant_id = tenant and e.id = x.event_id
         where x.tenant_id = tenant and x.principal_id = resource),
      'groups', (
        select jsonb_agg(jsonb_build_object('attribute', 'groups', 'value', g.id, 'type', case when g.direct then 'direct' else 'indirect' end, 'display', g.display) order by g.id)
          from groups_of(tenant, resource) g),
      'edges', (
        select jsonb_agg(jsonb_build_object('attribute', e.attribute, 'value', t.id, 'type', t.type, 'display', coalesce(t.display_name, '')) order by e.attribute, t.id)
          from edges e join resources t on t.tenant_id = tenant and t.id = e.target_id and t.deleted_at is null
         where e.tenant_id = tenant and e.source_id = resource and e.attribute in ('owners', 'parent')));
end $$;

-- Whoever becomes a member is plain no more. In order, so that two groups that
-- gain the same members do not wait for each other.
create function members_are_not_plain() returns trigger language plpgsql as $$
begin
    perform 1 from resources r join added a on r.tenant_id = a.tenant_id and r.id = a.target_id and a.attribute = 'members'
      where r.plain order by r.id for no key update of r;
    update resources r set plain = false from added a
     where r.tenant_id = a.tenant_id and r.id = a.target_id and a.attribute = 'members' and r.plain;
    return null;
end $$;

-- Everything below a group: what `groups eq` selects.
create function members_within(tenant uuid, top uuid) returns setof uuid
    language plpgsql stable as $$
begin
    return query
    with recursive down (id) as (
      select e.target_id from edges e
        join resources g on g.tenant_id = tenant and g.id = top and g.deleted_at is null
       where e.tenant_id = tenant and e.source_id = top and e.attribute = 'members'
      union
      select e.target_id from down
        join resources g on g.tenant_id = tenant and g.id = down.id and g.type = 'Group' and g.deleted_at is null
        join edges e on e.tenant_id = tenant and e.source_id = down.id and e.attribute = 'members')
    select down.id from down where down.id <> top;
end $$;

drop function authenticate_token(bytea);
create function authenticate_token(token_hash bytea)
    returns table (id uuid, class text, expires_at timestamptz, tenant jsonb)
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    return query
        select t.id, t.class, t.expires_at, to_jsonb(n)
          from public.tokens t left join public.tenants n on n.id = t.tenant_id
         where t.hash = token_hash
           and t.revoked_at is null
           and (t.expires_at is null or t.expires_at > now());
    update public.tokens t set last_used_at = now()
     where t.hash = token_hash
       and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute');
end $$;

-- Whose issuer a JWT names is asked before its tenant is known.
create function find_issuers(issuer_url text)
    returns table (id uuid, audience text, jwks_url text, subjects text[], tenant jsonb)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select i.id, i.audience, i.jwks_url, i.subjects, to_jsonb(n)
      from public.issuers i join public.tenants n on n.id = i.tenant_id
     where i.issuer = issuer_url
$$;
-- +goose StatementEnd
create trigger edges_plain after insert on edges referencing new table as added
    for each statement execute function members_are_not_plain();
revoke execute on function authenticate_token(bytea), find_issuers(text) from public;
grant execute on function authenticate_token(bytea), find_issuers(text) to leaver_app;

-- +goose Down
drop trigger edges_plain on edges;
drop function find_issuers(text), members_within(uuid, uuid), members_are_not_plain(), more_about(uuid, uuid), groups_of(uuid, uuid), authenticate_token(bytea);
drop table changes, unique_values, issuers, tenant_schemas;
drop index resources_external_id, resources_display_name, lifecycle_events_list, lifecycle_events_principal;
create index resources_external_id on resources (tenant_id, type, external_id) where deleted_at is null;
create index resources_display_name on resources (tenant_id, type, left(lower(display_name), 200)) where deleted_at is null;
create index lifecycle_events_list on lifecycle_events (tenant_id, kind, sequence desc);
create index lifecycle_events_principal on lifecycle_events (tenant_id, principal_id, sequence desc);
alter table lifecycle_events add unique (sequence), add foreign key (tenant_id) references tenants,
    add foreign key (tenant_id, principal_id) references resources (tenant_id, id);
alter table resources add foreign key (tenant_id) references tenants;
alter table restrictions add foreign key (tenant_id, principal_id) references resources (tenant_id, id);
update resources set document = document || jsonb_build_object('schemas',
    to_jsonb(array_prepend('urn:ietf:params:scim:schemas:core:2.0:' || type, extensions)));
alter table resources drop column extensions, drop column plain, alter column unique_name type text collate "default", reset (fillfactor);
alter table tenants drop column schema_version, drop column requests_per_second, drop column public_discovery;
-- +goose StatementBegin
create function authenticate_token(token_hash bytea)
    returns table (id uuid, class text, tenant_id uuid, tenant_name text, profile text)
    language plpgsql security definer set search_path = pg_catalog, public as $$
begin
    return query
        select t.id, t.class, t.tenant_id, coalesce(n.name, ''), coalesce(n.profile, '')
          from public.tokens t left join public.tenants n on n.id = t.tenant_id
         where t.hash = token_hash
           and t.revoked_at is null
           and (t.expires_at is null or t.expires_at > now());
    update public.tokens t set last_used_at = now()
     where t.hash = token_hash
       and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute');
end $$;
-- +goose StatementEnd
revoke execute on function authenticate_token(bytea) from public;
grant execute on function authenticate_token(bytea) to leaver_app;
