-- Inserts a new resource with its audit row. It also inserts the restriction if $16 is set,
-- and the event if $18 is set.
with created as (
  insert into resources (tenant_id, id, type, unique_name, display_name, external_id, active, valid_until, version, document, folded, extensions, created_at, modified_at)
  values ($1, $2, $3, nullif($4, ''), nullif($5, ''), nullif($6, ''), $7, $8, $9, $10, $21, $11, $12, $12)),
audited as (
  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed, ignored)
  values ($1, $2, $3, $9, $13, $14, $15, $22)),
restricted as (
  insert into restrictions (tenant_id, principal_id, cause)
  select $1, $2, $16 where $16 <> ''
  returning since),
event as (
  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at, trace)
  select $1, $17, $18, $2, $3, $13, $14, $15, $19, now() + $20::interval, nullif($23, '') where $18 <> ''
  returning sequence)
select (select since from restricted), coalesce((select sequence from event), 0)
