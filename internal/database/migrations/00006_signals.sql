-- +goose Up

-- Receivers' tokens; they manage streams of security events, and poll them.
alter table tokens drop constraint tokens_class_check,
    add constraint tokens_class_check check (class in ('scim', 'platform', 'operator', 'approver', 'receiver'));

-- The keys that sign security event tokens: of the installation, of no tenant. The
-- private part is sealed; the public one is served as long as something it signed may
-- be under way.
create table signing_keys (
    id         uuid primary key,
    private    bytea not null,
    public     jsonb not null, -- JWK
    created_at timestamptz not null default now()
);
grant select, insert, delete on signing_keys to leaver_app;

-- Streams of security events, as the OpenID Shared Signals Framework 1.0 has them.
create table streams (
    tenant_id     uuid not null references tenants,
    id            uuid not null,
    issuer        text not null,
    audience      text[] not null,
    method        text not null check (method in ('push', 'poll')),
    endpoint      text not null default '', -- of push
    authorization_header bytea,             -- sealed
    requested     text[] not null default '{}',
    events        text[] not null,          -- what is delivered
    description   text not null default '',
    status        text not null default 'enabled' check (status in ('enabled', 'paused', 'disabled')),
    reason        text not null default '',
    created_by    text not null,
    created_at    timestamptz not null default now(),
    last_error    text not null default '',
    last_error_at timestamptz,
    -- Until then whoever claimed it has it pushed; earlier once nothing waits.
    claimed_until timestamptz,
    primary key (tenant_id, id)
);

-- What each stream has yet to deliver, in its order, and for a while what it has.
create table signals (
    tenant_id      uuid not null,
    stream_id      uuid not null,
    id             bigint generated always as identity,
    jti            uuid not null default gen_random_uuid(),
    principal_id   uuid, -- null: about the stream itself
    principal_type text,
    type           text not null,
    event          jsonb not null,
    txn            text not null default '',
    once           text not null, -- what happened, so that it is told once
    created_at     timestamptz not null default now(),
    settled_at     timestamptz,
    outcome        text check (outcome in ('delivered', 'refused', 'expired')),
    detail         text not null default '',
    -- No foreign key: a stream that goes must hold up no write that has something to
    -- tell. What it leaves behind is swept.
    primary key (tenant_id, stream_id, id)
);
create unique index signals_once on signals (tenant_id, stream_id, once);
create unique index signals_jti on signals (tenant_id, stream_id, jti);
create index signals_waiting on signals (tenant_id, stream_id, id) where settled_at is null;
create index signals_settled on signals (settled_at) where settled_at is not null;
create index signals_age on signals (created_at) where settled_at is null;
create index signals_failed on signals (tenant_id, stream_id, outcome) where outcome in ('refused', 'expired');

alter table streams enable row level security;
alter table signals enable row level security;
create policy tenant on streams using (tenant_id = leaver_tenant());
create policy tenant on signals using (tenant_id = leaver_tenant());
grant select, insert, update, delete on streams, signals to leaver_app;

-- Whether an event's client did not wait (RFC 9967): it is told when the workflow closes.
alter table lifecycle_events add column async boolean not null default false;

-- +goose StatementBegin
create function emit_signal(tenant uuid, principal uuid, principal_kind text, name text, payload jsonb, cause text, key text) returns void
    language plpgsql as $$
begin
    insert into signals (tenant_id, stream_id, principal_id, principal_type, type, event, txn, once)
    select tenant, s.id, principal, principal_kind, name, payload, cause, key || '/' || name
      from streams s where s.tenant_id = tenant and s.status <> 'disabled' and name = any (s.events)
    on conflict (tenant_id, stream_id, once) do nothing;
end $$;

-- A lifecycle event tells the receivers in its own commit: whatever Temporal does.
create function signal_event() returns trigger language plpgsql as $$
declare
    scim constant text := 'urn:ietf:params:scim:event:prov:';
    risc constant text := 'https://schemas.openid.net/secevent/risc/event-type/';
    attributes jsonb;
begin
    if not exists (select 1 from streams s where s.tenant_id = new.tenant_id) or new.principal_type = 'Tenant'
       or new.trigger in ('entitlement-lost', 'bound', 'reconcile') then
        return null;
    end if;
    attributes := jsonb_build_object('attributes', to_jsonb(new.changed));
    if new.trigger = 'scim-delete' then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'delete', '{}', new.workflow_id, new.id::text);
        if new.principal_type <> 'Group' then
            perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, risc || 'account-purged', '{}', new.workflow_id, new.id::text);
        end if;
    elsif new.kind = 'leaver' then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'deactivate', '{}', new.workflow_id, new.id::text);
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, risc || 'account-disabled', '{}', new.workflow_id, new.id::text);
    elsif new.kind = 'joiner' and 'active' = any (new.changed) then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'activate', '{}', new.workflow_id, new.id::text);
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, risc || 'account-enabled', '{}', new.workflow_id, new.id::text);
    elsif new.kind = 'joiner' or new.trigger = 'scim-post' then
        attributes := jsonb_build_object('attributes', (
            select coalesce(jsonb_agg(k), '[]') from resources r, jsonb_object_keys(r.document) k where r.tenant_id = new.tenant_id and r.id = new.principal_id));
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'create:notice', attributes, new.workflow_id, new.id::text);
    elsif new.trigger = 'scim-put' then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'put:notice', attributes, new.workflow_id, new.id::text);
    else
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, scim || 'patch:notice', attributes, new.workflow_id, new.id::text);
    end if;
    return null;
end $$;
create trigger event_is_told after insert on lifecycle_events for each row execute function signal_event();

-- A cascade that has ended everything has ended the sessions; and a client that did
-- not wait is told that its transaction is over.
create function signal_end() returns trigger language plpgsql as $$
begin
    if new.kind = 'leaver' and new.outcome = 'completed' then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, 'https://schemas.openid.net/secevent/caep/event-type/session-revoked',
            jsonb_build_object('event_timestamp', extract(epoch from new.closed_at)::bigint, 'initiating_entity', 'policy',
                'reason_admin', jsonb_build_object('en', 'the principal has left; all it held has ended')), new.workflow_id, new.id || '/' || new.run_id);
    end if;
    if new.async then
        perform emit_signal(new.tenant_id, new.principal_id, new.principal_type, 'urn:ietf:params:scim:event:misc:asyncresp',
            jsonb_build_object('method', case new.trigger when 'scim-post' then 'POST' when 'scim-put' then 'PUT' when 'scim-delete' then 'DELETE' else 'PATCH' end,
                'status', case new.trigger when 'scim-post' then '201' when 'scim-delete' then '204' else '200' end), new.workflow_id, new.id::text);
    end if;
    return null;
end $$;
create trigger event_has_ended after update of closed_at, async on lifecycle_events for each row
    when (new.closed_at is not null and (old.closed_at is null or (new.async and not old.async))) execute function signal_end();

-- A credential that has ended, by the row itself as its history is.
create function signal_credential() returns trigger language plpgsql as $$
begin
    perform emit_signal(new.tenant_id, new.principal_id, r.type, 'https://schemas.openid.net/secevent/caep/event-type/credential-change',
        jsonb_build_object('event_timestamp', extract(epoch from now())::bigint, 'credential_type', new.kind, 'change_type', 'revoke',
            'friendly_name', new.connector, 'initiating_entity', 'policy', 'credential_id', new.id,
            'reason_admin', jsonb_build_object('en', 'ended at ' || new.connector || ', ' || new.state)), coalesce(e.workflow_id, ''), new.id::text)
      from resources r left join lifecycle_events e on e.tenant_id = new.tenant_id and e.id = new.event_id
     where r.tenant_id = new.tenant_id and r.id = new.principal_id
       and exists (select 1 from streams s where s.tenant_id = new.tenant_id);
    return null;
end $$;
create trigger credential_has_ended after update of state on inventory for each row
    when (new.state in ('revoked', 'verified') and old.state not in ('revoked', 'verified')) execute function signal_credential();

-- What a principal is entitled to has changed: its new claims, and no others'.
create function signal_entitlements() returns trigger language plpgsql as $$
begin
    perform emit_signal(c.tenant_id, c.principal_id, r.type, 'https://schemas.openid.net/secevent/caep/event-type/token-claims-change',
        jsonb_build_object('event_timestamp', extract(epoch from now())::bigint, 'initiating_entity', 'policy', 'claims', jsonb_build_object('entitlements', (
            select coalesce(jsonb_agg(n.name order by n.name), '[]') from entitlements n where n.tenant_id = c.tenant_id and n.principal_id = c.principal_id))),
        coalesce(e.workflow_id, ''), 'entitlements/' || c.last)
      from (select tenant_id, principal_id, max(id) last, (array_agg(event_id))[1] event_id from added group by 1, 2) c
      join resources r on r.tenant_id = c.tenant_id and r.id = c.principal_id
      left join lifecycle_events e on e.tenant_id = c.tenant_id and e.id = c.event_id
     where exists (select 1 from streams s where s.tenant_id = c.tenant_id);
    return null;
end $$;
create trigger entitlements_are_told after insert on entitlement_changes referencing new table as added
    for each statement execute function signal_entitlements();

-- A restriction that came of another's cascade has no event of its own: the agents of a
-- leaver.
create function signal_restriction() returns trigger language plpgsql as $$
begin
    if not exists (select 1 from streams s where s.tenant_id = new.tenant_id)
       or exists (select 1 from lifecycle_events e where e.tenant_id = new.tenant_id and e.id = new.event_id and e.principal_id = new.principal_id) then
        return null;
    end if;
    perform emit_signal(new.tenant_id, new.principal_id, r.type, name, '{}', coalesce(e.workflow_id, ''), new.event_id || '/' || new.principal_id)
      from resources r
      cross join unnest(array['urn:ietf:params:scim:event:prov:deactivate', 'https://schemas.openid.net/secevent/risc/event-type/account-disabled']) name
      left join lifecycle_events e on e.tenant_id = new.tenant_id and e.id = new.event_id
     where r.tenant_id = new.tenant_id and r.id = new.principal_id;
    return null;
end $$;
create trigger restriction_is_told after insert on restrictions for each row
    when (new.cause = 'orphaned' and new.event_id is not null) execute function signal_restriction();

-- Claims streams, of all tenants, that have something to push, the longest unclaimed
-- first: one whose receiver is down comes again after all others.
create function claim_streams(at_most int, lease interval) returns table (tenant_id uuid, stream_id uuid)
    language sql security definer set search_path = pg_catalog, public as $$
    update public.streams c set claimed_until = now() + lease
      from (select s.tenant_id, s.id from public.streams s
             where s.method = 'push' and s.status = 'enabled' and (s.claimed_until is null or s.claimed_until < now())
               and exists (select 1 from public.signals g where g.tenant_id = s.tenant_id and g.stream_id = s.id and g.settled_at is null)
             order by s.claimed_until nulls first limit at_most for update skip locked) due
     where c.tenant_id = due.tenant_id and c.id = due.id
    returning c.tenant_id, c.id
$$;

-- What was not delivered in time expires; what is older than anybody waits for goes. So
-- many rows at a time; it tells how many there were.
create function sweep_signals(retention interval, at_most int) returns bigint
    language sql security definer set search_path = pg_catalog, public as $$
    with late as (
      update public.signals g set settled_at = now(), outcome = 'expired'
        from (select tenant_id, stream_id, id from public.signals where settled_at is null and created_at < now() - retention limit at_most) l
       where g.tenant_id = l.tenant_id and g.stream_id = l.stream_id and g.id = l.id returning 1),
    gone as (
      delete from public.signals g
       using (select tenant_id, stream_id, id from public.signals where settled_at < now() - retention limit at_most) l
       where g.tenant_id = l.tenant_id and g.stream_id = l.stream_id and g.id = l.id returning 1)
    select (select count(*) from late) + (select count(*) from gone)
$$;

-- How long, in seconds, what is in doubt has been uncomputed (of whom nothing restricts)
-- and what is to be told has waited, of all tenants; 0 where nothing is.
create function waiting_health() returns table (doubts double precision, signals double precision)
    language sql stable security definer set search_path = pg_catalog, public as $$
    select coalesce((select extract(epoch from now() - min(d.at)) from public.doubts d
              where not exists (select 1 from public.restrictions x where x.tenant_id = d.tenant_id and x.principal_id = d.principal_id)), 0),
           coalesce((select extract(epoch from now() - min(g.created_at)) from public.signals g
              join public.streams s on s.tenant_id = g.tenant_id and s.id = g.stream_id and s.status = 'enabled'
             where g.settled_at is null), 0)
$$;
-- +goose StatementEnd
revoke execute on function waiting_health() from public;
grant execute on function waiting_health() to leaver_app;
revoke execute on function claim_streams(int, interval), sweep_signals(interval, int) from public;
grant execute on function claim_streams(int, interval), sweep_signals(interval, int) to leaver_app;

-- +goose Down
drop function waiting_health(), claim_streams(int, interval), sweep_signals(interval, int);
drop trigger restriction_is_told on restrictions;
drop trigger entitlements_are_told on entitlement_changes;
drop trigger credential_has_ended on inventory;
drop trigger event_has_ended on lifecycle_events;
drop trigger event_is_told on lifecycle_events;
drop function signal_restriction(), signal_entitlements(), signal_credential(), signal_end(), signal_event(), emit_signal(uuid, uuid, text, text, jsonb, text, text);
alter table lifecycle_events drop column async;
drop table signals, streams, signing_keys;
delete from tokens where class = 'receiver';
alter table tokens drop constraint tokens_class_check,
    add constraint tokens_class_check check (class in ('scim', 'platform', 'operator', 'approver'));
