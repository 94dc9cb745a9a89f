-- +goose Up

-- Who may act on an account downstream. An attempt holds the lease of its account, and
-- acts only while it does: a worker that was stopped and comes back acts no more. A later
-- attempt at the same item of the same event takes it over at once, any other waits for
-- the end of the lease.
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
    alter column new_secret drop not null;

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

-- +goose Down
drop function of_later_life(uuid, bigint, bigint, uuid[]);
drop index lifecycle_events_returns;
drop function lock_key(uuid, text[]);
delete from rotations where new_secret is null;
alter table rotations drop column sequence, alter column new_secret set not null, add column leased_by text, add column leased_until timestamptz;
drop table account_leases;
