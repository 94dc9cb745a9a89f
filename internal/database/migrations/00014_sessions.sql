-- +goose Up
-- A session of the console is a token that is valid while the token it was opened with is valid.
alter table tokens add column session_of uuid references tokens;
create index tokens_session on tokens (session_of) where session_of is not null;

-- Links that open one session each.
create table sign_ins (
    hash       bytea primary key check (length(hash) = 32),
    token_id   uuid not null references tokens,
    expires_at timestamptz not null
);
alter table sign_ins enable row level security;
create policy installation on sign_ins using (leaver_tenant() is null);
grant select, insert, delete on sign_ins to leaver_app;

-- For zero_health.
create index lifecycle_events_zero on lifecycle_events (closed_at) where kind = 'leaver' and outcome = 'completed';
