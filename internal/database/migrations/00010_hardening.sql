-- +goose Up

-- Leases on downstream accounts. An attempt changes an account only while it holds the
-- lease, so a suspended worker that resumes cannot change it. A later attempt at the same
-- item of the same event takes the lease over at once. Any other attempt waits until the
-- lease expires.
create table account_leases (
    tenant_id  uuid not null,
    connector  text not null,
    kind       text not null,
    reference  text not null,
    event_id   uuid not null,
    item_id    uuid not null,
    holder     uuid not null, -- of one attempt alone
    run_id     text not null,
    activity   text not null,
    attempt    int not null,
    started_at timestamptz not null, -- the attempt, by Temporal's clock
    expires_at timestamptz not null,
    primary key (tenant_id, connector, kind, reference)
);
create index account_leases_holder on account_leases (tenant_id, holder);
alter table account_leases enable row level security;
create policy tenant on account_leases using (tenant_id = leaver_tenant());
grant select, insert, update, delete on account_leases to leaver_app;

-- A rotation's own lease is that of its account. Its sequence orders the publications of
-- an account; its secret is erased once nothing needs it.
alter table rotations drop column leased_by, drop column leased_until,
    add column sequence bigint not null default nextval('lifecycle_sequence'),
    add column proven uuid[], -- the registrations that had proven the account; null is all
    alter column new_secret drop not null;

-- When a probe saw dead what was left to expire.
alter table inventory add column expiry_probed_at timestamptz;

-- One number for an account, or a principal, to serialise on by advisory locks.
create function lock_key(tenant uuid, parts text[]) returns bigint
    language sql immutable parallel safe
    as $$ select hashtextextended(array_to_string(array_prepend(tenant::text, parts), E'\x1f'), 0) $$;

create index lifecycle_events_returns on lifecycle_events (tenant_id, principal_id, sequence) where kind = 'joiner' and 'active' = any (changed);

-- Whether an item belongs to a later life than an event: a return lies between the two.
-- Registrations take no lock that a deactivation waits for, so that one which was admitted
-- before the event may have a later number: no return lies between them.
-- +goose StatementBegin
create function of_later_life(tenant uuid, event_sequence bigint, item_sequence bigint, principals uuid[]) returns boolean
    language plpgsql stable as $$
begin
    return item_sequence > event_sequence and exists (
        select 1 from lifecycle_events j
         where j.tenant_id = tenant and j.principal_id = any (principals) and j.kind = 'joiner' and 'active' = any (j.changed)
           and j.sequence > event_sequence and j.sequence < item_sequence);
end $$;
-- +goose StatementEnd

-- Marks members and owners that are restricted, so that the search for an agent's active
-- owner skips them. The mark is only an optimization: active_owner also checks the
-- restrictions table.
alter table edges add column restricted boolean not null default false;
update edges e set restricted = true where attribute in ('members', 'owners')
    and exists (select 1 from restrictions x where x.tenant_id = e.tenant_id and x.principal_id = e.target_id);
create index edges_unrestricted on edges (tenant_id, source_id, attribute) where not restricted;
grant update (restricted) on edges to leaver_app;
-- +goose StatementBegin
create function mark_new_edges() returns trigger language plpgsql as $$
begin
    -- A later return waits for the lock, and then finds the edges. One that is under way is
    -- not waited for, since it may wait for these edges: they stay unmarked.
    with held as materialized (
      select x.tenant_id, x.principal_id from restrictions x
       where (x.tenant_id, x.principal_id) in (select a.tenant_id, a.target_id from added a where a.attribute in ('members', 'owners'))
         for share skip locked)
    update edges e set restricted = true from added a join held x on x.tenant_id = a.tenant_id and x.principal_id = a.target_id
     where e.tenant_id = a.tenant_id and e.source_id = a.source_id and e.attribute = a.attribute and e.target_id = a.target_id
       and a.attribute in ('members', 'owners');
    return null;
end $$;
create function mark_edges() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        -- No deactivation waits for a change of a group: what is locked stays unmarked.
        update edges e set restricted = true
          from (select u.source_id, u.attribute from edges u
                 where u.tenant_id = new.tenant_id and u.target_id = new.principal_id and u.attribute in ('members', 'owners') and not u.restricted
                   for no key update skip locked) m
         where e.tenant_id = new.tenant_id and e.target_id = new.principal_id and e.source_id = m.source_id and e.attribute = m.attribute;
    else
        update edges e set restricted = false where e.tenant_id = old.tenant_id and e.target_id = old.principal_id and e.attribute in ('members', 'owners') and e.restricted;
    end if;
    return null;
end $$;

create or replace function active_owner(tenant uuid, agent uuid, leaving uuid) returns uuid
    language plpgsql stable as $$
begin
    return (
      with recursive owners (id) as (
        select e.target_id from edges e where e.tenant_id = tenant and e.source_id = agent and e.attribute = 'owners' and not e.restricted
        union
        select e.target_id from owners o
          join resources g on g.tenant_id = tenant and g.id = o.id and g.type = 'Group' and g.deleted_at is null
          join edges e on e.tenant_id = tenant and e.source_id = g.id and e.attribute = 'members' and not e.restricted)
      select o.id from owners o cross join lateral (
        select 1 from resources p
         where p.tenant_id = tenant and p.id = o.id and p.type = 'User' and p.deleted_at is null and p.id is distinct from leaving
           and not exists (select 1 from restrictions x where x.tenant_id = tenant and x.principal_id = p.id)
        offset 0) active
       limit 1);
end $$;
-- +goose StatementEnd
create trigger edges_are_marked after insert on edges referencing new table as added for each statement execute function mark_new_edges();
create trigger restriction_marks_edges after insert or delete on restrictions for each row execute function mark_edges();

-- A text sealed by each key that a process of the installation seals with: who cannot
-- open one has another key set.
create table keyset_canaries (
    key_id     bigint primary key,
    sealed     text not null,
    created_at timestamptz not null default now()
);
grant select, insert on keyset_canaries to leaver_app;

-- A cascade that was cancelled: what it had not ended yet stays.
alter table lifecycle_events drop constraint lifecycle_events_outcome_check,
    add constraint lifecycle_events_outcome_check check (outcome in ('completed', 'failed', 'cancelled'));

-- Tokens that were acted upon are remembered by who issued them, whatever becomes of the
-- issuer's registration.
alter table received_tokens add column issuer text;
update received_tokens r set issuer = coalesce((select i.issuer from issuers i where i.tenant_id = r.tenant_id and i.id = r.issuer_id), r.issuer_id::text);
alter table received_tokens drop constraint received_tokens_pkey, drop column issuer_id, alter column issuer set not null, add primary key (tenant_id, issuer, jti);

-- What operators, approvers and whoever reaches the database did: of the installation
-- where no tenant is named.
create table admin_acts (
    id        bigint generated always as identity primary key,
    tenant_id uuid references tenants,
    actor     text not null,
    verb      text not null,
    object    text not null,
    before    jsonb,
    after     jsonb,
    at        timestamptz not null default clock_timestamp()
);
create index admin_acts_tenant on admin_acts (tenant_id, id);
create trigger admin_acts_append_only before update or delete or truncate on admin_acts
    for each statement execute function refuse_change();
alter table admin_acts enable row level security;
create policy tenant on admin_acts for select using (tenant_id is not distinct from leaver_tenant());
create policy added on admin_acts for insert with check (true);
grant select, insert on admin_acts to leaver_app;
alter table tokens add column created_by text not null default '';
-- Who registered or released something; empty of what cascades do, which name their event.
alter table inventory_states add column actor text not null default '';
-- +goose StatementBegin
create or replace function keep_state() returns trigger language plpgsql as $$
begin
    insert into inventory_states (tenant_id, item_id, state, reason, event_id, actor)
    values (new.tenant_id, new.id, new.state, new.reason, new.event_id, coalesce(current_setting('leaver.actor', true), ''));
    return null;
end $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
create or replace function keep_state() returns trigger language plpgsql as $$
begin
    insert into inventory_states (tenant_id, item_id, state, reason, event_id)
    values (new.tenant_id, new.id, new.state, new.reason, new.event_id);
    return null;
end $$;
-- +goose StatementEnd
alter table inventory_states drop column actor;
alter table tokens drop column created_by;
drop table admin_acts;
delete from received_tokens;
alter table received_tokens drop constraint received_tokens_pkey, drop column issuer, add column issuer_id uuid not null, add primary key (tenant_id, issuer_id, jti);
update lifecycle_events set outcome = 'failed' where outcome = 'cancelled';
alter table lifecycle_events drop constraint lifecycle_events_outcome_check,
    add constraint lifecycle_events_outcome_check check (outcome in ('completed', 'failed'));
drop table keyset_canaries;
drop trigger restriction_marks_edges on restrictions;
drop trigger edges_are_marked on edges;
drop function mark_edges(), mark_new_edges();
drop index edges_unrestricted;
alter table edges drop column restricted;
drop function of_later_life(uuid, bigint, bigint, uuid[]);
drop index lifecycle_events_returns;
drop function lock_key(uuid, text[]);
delete from rotations where new_secret is null;
alter table inventory drop column expiry_probed_at;
alter table rotations drop column proven, drop column sequence, alter column new_secret set not null, add column leased_by text, add column leased_until timestamptz;
drop table account_leases;
