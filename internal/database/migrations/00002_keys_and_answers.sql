-- +goose Up
-- The document with comparison keys in place of its strings, by which resources are filtered
-- and sorted. The keys are made in Go: `leaver migrate` fills the column for resources that
-- an older version stored. Older processes must be stopped: they do not keep the column.
alter table resources add column folded jsonb;
drop index resources_display_name;
create index resources_display_name on resources (tenant_id, left(folded ->> 'displayName', 200)) where deleted_at is null and type = 'Group';
create index resources_unfolded on resources (tenant_id, id) where deleted_at is null and folded is null;

-- What of a request was not done: a deactivation is done whatever else stands beside it, and
-- the profile of Okta skips unknown members.
alter table changes add column ignored text[] not null default '{}';
