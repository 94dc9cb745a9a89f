-- +goose Up
-- Where an issuer answers whether a token is active (RFC 7662); empty if it does not.
alter table issuers add column introspection_url text not null default '';
