-- +goose Up

-- The groups carry their names along: looked up at the end, the planner would take them for
-- hundreds, read a small table whole for them, and keep that plan when it has grown.
-- +goose StatementBegin
create or replace function groups_of(tenant uuid, principal uuid) returns table (id uuid, display text, direct boolean)
    language plpgsql stable as $$
begin
    return query
    with recursive up (id, display, direct) as (
      select g.id, g.display_name, true from edges e
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null
       where e.tenant_id = tenant and e.target_id = principal and e.attribute = 'members'
      union
      select g.id, g.display_name, false from up
        join edges e on e.tenant_id = tenant and e.target_id = up.id and e.attribute = 'members'
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null)
    select up.id, coalesce(up.display, ''), bool_or(up.direct) from up where up.id <> principal group by up.id, up.display;
end $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
create or replace function groups_of(tenant uuid, principal uuid) returns table (id uuid, display text, direct boolean)
    language plpgsql stable as $$
begin
    return query
    with recursive up (id, direct) as (
      select g.id, true from edges e
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null
       where e.tenant_id = tenant and e.target_id = principal and e.attribute = 'members'
      union
      select g.id, false from up
        join edges e on e.tenant_id = tenant and e.target_id = up.id and e.attribute = 'members'
        join resources g on g.tenant_id = tenant and g.id = e.source_id and g.deleted_at is null)
    select u.id, coalesce(g.display_name, ''), u.direct
      from (select up.id, bool_or(up.direct) direct from up group by up.id) u
      join resources g on g.tenant_id = tenant and g.id = u.id
     where u.id <> principal;
end $$;
-- +goose StatementEnd
