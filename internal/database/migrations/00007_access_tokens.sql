-- +goose Up
-- An issuer with the use access issues the tokens of users and agents that gateways see.
alter table issuers drop constraint issuers_uses_check;
alter table issuers add constraint issuers_uses_check check (uses <> '{}' and uses <@ array['scim', 'revocation', 'events', 'access']);
