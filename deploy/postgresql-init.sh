#!/bin/sh
# Runs once, when the volume is new. It creates Temporal's databases with a separate role,
# which is not a superuser and cannot read leaver's database.
set -eu
psql -v ON_ERROR_STOP=1 -U postgres -v password="$TEMPORAL_DATABASE_PASSWORD" <<'SQL'
create role temporal login password :'password';
create database temporal owner temporal;
create database temporal_visibility owner temporal;
revoke connect on database temporal, temporal_visibility from public;
SQL
