-- Ends the names of a principal that are not among the given ones, adds the new ones, and
-- deletes those that ended more than 30 days ago, the greatest age of an event that means them.
-- The names of a deleted principal stay. A name that the principal has again is a new one.
with given as (
  select distinct on (g.kind, g.issuer, g.value) g.*
    from unnest($3::text[], $4::text[], $5::text[], $6::text[])
         with ordinality g (kind, issuer, value, original, position)
   order by g.kind, g.issuer, g.value, g.position),
ended as (
  update principal_names n set until = now()
   where n.tenant_id = $1 and n.principal_id = $2 and n.until is null
     and (n.kind, n.issuer, n.value) not in (select kind, issuer, value from given)),
deleted as (
  delete from principal_names n
   where n.tenant_id = $1 and n.principal_id = $2 and n.until < now() - interval '30 days'
     and (n.kind, n.issuer, n.value) not in (select kind, issuer, value from given))
insert into principal_names as n (tenant_id, principal_id, kind, issuer, value, original, position)
select $1, $2, g.kind, g.issuer, g.value, g.original, g.position from given g
on conflict (tenant_id, principal_id, kind, issuer, value) do update
  set until = null, since = case when n.until is null then n.since else now() end,
      original = excluded.original, position = excluded.position
  where n.until is not null or (n.original, n.position) is distinct from (excluded.original, excluded.position)
