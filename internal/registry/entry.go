package registry

import (
	"context"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/activities/connectors"
)

// AllTenants in an entry's tenants makes a connector available to every tenant.
const AllTenants = "*"

// Entry is a configured connector.
type Entry struct {
	Connector connectors.Connector
	Type      string // as configured
	// Rate is the limit in attempts per second over all workers; 0 is no limit. An
	// attempt is up to three calls: probe, end, probe.
	Rate float64
	// Tenants names the tenants whose credentials are at this downstream. A connector
	// acts with its own rights: without this list, a tenant could register another
	// tenant's accounts and have them ended.
	Tenants []string
	// Drill is the tenant of drills, whose credentials are leaver's own: it does not count
	// as another tenant.
	Drill string
	// References are patterns; if there are any, an item's reference must match one. `*` is
	// any text, and `{tenant}` the name of the tenant. They define which references belong
	// to agents, and to which tenant.
	References []string
	// PublishTo names the connector that publishes new secrets to the remaining
	// holders; if empty, the connector itself does.
	PublishTo string
	// TrustLabels claims discovered credentials for the principal whose SCIM id is their
	// label; without it, an operator has to claim them.
	TrustLabels bool
	// Slots bounds the attempts that one process has in flight; nil is no bound.
	Slots chan struct{}
}

// Acquire waits for a free slot.
func (e Entry) Acquire(ctx context.Context) (release func(), err error) {
	if e.Slots == nil {
		return func() {}, nil
	}
	select {
	case e.Slots <- struct{}{}:
		return func() { <-e.Slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ServesAll reports whether the connector serves each of the tenants, which may be
// [AllTenants].
func (e Entry) ServesAll(tenants []string) bool {
	return !slices.ContainsFunc(tenants, func(t string) bool { return !e.serves(t) })
}

func (e Entry) serves(tenant string) bool {
	return slices.Contains(e.Tenants, AllTenants) || slices.Contains(e.Tenants, tenant)
}

// Covers reports whether the entry's patterns allow a reference. Without patterns, every
// reference is allowed. An empty tenant matches every name.
func (e Entry) Covers(tenant, reference string) bool {
	return len(e.References) == 0 || slices.ContainsFunc(
		e.References, func(p string) bool { return matches(p, tenant, reference) },
	)
}

// ownNames reports whether a pattern with the tenant's name in it allows the reference.
func (e Entry) ownNames(tenant, reference string) bool {
	return slices.ContainsFunc(e.References, func(p string) bool {
		return strings.Contains(p, tenantPlaceholder) && matches(p, tenant, reference)
	})
}

func (e Entry) rotates() bool {
	_, ok := connectors.As[connectors.Rotator](e.Connector)
	return ok
}

func (e Entry) notifies() bool {
	_, ok := connectors.As[connectors.Notifier](e.Connector)
	return ok
}

func capabilities(c connectors.Connector) []string {
	can := []string{}
	add := func(name string, ok bool) {
		if ok {
			can = append(can, name)
		}
	}
	_, revokes := connectors.As[connectors.Revoker](c)
	_, rotates := connectors.As[connectors.Rotator](c)
	_, cancels := connectors.As[connectors.Canceller](c)
	_, verifies := connectors.As[connectors.Verifier](c)
	_, blocks := connectors.As[connectors.Blocker](c)
	_, lists := connectors.As[connectors.Discoverer](c)
	_, publishes := connectors.As[connectors.Publisher](c)
	_, issues := connectors.As[connectors.Issuer](c)
	add("revoke", revokes)
	add("rotate", rotates)
	add("cancel", cancels)
	add("verify", verifies)
	add("block", blocks)
	add("discover", lists)
	add("publish", publishes)
	add("drill", issues)
	return can
}
