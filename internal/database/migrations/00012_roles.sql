-- +goose Up
-- Tokens of class viewer and auditor read, as operators do.
alter table tokens drop constraint tokens_class_check;
alter table tokens add constraint tokens_class_check
    check (class in ('scim', 'platform', 'receiver', 'operator', 'approver', 'viewer', 'auditor'));
alter table tokens drop constraint tokens_check;
alter table tokens add constraint tokens_check
    check ((class in ('operator', 'approver', 'viewer', 'auditor')) = (tenant_id is null));
