-- Ends the names of a principal that are not among the given ones, adds the new ones, and
-- deletes those that ended more than a day ago, when no token with them is valid.
with given as (select distinct g.* from unnest($3::text[], $4::text[], $5::text[]) g (kind, issuer, value)),
ended as (
  update principal_names n set until = now()
   where n.tenant_id = $1 and n.principal_id = $2 and n.until is null and (n.kind, n.issuer, n.value) not in (select * from given)),
deleted as (
  delete from principal_names n
   where n.tenant_id = $1 and n.principal_id = $2 and n.until < now() - interval '1 day' and (n.kind, n.issuer, n.value) not in (select * from given))
insert into principal_names (tenant_id, principal_id, kind, issuer, value)
select $1, $2, g.kind, g.issuer, g.value from given g
on conflict (tenant_id, principal_id, kind, issuer, value) do update set until = null where principal_names.until is not null
