-- Updates a resource, whose row is locked, and inserts its audit row. It also stores the
-- restriction if $16 is set, deletes it if $25 is true, and inserts the event if $18 is set.
with saved as (
  update resources set unique_name = nullif($4, ''), display_name = nullif($5, ''), external_id = nullif($6, ''), active = $7, valid_until = $8,
         version = $9, document = $10, folded = coalesce($21, folded), extensions = $11, modified_at = $12::timestamptz, deleted_at = case when $24 then $12::timestamptz end
   where tenant_id = $1 and id = $2),
audited as (
  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed, ignored)
  values ($1, $2, $3, $9, $13, $14, $15, $22)),
restricted as (
  insert into restrictions (tenant_id, principal_id, cause, event_id)
  select $1, $2, $16, case when $18 <> '' then $17::uuid end where $16 <> ''
  on conflict (tenant_id, principal_id) do update
     set cause = excluded.cause, event_id = coalesce(excluded.event_id, restrictions.event_id)
  returning since),
lifted as (
  delete from restrictions where $25 and tenant_id = $1 and principal_id = $2),
event as (
  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at, trace)
  select $1, $17, $18, $2, $3, $13, $14, $15, $19, now() + $20::interval, nullif($23, '') where $18 <> ''
  returning sequence)
select (select since from restricted), coalesce((select sequence from event), 0)
