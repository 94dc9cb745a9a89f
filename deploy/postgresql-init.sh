#!/bin/sh
# Runs once, when the volume is new: Temporal's stores belong to a role of their own, which
# is no superuser and reads nothing of leaver's.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -v password="$TEMPORAL_DATABASE_PASSWORD" <<'SQL'
create role temporal login password :'password';
create database temporal owner temporal;
create database temporal_visibility owner temporal;
revoke connect on database temporal, temporal_visibility from public;
SQL
