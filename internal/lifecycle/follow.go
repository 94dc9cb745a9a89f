package lifecycle

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/ssf"
)

// follow queues the invalidations and the signals of events. r is the stored resource of a
// creation or a change, nil if there are several events.
func (tx *Tx) follow(r *directory.Resource, events ...*Event) error {
	var stale []invalidation
	var signals []ssf.Signal
	for _, e := range events {
		if i, ok := invalidationBy(e); ok {
			stale = append(stale, i)
		}
		of, err := signalsOf(e, r)
		if err != nil {
			return err
		}
		signals = append(signals, of...)
	}
	tx.invalidate(stale...)
	tx.notify(signals...)
	return nil
}

// notify queues signals; it does nothing for a tenant without streams.
func (tx *Tx) notify(signals ...ssf.Signal) {
	if len(signals) > 0 && tx.hasStreams {
		tx.queue = append(tx.queue, ssf.Record(tx.tenant, signals...))
	}
}

// invalidation marks entitlements as stale: one principal's, or all if principal is the
// tenant.
type invalidation struct {
	principal uuid.UUID
	cause     uuid.UUID // the principal, the group, or the tenant, whose rules changed
}

// invalidationBy returns the invalidation of an event, if any. A leaver has none, since its
// entitlements are withdrawn, nor has a change of members only, which setEdges handles.
func invalidationBy(e *Event) (invalidation, bool) {
	switch e.Kind {
	case Joiner, Mover:
		return invalidation{e.Principal, e.Principal}, e.Trigger != TriggerEntitlement
	case TeamSync:
		return invalidation{e.Tenant, e.Principal}, !slices.Equal(e.Changed, []string{directory.EdgeMembers})
	case Leaver:
	}
	return invalidation{}, false
}

// invalidate queues invalidations, for a tenant that has rules.
func (tx *Tx) invalidate(stale ...invalidation) {
	if len(stale) == 0 || !tx.hasRules {
		return
	}
	var principals, causes []uuid.UUID
	for _, i := range stale {
		principals, causes = append(principals, i.principal), append(causes, i.cause)
	}
	tx.add(`
		insert into invalidations (tenant_id, principal_id, cause)
		select $1, i.principal_id, i.cause from unnest($2::uuid[], $3::uuid[]) i (principal_id, cause)
		 where exists (select 1 from mappings where tenant_id = $1)`, tx.tenant, principals, causes)
}

// signalsOf returns the security events of an event: those of RFC 9967, and of RISC if an
// account is enabled, disabled or purged. r is the resource of a creation. It returns an
// error for an unknown trigger.
func signalsOf(e *Event, r *directory.Resource) ([]ssf.Signal, error) {
	notice, err := e.Trigger.notice()
	if err != nil || notice == "" {
		return nil, err
	}
	switch {
	case e.Trigger == TriggerDelete && e.PrincipalType == directory.TypeGroup:
		return signals(e, nil, ssf.Delete), nil
	case e.Trigger == TriggerDelete:
		return signals(e, nil, ssf.Delete, ssf.AccountPurged, ssf.SessionRevoked), nil
	case e.Kind == Leaver:
		return signals(e, nil, ssf.Deactivate, ssf.AccountDisabled, ssf.SessionRevoked), nil
	case e.Kind == Joiner && slices.Contains(e.Changed, "active"):
		return signals(e, nil, ssf.Activate, ssf.AccountEnabled), nil
	case r != nil && r.Version == 1:
		return signals(e, attributesOf(r), ssf.CreateNotice), nil
	}
	return signals(e, e.Changed, notice), nil
}

func signals(e *Event, attributes []string, types ...string) []ssf.Signal {
	payload := map[string]any{}
	if attributes != nil {
		payload["attributes"] = attributes
	}
	made := make([]ssf.Signal, len(types))
	for i, name := range types {
		made[i] = ssf.Signal{
			Principal: e.Principal, PrincipalType: e.PrincipalType, Type: name, Event: payload,
			Txn: e.WorkflowID, Once: e.ID.String(),
		}
		if name == ssf.SessionRevoked {
			made[i].Event = ssf.SessionsRevoked(time.Now())
		}
	}
	return made
}

// attributesOf returns the names of a document's attributes, sorted.
func attributesOf(r *directory.Resource) []string {
	var document map[string]json.RawMessage
	if json.Unmarshal(r.Document, &document) != nil {
		return []string{}
	}
	return slices.Sorted(maps.Keys(document))
}

// suspendedSignals returns the signals of an agent that another principal's cascade suspends.
func suspendedSignals(agent uuid.UUID, event uuid.UUID, workflow string) []ssf.Signal {
	made := signals(&Event{ID: event, Principal: agent, PrincipalType: directory.TypeAgent, WorkflowID: workflow},
		nil, ssf.Deactivate, ssf.AccountDisabled, ssf.SessionRevoked)
	for i := range made {
		made[i].Once += "/" + agent.String() // one event suspends many agents
	}
	return made
}
