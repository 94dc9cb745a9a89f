-- +goose Up
-- Names of tables and columns as the code and the documents use them.
-- functions.sql creates what is dropped here again, under its new name.
drop function if exists installation_health();
drop trigger if exists inventory_registered on inventory;
drop trigger if exists inventory_changed on inventory;
drop trigger if exists inventory_states_append_only on inventory_states;

alter table inventory rename to credentials;
alter table inventory_states rename to credential_states;
alter table brakes rename to holds;
alter table unbound rename to unmanaged;
alter table assurances rename to self_tests;
alter table assurance_schedules rename to self_test_schedules;
alter table computations rename to evaluations;
alter table computed_groups rename to group_snapshots;

alter table holds rename column engaged_at to held_at;
alter table holds rename column released_at to approved_at;
alter table holds rename column released_by to approved_by;
alter table lifecycle_events rename column brake_id to hold_id;
alter table tenants rename column brake_leavers to threshold_leavers;
alter table tenants rename column brake_share to threshold_share;
alter table tenants rename column brake_window to threshold_window;
alter table evaluations rename column computed_at to evaluated_at;

-- The state of a credential that is alive after a cascade is failed.
alter table credentials drop constraint inventory_state_check;
drop index inventory_live;
drop index inventory_survivors;
update credentials set state = 'failed' where state = 'survivor';
update credential_states set state = 'failed' where state = 'survivor';
update lifecycle_events set trigger = 'claimed' where trigger = 'bound';
alter table credentials add constraint credentials_state_check
    check (state in ('live', 'ending', 'revoked', 'verified', 'absent', 'expiring', 'failed', 'waived', 'released'));
create unique index credentials_live on credentials (tenant_id, connector, kind, reference, principal_id)
    where state in ('live', 'ending', 'failed', 'waived');
create index credentials_failed on credentials (tenant_id, state) where state in ('failed', 'waived');

-- Constraints, indexes and sequences are named after their tables.
-- +goose StatementBegin
do $$
declare
    r record;
    renamed text;
begin
    for r in select c.conname as name, c.conrelid::regclass as relation
               from pg_constraint c join pg_class t on t.oid = c.conrelid join pg_namespace n on n.oid = t.relnamespace
              where n.nspname = current_schema() and c.conname ~ '^(inventory|brakes|unbound|assurance|computations|computed_groups|tenants_brake)' loop
        renamed := regexp_replace(r.name, '^inventory_states', 'credential_states');
        renamed := regexp_replace(renamed, '^inventory', 'credentials');
        renamed := regexp_replace(renamed, '^brakes', 'holds');
        renamed := regexp_replace(renamed, '^unbound', 'unmanaged');
        renamed := regexp_replace(renamed, '^assurances', 'self_tests');
        renamed := regexp_replace(renamed, '^assurance_schedules', 'self_test_schedules');
        renamed := regexp_replace(renamed, '^computations', 'evaluations');
        renamed := regexp_replace(renamed, '^computed_groups', 'group_snapshots');
        renamed := regexp_replace(renamed, '^tenants_brake', 'tenants_threshold');
        execute format('alter table %s rename constraint %I to %I', r.relation, r.name, renamed);
    end loop;
    for r in select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
              where n.nspname = current_schema() and c.relkind in ('i', 'S') and c.relname ~ '^(inventory|brakes|unbound|assurance|computations|computed_groups)' loop
        renamed := regexp_replace(r.name, '^inventory_states', 'credential_states');
        renamed := regexp_replace(renamed, '^inventory', 'credentials');
        renamed := regexp_replace(renamed, '^brakes_held', 'holds_open');
        renamed := regexp_replace(renamed, '^unbound', 'unmanaged');
        renamed := regexp_replace(renamed, '^assurances', 'self_tests');
        renamed := regexp_replace(renamed, '^computed_groups', 'group_snapshots');
        execute format('alter table %I rename to %I', r.name, renamed);
    end loop;
end $$;
-- +goose StatementEnd
