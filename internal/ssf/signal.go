package ssf

import (
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
)

// Signal is a security event about a principal.
type Signal struct {
	Principal     uuid.UUID
	PrincipalType string // User, Group or Agent
	Type          string // one of [Events]
	Event         map[string]any
	Txn           string // the ID of the workflow that it belongs to; empty for none
	// Once identifies what happened, so that it is emitted once for each type.
	Once string
}

// channel is where the insert of signals notifies relays and long polls.
const channel = "leaver_signals"

// insertSQL stores the signals $2 to $7 for each stream that carries their type and their principal.
const insertSQL = `
	with stored as (
	insert into signals (tenant_id, stream_id, principal_id, principal_type, type, event, txn, once)
	select $1, s.id, g.principal_id, g.principal_type, g.type, g.event, g.txn, g.once
	  from streams s
	  join unnest($2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::text[])
	       g (principal_id, principal_type, type, event, txn, once) on g.type = any (s.events)
	 where s.tenant_id = $1 and s.status <> 'disabled' and not exists (
	   select 1 from stream_removals m where m.tenant_id = $1 and m.stream_id = s.id and m.principal_id = g.principal_id)
	on conflict (tenant_id, stream_id, once) do nothing returning 1)
	select pg_notify('` + channel + `', '') from (select 1 from stored limit 1) any_stored`

// Record returns the statement that stores signals for the streams that subscribe to their
// type. Run it in the transaction that makes the change.
func Record(tenant uuid.UUID, signals ...Signal) database.Statement {
	var principals []uuid.UUID
	var principalTypes, types, txns, onces []string
	events := make([]map[string]any, 0, len(signals))
	for _, g := range signals {
		principals, principalTypes = append(principals, g.Principal), append(principalTypes, g.PrincipalType)
		types, txns, onces = append(types, g.Type), append(txns, g.Txn), append(onces, g.Once+"/"+g.Type)
		events = append(events, g.Event)
	}
	return database.Statement{SQL: insertSQL, Args: []any{tenant, principals, principalTypes, types, events, txns, onces}}
}

// RecordCredential returns [Record], restricted to a credential that is revoked or verified.
func RecordCredential(tenant, credential uuid.UUID, signal Signal) database.Statement {
	s := Record(tenant, signal)
	s.SQL = strings.Replace(s.SQL, "where s.tenant_id = $1", `where exists (
	         select 1 from credentials i where i.tenant_id = $1 and i.id = $8 and i.state in ('revoked', 'verified'))
	   and s.tenant_id = $1`, 1)
	s.Args = append(s.Args, credential)
	return s
}

// SessionsRevoked returns the payload of a CAEP session-revoked event: a receiver ends the sessions and
// tokens of the principal at once, and does not wait for its cascade.
func SessionsRevoked(at time.Time) map[string]any {
	return caepEvent(at, "the principal was deactivated")
}

// CredentialRevoked returns the CAEP credential-change signal of an ended credential.
func CredentialRevoked(
	principal uuid.UUID, principalType, workflow string, credential uuid.UUID, kind, connector, state string,
) Signal {
	event := caepEvent(time.Now(), "ended at "+connector+", "+state)
	event["credential_type"], event["change_type"] = kind, "revoke"
	event["friendly_name"], event["credential_id"] = connector, credential
	return Signal{
		Principal: principal, PrincipalType: principalType, Type: CredentialChange, Txn: workflow,
		Once: credential.String(), Event: event,
	}
}

// ClaimsChanged returns the CAEP token-claims-change signal with the current entitlements.
func ClaimsChanged(principal uuid.UUID, principalType, workflow string, entitlements []string) Signal {
	event := caepEvent(time.Now(), "")
	event["claims"] = map[string]any{"entitlements": orEmpty(entitlements)}
	return Signal{
		Principal: principal, PrincipalType: principalType, Type: ClaimsChange, Txn: workflow,
		Once: "entitlements/" + uuid.NewString(), Event: event,
	}
}

// caepEvent returns the members common to all CAEP events (CAEP 1.0 section 2).
func caepEvent(at time.Time, reason string) map[string]any {
	event := map[string]any{"event_timestamp": at.Unix(), "initiating_entity": "policy"}
	if reason != "" {
		event["reason_admin"] = map[string]string{"en": reason}
	}
	return event
}
