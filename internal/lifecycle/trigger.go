package lifecycle

import (
	"fmt"

	"github.com/leaverhq/leaver/internal/ssf"
)

// Trigger is what caused a change.
type Trigger string

// The triggers.
const (
	TriggerPost   Trigger = "scim-post"
	TriggerPut    Trigger = "scim-put"
	TriggerPatch  Trigger = "scim-patch"
	TriggerDelete Trigger = "scim-delete"

	TriggerOperator   Trigger = "operator"                // a request of an operator
	TriggerRevocation Trigger = "global-token-revocation" // a request of an identity provider
	TriggerSignal     Trigger = "security-event"          // an event of a transmitter
	TriggerExpired    Trigger = "validity-expired"        // an agent's validity ended
	TriggerDrill      Trigger = "drill"                   // a self-test of leaver

	// TriggerOrphaned: an agent lost its last active owner by a change of its owners, or
	// of a group that owns it. (An agent whose owner leaves ends in the owner's cascade.)
	TriggerOrphaned Trigger = "orphaned"
	// TriggerHandedOver: an agent was handed over to the manager of its last owner, who left.
	TriggerHandedOver Trigger = "handed-over"

	// TriggerClaimed: an operator claimed an unmanaged credential for a principal that has left.
	TriggerClaimed Trigger = "claimed"
	// TriggerReconcile: the reconciler found a live credential of a restricted principal.
	TriggerReconcile Trigger = "reconcile"
	// TriggerEntitlement: a principal lost an entitlement by a change of a group or of the rules.
	TriggerEntitlement Trigger = "entitlement-lost"
	// TriggerMapping: a tenant's rules changed.
	TriggerMapping Trigger = "mapping"
)

// Triggers lists all triggers.
func Triggers() []Trigger {
	return []Trigger{
		TriggerPost, TriggerPut, TriggerPatch, TriggerDelete, TriggerOperator, TriggerRevocation, TriggerSignal,
		TriggerExpired, TriggerDrill,
		TriggerOrphaned, TriggerHandedOver, TriggerClaimed, TriggerReconcile, TriggerEntitlement, TriggerMapping,
	}
}

// notice returns the event of RFC 9967 that notifies receivers of changed attributes. It is
// empty for a trigger that changes no resource.
func (t Trigger) notice() (string, error) {
	switch t {
	case TriggerPost:
		return ssf.CreateNotice, nil
	case TriggerPut:
		return ssf.PutNotice, nil
	case TriggerPatch, TriggerDelete, TriggerOperator, TriggerRevocation, TriggerSignal, TriggerExpired,
		TriggerDrill, TriggerOrphaned, TriggerHandedOver:
		return ssf.PatchNotice, nil
	case TriggerClaimed, TriggerReconcile, TriggerEntitlement, TriggerMapping:
		return "", nil
	}
	return "", fmt.Errorf("unknown trigger %q", t)
}

// Request returns the SCIM method of the trigger and its response status (RFC 9967 section
// 2.5.1). Triggers other than SCIM requests return PATCH and 200.
func (t Trigger) Request() (method, status string) {
	switch t {
	case TriggerPost:
		return "POST", "201"
	case TriggerPut:
		return "PUT", "200"
	case TriggerDelete:
		return "DELETE", "204"
	default:
		return "PATCH", "200"
	}
}
