-- +goose Up

-- What follows from lifecycle events, in their own commit and whatever Temporal does:
-- who derives entitlements doubts them, and receivers are told. Once for all events of
-- a statement.
drop trigger event_is_doubted on lifecycle_events;
drop trigger event_is_told on lifecycle_events;
drop function doubt_event(), signal_event();
-- +goose StatementBegin
-- What a lifecycle event tells the receivers.
create function signal_event(e lifecycle_events) returns void language plpgsql as $$
declare
    scim constant text := 'urn:ietf:params:scim:event:prov:';
    risc constant text := 'https://schemas.openid.net/secevent/risc/event-type/';
    attributes jsonb;
begin
    attributes := jsonb_build_object('attributes', to_jsonb(e.changed));
    if e.trigger = 'scim-delete' then
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'delete', '{}', e.workflow_id, e.id::text);
        if e.principal_type <> 'Group' then
            perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, risc || 'account-purged', '{}', e.workflow_id, e.id::text);
        end if;
    elsif e.kind = 'leaver' then
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'deactivate', '{}', e.workflow_id, e.id::text);
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, risc || 'account-disabled', '{}', e.workflow_id, e.id::text);
    elsif e.kind = 'joiner' and 'active' = any (e.changed) then
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'activate', '{}', e.workflow_id, e.id::text);
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, risc || 'account-enabled', '{}', e.workflow_id, e.id::text);
    elsif e.kind = 'joiner' or e.trigger = 'scim-post' then
        attributes := jsonb_build_object('attributes', (
            select coalesce(jsonb_agg(k), '[]') from resources r, jsonb_object_keys(r.document) k where r.tenant_id = e.tenant_id and r.id = e.principal_id));
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'create:notice', attributes, e.workflow_id, e.id::text);
    elsif e.trigger = 'scim-put' then
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'put:notice', attributes, e.workflow_id, e.id::text);
    else
        perform emit_signal(e.tenant_id, e.principal_id, e.principal_type, scim || 'patch:notice', attributes, e.workflow_id, e.id::text);
    end if;
end $$;

-- Whoever changes or returns is in doubt, and everybody where a group's name changes or
-- a group goes; who is restricted has no need, and members are told apart
-- (members_are_doubted).
create function events_have_followers() returns trigger language plpgsql as $$
declare
    e lifecycle_events;
begin
    insert into doubts (tenant_id, principal_id, cause)
    select a.tenant_id, case a.kind when 'team-sync' then a.tenant_id else a.principal_id end, a.principal_id
      from added a
     where exists (select 1 from mappings m where m.tenant_id = a.tenant_id)
       and ((a.kind in ('joiner', 'mover') and a.trigger <> 'entitlement-lost')
            or (a.kind = 'team-sync' and a.principal_type = 'Group' and a.changed <> '{members}'));
    for e in select a.* from added a
              where exists (select 1 from streams s where s.tenant_id = a.tenant_id)
                and a.principal_type <> 'Tenant' and a.trigger not in ('entitlement-lost', 'bound', 'reconcile') loop
        perform signal_event(e);
    end loop;
    return null;
end $$;
-- +goose StatementEnd
create trigger events_have_followers after insert on lifecycle_events referencing new table as added
    for each statement execute function events_have_followers();

-- +goose StatementBegin
-- The rows of a statement that writes changes. The planner takes them for few, however
-- large the tables are that they are looked up in, and keeps its plan.
create function change_rows(changes jsonb)
    returns table (id uuid, type text, trigger text, actor text, changed text[], kind text, if_members text, event uuid,
        restricts boolean, cause text, lifts boolean, name text, display text, external text, active boolean, document jsonb, extensions text[],
        modified timestamptz, expected bigint, columns boolean, removes boolean)
    language plpgsql stable rows 1 as $$
begin
    return query select * from jsonb_to_recordset(changes) c (id uuid, type text, trigger text, actor text, changed text[], kind text, if_members text, event uuid,
        restricts boolean, cause text, lifts boolean, name text, display text, external text, active boolean, document jsonb, extensions text[],
        modified timestamptz, expected bigint, columns boolean, removes boolean);
end $$;

-- Turns are of five seconds: whoever leaves a few seconds after a crowd from the same
-- sender waits for none of it.
create or replace function claim_events(batch int, lease interval, at_once int)
    returns setof lifecycle_events
    language sql security definer set search_path = pg_catalog, public as $$
    with due as materialized (
      select w.tenant_id, w.id, w.sequence, w.kind, w.actor,
             row_number() over (partition by w.kind = 'leaver', w.tenant_id, w.actor, floor(extract(epoch from w.created_at) / 5) order by w.sequence) turn
        from public.lifecycle_events w where w.started_at is null and w.due_at <= now()),
    running as (
      select r.tenant_id, r.actor, count(*) n from public.lifecycle_events r
       where r.kind = 'leaver' and r.started_at is not null and r.closed_at is null and r.started_at > now() - interval '30 seconds'
       group by 1, 2),
    admitted as materialized (
      select d.*, row_number() over (partition by d.kind = 'leaver', d.tenant_id, d.actor order by d.turn, d.sequence) + coalesce(r.n, 0) place
        from due d left join running r on d.kind = 'leaver' and r.tenant_id = d.tenant_id and r.actor = d.actor)
    update public.lifecycle_events e
       set due_at = now() + lease * least(power(2, e.attempts), 8), attempts = e.attempts + 1
      from (select d.tenant_id, d.id from public.lifecycle_events d
              join admitted a on a.tenant_id = d.tenant_id and a.id = d.id and (a.kind <> 'leaver' or a.place <= at_once)
             where d.started_at is null and d.due_at <= now()
             order by (d.kind = 'leaver') desc, a.turn, d.sequence
             limit batch for update of d skip locked) claimed
     where e.tenant_id = claimed.tenant_id and e.id = claimed.id
    returning e.*
$$;
-- +goose StatementEnd

-- +goose Down
drop trigger events_have_followers on lifecycle_events;
drop function events_have_followers(), signal_event(lifecycle_events);
drop function change_rows(jsonb);
-- +goose StatementBegin
create function doubt_event() returns trigger language plpgsql as $$
begin
    insert into doubts (tenant_id, principal_id, cause)
    select new.tenant_id, case new.kind when 'team-sync' then new.tenant_id else new.principal_id end, new.principal_id
     where exists (select 1 from mappings m where m.tenant_id = new.tenant_id);
    return null;
end $$;
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
create or replace function claim_events(batch int, lease interval, at_once int)
    returns setof lifecycle_events
    language sql security definer set search_path = pg_catalog, public as $$
    with due as materialized (
      select w.tenant_id, w.id, w.sequence, w.kind, w.actor,
             row_number() over (partition by w.kind = 'leaver', w.tenant_id, w.actor, date_trunc('minute', w.created_at) order by w.sequence) turn
        from public.lifecycle_events w where w.started_at is null and w.due_at <= now()),
    running as (
      select r.tenant_id, r.actor, count(*) n from public.lifecycle_events r
       where r.kind = 'leaver' and r.started_at is not null and r.closed_at is null and r.started_at > now() - interval '30 seconds'
       group by 1, 2),
    admitted as materialized (
      select d.*, row_number() over (partition by d.kind = 'leaver', d.tenant_id, d.actor order by d.turn, d.sequence) + coalesce(r.n, 0) place
        from due d left join running r on d.kind = 'leaver' and r.tenant_id = d.tenant_id and r.actor = d.actor)
    update public.lifecycle_events e
       set due_at = now() + lease * least(power(2, e.attempts), 8), attempts = e.attempts + 1
      from (select d.tenant_id, d.id from public.lifecycle_events d
              join admitted a on a.tenant_id = d.tenant_id and a.id = d.id and (a.kind <> 'leaver' or a.place <= at_once)
             where d.started_at is null and d.due_at <= now()
             order by (d.kind = 'leaver') desc, a.turn, d.sequence
             limit batch for update of d skip locked) claimed
     where e.tenant_id = claimed.tenant_id and e.id = claimed.id
    returning e.*
$$;
-- +goose StatementEnd
create trigger event_is_doubted after insert on lifecycle_events for each row
    when ((new.kind in ('joiner', 'mover') and new.trigger <> 'entitlement-lost')
          or (new.kind = 'team-sync' and new.principal_type = 'Group' and new.changed <> '{members}')) execute function doubt_event();
create trigger event_is_told after insert on lifecycle_events for each row execute function signal_event();
