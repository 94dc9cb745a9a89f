-- +goose Up
-- The span of the request that caused the event, as a traceparent (W3C Trace Context).
alter table lifecycle_events add column trace text check (length(trace) <= 64);
