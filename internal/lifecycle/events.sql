-- Inserts one event for each of many principals with the same cause, and returns the sequences.
insert into lifecycle_events (tenant_id, kind, trigger, actor, changed, due_at, ends, id, sequence, principal_id, principal_type, workflow_id, trace)
select $1, $2, $3, $4, $5, now() + $6::interval, $7, e.id, coalesce(nullif(e.sequence, 0), nextval('lifecycle_sequence')), e.principal_id, e.principal_type, e.workflow_id, nullif($13, '')
  from unnest($8::uuid[], $9::bigint[], $10::uuid[], $11::text[], $12::text[]) e (id, sequence, principal_id, principal_type, workflow_id)
returning id, sequence
