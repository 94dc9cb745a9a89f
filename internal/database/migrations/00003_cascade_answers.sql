-- +goose Up
-- absent: the downstream knew no such credential when the cascade first asked for its end.
alter table inventory drop constraint inventory_state_check;
alter table inventory add constraint inventory_state_check
    check (state in ('live', 'ending', 'revoked', 'verified', 'absent', 'expiring', 'survivor', 'waived', 'released'));

-- absent counts such items. not_asked lists the connectors that could not be asked what they
-- hold, with the reasons. begun_at is when a worker first took up the workflow.
alter table lifecycle_events add column absent int not null default 0;
alter table lifecycle_events add column not_asked jsonb not null default '[]';
alter table lifecycle_events add column begun_at timestamptz;
create index lifecycle_events_open on lifecycle_events (tenant_id, created_at) where closed_at is null and (kind = 'leaver' or ends);
create index lifecycle_events_not_asked on lifecycle_events (tenant_id, sequence) where outcome = 'failed' and not_asked <> '[]';

-- The runs that `leaver migrate` has scheduled, since when: no alert before the first is due.
create table assurance_schedules (
    kind  text primary key check (kind in ('reconcile', 'drill')),
    since timestamptz not null default now()
);
grant select on assurance_schedules to leaver_app;

-- What a closed cascade had stays its own, whatever takes its survivors over later.
create index inventory_states_event on inventory_states (tenant_id, event_id, item_id) where event_id is not null;
