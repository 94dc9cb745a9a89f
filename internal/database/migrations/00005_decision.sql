-- +goose Up

-- Until when an agent may act, where its SCIM resource says so.
create table validities (
    tenant_id    uuid not null,
    principal_id uuid not null,
    valid_until  timestamptz not null,
    primary key (tenant_id, principal_id)
);
create index validities_until on validities (valid_until);
alter table validities enable row level security;
create policy tenant on validities using (tenant_id = leaver_tenant());
grant select, insert, update, delete on validities to leaver_app;

-- +goose StatementBegin
create function keep_validity() returns trigger language plpgsql as $$
declare
    until timestamptz := new.document -> 'urn:leaver:params:scim:schemas:extension:validity:1.0:Agent' ->> 'validUntil';
begin
    if until is null or new.deleted_at is not null then
        delete from validities v where v.tenant_id = new.tenant_id and v.principal_id = new.id;
    else
        insert into validities as v (tenant_id, principal_id, valid_until) values (new.tenant_id, new.id, until)
        on conflict (tenant_id, principal_id) do update set valid_until = excluded.valid_until where v.valid_until <> excluded.valid_until;
    end if;
    return null;
end $$;
-- +goose StatementEnd
create trigger agent_is_valid after insert or update of document, deleted_at on resources for each row
    when (new.type = 'Agent') execute function keep_validity();

-- The agents whose time is over and whom nothing restricts yet, of all tenants in turns.
-- +goose StatementBegin
create function expired_agents(at_most int) returns table (tenant_id uuid, principal_id uuid)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select d.tenant_id, d.principal_id from (
      select v.tenant_id, v.principal_id, v.valid_until, row_number() over (partition by v.tenant_id order by v.valid_until) turn
        from public.validities v
       where v.valid_until <= now()
         and not exists (select 1 from public.restrictions x where x.tenant_id = v.tenant_id and x.principal_id = v.principal_id)) d
     order by d.turn, d.valid_until limit at_most
$$;

-- Whether a subject may act: 'allow', or why not. The subject is a User, or an Agent
-- that acts for itself or for somebody; each is given by its SCIM id or its name.
-- Every step is one look into an index, and the first that says no ends it. Where what
-- somebody is entitled to is in doubt, that is the answer, with whose it is: the caller
-- derives it, and asks again with `live`.
-- (plpgsql keeps its plans for the session.)
create function access_decision(tenant uuid, subject_type text, subject uuid, subject_name text, on_behalf uuid, on_behalf_name text,
        action text, resource_type text, resource text, resource_owner text, live text[]) returns text
    language plpgsql stable as $$
declare
    actor uuid;
    who uuid;
    who_name text;
begin
    if subject is not null then
        select r.id, r.unique_name into actor, who_name from resources r
         where r.tenant_id = tenant and r.id = subject and r.type = subject_type and r.deleted_at is null;
    else
        select r.id, r.unique_name into actor, who_name from resources r
         where r.tenant_id = tenant and r.type = subject_type and r.unique_name = subject_name and r.deleted_at is null;
    end if;
    if actor is null then return 'unknown_subject'; end if;
    if exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = actor) then
        return case subject_type when 'Agent' then 'agent_suspended' else 'principal_restricted' end;
    end if;
    who := actor;
    if subject_type = 'Agent' then
        if exists (select 1 from validities v where v.tenant_id = tenant and v.principal_id = actor and v.valid_until <= now()) then
            return 'agent_expired';
        end if;
        if not has_active_owner(tenant, actor, null) then return 'owner_gone'; end if;
        if on_behalf is not null or on_behalf_name is not null then
            who := null;
            if on_behalf is not null then
                select r.id, r.unique_name into who, who_name from resources r
                 where r.tenant_id = tenant and r.id = on_behalf and r.type = 'User' and r.deleted_at is null;
            else
                select r.id, r.unique_name into who, who_name from resources r
                 where r.tenant_id = tenant and r.type = 'User' and r.unique_name = on_behalf_name and r.deleted_at is null;
            end if;
            if who is null then return 'unknown_principal'; end if;
            if exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = who) then
                return 'principal_restricted';
            end if;
        end if;
    end if;

    if resource_type = 'credential' then
        return credential_decision(tenant, actor, who, action, resource, live);
    end if;

    -- Everything else an agent does for somebody who owns it, or gave it something to hold.
    if actor <> who
       and not exists (select 1 from edges o where o.tenant_id = tenant and o.source_id = actor and o.attribute = 'owners' and o.target_id = who)
       and not exists (select 1 from inventory i where i.tenant_id = tenant and i.agent_id = actor and i.principal_id = who and i.state = 'live')
       and not exists (select 1 from groups_of(tenant, who) g
             join edges o on o.tenant_id = tenant and o.source_id = actor and o.attribute = 'owners' and o.target_id = g.id) then
        return 'not_delegated';
    end if;
    if resource_type = 'connector' then
        return connector_decision(tenant, actor, who, action, resource, live);
    end if;
    if live is null and entitlements_in_doubt(tenant, who) then return 'in_doubt:' || who; end if;
    if resource_type = 'team' and not entitled(tenant, who, 'team:' || resource, live) then
        return lost_or_never_had(tenant, who, 'team:' || resource);
    end if;
    -- A scope that ends in :own is for what the principal owns.
    if entitled(tenant, who, 'scope:' || action, live)
       or (owns(who, who_name, subject_type = 'User' or who <> actor, resource_owner) and entitled(tenant, who, 'scope:' || action || ':own', live)) then
        return 'allow';
    end if;
    return lost_or_never_had(tenant, who, 'scope:' || action);
end $$;

-- Of one credential, by the id of its registration.
create function credential_decision(tenant uuid, actor uuid, who uuid, action text, resource text, live text[]) returns text
    language plpgsql stable as $$
declare
    item inventory;
begin
    -- Text that is no id names nothing.
    if resource !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then return 'unknown_credential'; end if;
    select i.* into item from inventory i where i.tenant_id = tenant and i.id = resource::uuid;
    if item.id is null or item.principal_id <> who or (actor <> who and item.agent_id is distinct from actor) then
        return 'unknown_credential';
    end if;
    if item.entitlement ~ '^(team|role|scope):.' and exists (select 1 from mappings m where m.tenant_id = tenant) then
        if live is null and entitlements_in_doubt(tenant, who) then return 'in_doubt:' || who; end if;
        if not entitled(tenant, who, item.entitlement, live) then return 'entitlement_lost'; end if;
    end if;
    if item.state <> 'live' then return 'credential_ended'; end if;
    if item.expires_at <= now() then return 'credential_expired'; end if;
    if item.scopes <> '{}' and not action = any (item.scopes) then return 'scope_missing'; end if;
    return 'allow';
end $$;

-- Of a connector: whether there is some such credential.
create function connector_decision(tenant uuid, actor uuid, who uuid, action text, resource text, live text[]) returns text
    language plpgsql stable as $$
declare
    granted text[];
    derives boolean;
begin
    granted := array(select i.entitlement from inventory i
         where i.tenant_id = tenant and i.principal_id = who and i.connector = resource and i.state = 'live'
           and (actor = who or i.agent_id = actor)
           and (i.expires_at is null or i.expires_at > now()) and (i.scopes = '{}' or action = any (i.scopes)) limit 1000);
    if granted = '{}' then return 'no_credential'; end if;
    derives := exists (select 1 from mappings m where m.tenant_id = tenant);
    if not derives or exists (select 1 from unnest(granted) g where g !~ '^(team|role|scope):.') then return 'allow'; end if;
    if live is null and entitlements_in_doubt(tenant, who) then return 'in_doubt:' || who; end if;
    return case when exists (select 1 from unnest(granted) g where entitled(tenant, who, g, live)) then 'allow' else 'entitlement_lost' end;
end $$;

-- An id is compared with an id, and a userName with a userName: nobody's name stands
-- for another's id, nor an agent's for a user.
create function owns(principal uuid, name text, is_user boolean, owner text) returns boolean
    language plpgsql immutable as $$
begin
    if owner ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then return lower(owner) = principal::text; end if;
    return is_user and lower(owner) = name;
end $$;

create function entitlements_in_doubt(tenant uuid, principal uuid) returns boolean
    language plpgsql stable as $$
begin
    return exists (select 1 from doubts d where d.tenant_id = tenant and d.principal_id in (principal, tenant));
end $$;

create function entitled(tenant uuid, principal uuid, entitlement text, live text[]) returns boolean
    language plpgsql stable as $$
begin
    if live is not null then return entitlement = any (live); end if;
    return exists (select 1 from entitlements e where e.tenant_id = tenant and e.principal_id = principal and e.name = entitlement);
end $$;

create function lost_or_never_had(tenant uuid, principal uuid, entitlement text) returns text
    language plpgsql stable as $$
begin
    return case when exists (
        select 1 from entitlement_changes c where c.tenant_id = tenant and c.principal_id = principal and c.name = entitlement and not c.gained)
      then 'entitlement_lost' else 'not_entitled' end;
end $$;
-- +goose StatementEnd
revoke execute on function expired_agents(int) from public;
grant execute on function expired_agents(int) to leaver_app;

-- +goose Down
drop function access_decision(uuid, text, uuid, text, uuid, text, text, text, text, text, text[]), credential_decision(uuid, uuid, uuid, text, text, text[]),
    connector_decision(uuid, uuid, uuid, text, text, text[]), entitlements_in_doubt(uuid, uuid), entitled(uuid, uuid, text, text[]), owns(uuid, text, boolean, text), lost_or_never_had(uuid, uuid, text), expired_agents(int);
drop trigger agent_is_valid on resources;
drop function keep_validity();
drop table validities;
