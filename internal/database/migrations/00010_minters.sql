-- +goose Up
-- A credential with which others are issued, such as a refresh token at an IdP: a cascade ends it first, with the
-- scheduled runs.
alter table credentials add column mints boolean not null default false;
