package connectors

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/inventory"
)

// AllTenants in an entry's tenants opens a connector to every tenant.
const AllTenants = "*"

// Entry is a configured connector.
type Entry struct {
	Connector Connector
	Type      string // as the configuration has it
	// Rate is the limit in attempts a second over all workers; 0 is none. An
	// attempt is up to three calls: probe, end, probe.
	Rate float64
	// Tenants names the tenants whose credentials live at this downstream. A
	// connector acts with rights of its own: without this list one tenant could
	// register, and so destroy, another's accounts.
	Tenants []string
	// Drill is the tenant of drills, whose credentials are leaver's own: it does not count
	// as another tenant.
	Drill string
	// References are patterns of which an item's reference matches one, if there are any:
	// `*` is any text, and `{tenant}` the name of the tenant. They say what at the
	// downstream is the agents', and which tenant's.
	References []string
	// PublishTo names the connector that hands new secrets to the remaining
	// holders; empty is the connector itself.
	PublishTo string
	// TrustLabels binds what the downstream labels with a principal's SCIM id by
	// itself; otherwise an operator does.
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

// ServesAll tells whether the connector serves each of the tenants, which may be
// [AllTenants].
func (e Entry) ServesAll(tenants []string) bool {
	return !slices.ContainsFunc(tenants, func(t string) bool { return !e.serves(t) })
}

func (e Entry) serves(tenant string) bool {
	return slices.Contains(e.Tenants, AllTenants) || slices.Contains(e.Tenants, tenant)
}

// severalTenants reports whether a connector's downstream serves several tenants, by one
// entry or by several.
func (r Registry) severalTenants(e Entry) bool {
	tenants := make(map[string]bool)
	for _, o := range append(slices.Collect(maps.Values(r)), e) {
		if !sameDownstream(e, o) {
			continue
		}
		for _, t := range o.Tenants {
			tenants[t] = true
		}
	}
	if e.Drill != "" {
		delete(tenants, e.Drill)
	}
	return len(tenants) > 1 || tenants[AllTenants]
}

// sameDownstream reports whether two entries act at one system, such as one PostgreSQL
// cluster. A registration at one of them reaches the accounts of both.
func sameDownstream(a, b Entry) bool {
	type placed interface{ Downstream() string }
	if a.Connector == b.Connector {
		return true
	}
	one, ok := a.Connector.(placed)
	other, same := b.Connector.(placed)
	return ok && same && a.Type == b.Type && one.Downstream() == other.Downstream()
}

// Covers reports whether the entry's patterns allow a reference; without patterns any is.
// An empty tenant stands for every name.
func (e Entry) Covers(tenant, reference string) bool {
	return len(e.References) == 0 || slices.ContainsFunc(e.References, func(p string) bool { return matches(p, tenant, reference) })
}

// ownNames reports whether a pattern with the tenant's name in it allows the reference.
func (e Entry) ownNames(tenant, reference string) bool {
	return slices.ContainsFunc(e.References, func(p string) bool {
		return strings.Contains(p, tenantPlaceholder) && matches(p, tenant, reference)
	})
}

func (e Entry) notifies() bool {
	n, ok := e.Connector.(interface{ WantsNotifications() bool })
	return ok && n.WantsNotifications()
}

// Registry holds the configured connectors by name.
type Registry map[string]Entry

// Accepts returns the canonical spelling of a registration's reference, or says why a
// tenant's item cannot be registered at a connector.
func (r Registry) Accepts(tenant, name string, item inventory.Registration) (reference string, err error) {
	e, ok := r[name]
	if !ok || !e.serves(tenant) {
		return "", fmt.Errorf("no connector %q is configured for this tenant", name)
	}
	if reference, err = e.Connector.Accepts(item); err != nil {
		return "", fmt.Errorf("connector %s: %w", name, err)
	}
	if !e.Covers(tenant, reference) {
		return "", fmt.Errorf("connector %s: the reference %q matches none of the connector's patterns %q", name, reference, e.References)
	}
	if item.Shared && !r.publishes(e, tenant) {
		return "", fmt.Errorf("connector %s: the account is shared, and no connector publishes its new secret after a rotation: set publish_to to a connector that serves this tenant", name)
	}
	return reference, nil
}

// proofTimeout bounds how long a registration waits for a downstream.
const proofTimeout = 10 * time.Second

// Prove returns an error if the account is reserved, or if a connector serves several tenants
// and the item is not proven to belong to the registrant's tenant. Proof is a `references` pattern that contains the tenant's
// name, or [Possession].
// Errors: [inventory.ErrReserved], [inventory.ErrNotProven], [inventory.ErrNotAsked].
func (r Registry) Prove(ctx context.Context, tenant uuid.UUID, tenantName string, n inventory.New) error {
	e := r[n.Connector]
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	if guard, ok := e.Connector.(Guard); ok {
		if err := guard.Reserved(ctx, n.Reference); err != nil {
			return fmt.Errorf("%w: connector %s: %w", inventory.ErrReserved, n.Connector, err)
		}
	}
	if !r.severalTenants(e) || e.ownNames(tenantName, n.Reference) {
		return nil
	}
	possession, ok := e.Connector.(Possession)
	if !ok {
		return fmt.Errorf("%w: connector %s serves several tenants and cannot check which tenant owns %q: set `references` with {tenant}, or a downstream of its own for each tenant",
			inventory.ErrNotProven, n.Connector, n.Reference)
	}
	release, err := e.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: connector %s has no free slot", inventory.ErrNotAsked, n.Connector)
	}
	defer release()
	vitality, detail, err := possession.Possesses(ctx, targetOf(tenant, n))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", inventory.ErrNotAsked, n.Connector, err)
	case vitality != Alive:
		return fmt.Errorf("%w: connector %s serves several tenants and did not confirm that %q belongs to this tenant: %s", inventory.ErrNotProven, n.Connector, n.Reference, detail)
	}
	return nil
}

// Look asks the downstream whether an item is alive, before it is registered. Unknown stands
// for a connector without a probe.
func (r Registry) Look(ctx context.Context, tenant uuid.UUID, n inventory.New) (vitality, detail string, err error) {
	e := r[n.Connector]
	verifier, ok := e.Connector.(Verifier)
	if !ok {
		return string(Unknown), "the connector has no probe", nil
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	release, err := e.Acquire(ctx)
	if err != nil {
		return string(Unknown), "", fmt.Errorf("connector %s has no free slot: try again", n.Connector)
	}
	defer release()
	seen, detail, err := verifier.Probe(ctx, targetOf(tenant, n))
	if err != nil {
		return string(Unknown), "", fmt.Errorf("connector %s: %w", n.Connector, err)
	}
	return string(seen), detail, nil
}

// targetOf returns the target of an item that is not registered yet.
func targetOf(tenant uuid.UUID, n inventory.New) Target {
	target := Target{Tenant: tenant, Principal: n.Principal, Kind: n.Kind, Reference: n.Reference, Account: n.Reference, Secret: n.Secret, ExpiresAt: n.ExpiresAt}
	if n.Agent != nil {
		target.Agent = *n.Agent
	}
	return target
}

// publishes tells whether a connector's new secrets reach those of a tenant who go on.
func (r Registry) publishes(e Entry, tenant string) bool {
	if e.PublishTo != "" {
		e = r[e.PublishTo]
	}
	_, ok := e.Connector.(Publisher)
	return ok && e.serves(tenant)
}

// Discoverers returns the names of the connectors that can list what a tenant's
// principals hold.
func (r Registry) Discoverers(tenant string) []string {
	return r.names(tenant, func(e Entry) bool { _, ok := e.Connector.(Discoverer); return ok && discovers(e.Connector) })
}

// Issuers returns the names of the connectors that can give a drill a credential,
// and allow it by naming the drill's tenant: that of all tenants is not enough.
func (r Registry) Issuers(tenant string) []string {
	return r.names(tenant, func(e Entry) bool {
		_, ok := e.Connector.(Issuer)
		return ok && slices.Contains(e.Tenants, tenant)
	})
}

// discovers: a connector may be able to list only where it is configured to.
func discovers(c Connector) bool {
	d, ok := c.(interface{ CanDiscover() bool })
	return !ok || d.CanDiscover()
}

func (r Registry) names(tenant string, has func(Entry) bool) []string {
	var names []string
	for name, e := range r {
		if e.serves(tenant) && has(e) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Notifiers returns the names of the connectors that want to be told of a
// tenant's changes.
func (r Registry) Notifiers(tenant string) []string {
	return r.names(tenant, Entry.notifies)
}

// Describe tells of each connector what it is and can do, by name.
func (r Registry) Describe() []inventory.Connector {
	described := make([]inventory.Connector, 0, len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		e := r[name]
		described = append(described, inventory.Connector{
			Name: name, Type: e.Type, Rate: e.Rate, Tenants: e.Tenants, PublishTo: e.PublishTo, Capabilities: capabilities(e.Connector),
		})
	}
	return described
}

func capabilities(c Connector) []string {
	can := []string{}
	add := func(name string, ok bool) {
		if ok {
			can = append(can, name)
		}
	}
	_, revokes := c.(Revoker)
	_, rotates := c.(Rotator)
	_, cancels := c.(Canceller)
	_, verifies := c.(Verifier)
	_, blocks := c.(Blocker)
	_, lists := c.(Discoverer)
	_, publishes := c.(Publisher)
	_, issues := c.(Issuer)
	add("revoke", revokes)
	add("rotate", rotates)
	add("cancel", cancels)
	add("verify", verifies)
	add("block", blocks)
	add("discover", lists && discovers(c))
	add("publish", publishes)
	add("drill", issues)
	return can
}

// Verifies tells whether a connector has a probe for an item, before any is made.
func (r Registry) Verifies(name string, kind inventory.Kind, hasSecret bool) bool {
	c := r[name].Connector
	if _, ok := c.(Verifier); !ok {
		return false
	}
	v, ok := c.(interface {
		CanVerify(kind inventory.Kind, hasSecret bool) bool
	})
	return !ok || v.CanVerify(kind, hasSecret)
}

// Rated returns the names of the connectors that have a rate.
func (r Registry) Rated() []string {
	var names []string
	for name, e := range r {
		if e.Rate > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Ask tells whether any connector has a part of its own in workflows, so that
// the tenant has to be known.
func (r Registry) Ask() bool {
	for _, e := range r {
		_, discovers := e.Connector.(Discoverer)
		if discovers || e.notifies() {
			return true
		}
	}
	return false
}

// Close closes all connectors.
func (r Registry) Close() {
	for _, e := range r {
		e.Connector.Close()
	}
}

// TaskQueue is the Temporal task queue of a connector's activities: one each,
// so that its rate holds across workers and its slowness delays no other (I10).
func TaskQueue(connector string) string { return "leaver-connector-" + connector }
