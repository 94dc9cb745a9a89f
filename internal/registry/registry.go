// Package registry holds the configured connectors: which tenants each serves, its limits,
// and what it can do.
package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// severalTenants reports whether a connector's downstream serves several tenants, through
// one entry or several.
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

// sameDownstream reports whether two entries administer the same system, such as one
// PostgreSQL cluster. A registration at one of them reaches the accounts of both.
func sameDownstream(a, b Entry) bool {
	if a.Connector == b.Connector {
		return true
	}
	one, ok := a.Connector.(connectors.Located)
	other, same := b.Connector.(connectors.Located)
	return ok && same && a.Type == b.Type && one.Downstream() == other.Downstream()
}

// Registry holds the configured connectors by name.
type Registry map[string]Entry

// Overlaps returns a text for each two connectors of one tenant at the same downstream, one of which rotates accounts.
// An account that is registered at both counts as two: its end at one does not spare the holder at the other.
func (r Registry) Overlaps() (texts []string) {
	names := slices.Sorted(maps.Keys(r))
	for i, one := range names {
		for _, other := range names[i+1:] {
			a, b := r[one], r[other]
			shared := slices.ContainsFunc(a.Tenants, b.serves) || slices.ContainsFunc(b.Tenants, a.serves)
			if !a.rotates() && !b.rotates() || !shared || !sameDownstream(a, b) {
				continue
			}
			texts = append(texts, fmt.Sprintf("the connectors %s and %s serve a tenant at the same downstream: register an "+
				"account at one of them only, or give each references of its own", one, other))
		}
	}
	return texts
}

// Accepts returns the canonical spelling of a registration's reference, or an error if the
// tenant cannot register the item at the connector.
func (r Registry) Accepts(tenant, name string, item connectors.Registration) (reference string, err error) {
	e, ok := r[name]
	if !ok || !e.serves(tenant) {
		return "", fmt.Errorf("no connector %q is configured for this tenant", name)
	}
	if reference, err = e.Connector.Accepts(item); err != nil {
		return "", fmt.Errorf("connector %s: %w", name, err)
	}
	if !e.Covers(tenant, reference) {
		return "", fmt.Errorf("connector %s: the reference %q matches none of the connector's references patterns %q: "+
			"correct the reference, or the patterns in leaver.yaml", name, reference, e.References)
	}
	if item.Shared && !r.publishes(e, tenant) {
		return "", fmt.Errorf("connector %s: the account is shared, and no connector publishes its new secret after a "+
			"rotation: set publish_to to a connector that serves this tenant", name)
	}
	return reference, nil
}

// proofTimeout bounds the time that a registration waits for a downstream.
const proofTimeout = 10 * time.Second

// Prove returns an error if the account is reserved, or if the connector serves several
// tenants and the item is not proven to belong to the registrant's tenant. Proof is a
// `references` pattern that contains the tenant's name, or [Possession].
// Errors: [credential.ErrReserved], [credential.ErrNotProven], [credential.ErrNotAsked].
func (r Registry) Prove(ctx context.Context, tenant uuid.UUID, tenantName string, n credential.New) error {
	e := r[n.Connector]
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	if guard, ok := connectors.As[connectors.Guard](e.Connector); ok {
		if err := guard.Reserved(ctx, n.Reference); err != nil {
			return fmt.Errorf("%w: connector %s: %w", credential.ErrReserved, n.Connector, err)
		}
	}
	if !r.severalTenants(e) || e.ownNames(tenantName, n.Reference) {
		return nil
	}
	possession, ok := connectors.As[connectors.Possession](e.Connector)
	if !ok {
		return fmt.Errorf("%w: connector %s serves several tenants and cannot check which tenant owns %q: "+
			"set `references` with {tenant}, or configure a separate downstream for each tenant",
			credential.ErrNotProven, n.Connector, n.Reference)
	}
	release, err := e.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%w: connector %s has no free slot: try again", credential.ErrNotAsked, n.Connector)
	}
	defer release()
	vitality, detail, err := possession.Possesses(ctx, targetOf(tenant, n))
	switch {
	case connectors.IsPermanent(err):
		return fmt.Errorf("%w: connector %s: %w", credential.ErrNotProven, n.Connector, err)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", credential.ErrNotAsked, n.Connector, err)
	case vitality != connectors.Alive:
		return fmt.Errorf("%w: connector %s serves several tenants and did not confirm that %q belongs to this "+
			"tenant: %s", credential.ErrNotProven, n.Connector, n.Reference, detail)
	}
	return nil
}

// Probe probes whether an item is alive, before it is registered. It returns Unknown if the
// connector has no probe.
func (r Registry) Probe(ctx context.Context, tenant uuid.UUID, n credential.New) (vitality, detail string, err error) {
	e := r[n.Connector]
	verifier, ok := connectors.As[connectors.Verifier](e.Connector)
	if !ok {
		return string(connectors.Unknown), "the connector has no probe", nil
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	release, err := e.Acquire(ctx)
	if err != nil {
		return string(connectors.Unknown), "", fmt.Errorf("connector %s has no free slot: try again", n.Connector)
	}
	defer release()
	seen, detail, err := verifier.Probe(ctx, targetOf(tenant, n))
	if err != nil {
		return string(connectors.Unknown), "", fmt.Errorf("connector %s: %w", n.Connector, err)
	}
	return string(seen), detail, nil
}

// targetOf returns the target of an item that is not registered yet.
func targetOf(tenant uuid.UUID, n credential.New) connectors.Target {
	target := connectors.Target{
		Tenant: tenant, Principal: n.Principal, Kind: n.Kind, Reference: n.Reference, Account: n.Reference, Secret: n.Secret,
		ExpiresAt: n.ExpiresAt,
	}
	if n.Agent != nil {
		target.Agent = *n.Agent
	}
	return target
}

// publishes reports whether the new secrets of a connector can be published to the
// remaining holders of a tenant.
func (r Registry) publishes(e Entry, tenant string) bool {
	if e.PublishTo != "" {
		e = r[e.PublishTo]
	}
	_, ok := connectors.As[connectors.Publisher](e.Connector)
	return ok && e.serves(tenant)
}

// Discoverers returns the names of the connectors that can list the credentials of a
// tenant's principals.
func (r Registry) Discoverers(tenant string) []string {
	return r.names(tenant,
		func(e Entry) bool { _, ok := connectors.As[connectors.Discoverer](e.Connector); return ok })
}

// Issuers returns the names of the connectors that can issue a credential for a drill and
// name the drill tenant in their tenants. [AllTenants] is not enough.
func (r Registry) Issuers(tenant string) []string {
	return r.names(tenant, func(e Entry) bool {
		_, ok := connectors.As[connectors.Issuer](e.Connector)
		return ok && slices.Contains(e.Tenants, tenant)
	})
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

// Notifiers returns the names of the connectors that are notified of a tenant's changes.
func (r Registry) Notifiers(tenant string) []string {
	return r.names(tenant, Entry.notifies)
}

// Describe returns the configuration and the capabilities of each connector, sorted by name.
func (r Registry) Describe() []Description {
	described := make([]Description, 0, len(r))
	for _, name := range slices.Sorted(maps.Keys(r)) {
		e := r[name]
		described = append(described, Description{
			Name: name, Type: e.Type, Rate: e.Rate, Tenants: e.Tenants, PublishTo: e.PublishTo,
			Capabilities: capabilities(e.Connector),
		})
	}
	return described
}

// Verifies reports whether a connector has a probe for items of a kind, with or without a
// secret.
func (r Registry) Verifies(name string, kind connectors.Kind, hasSecret bool) bool {
	c := r[name].Connector
	if _, ok := connectors.As[connectors.Verifier](c); !ok {
		return false
	}
	v, ok := c.(connectors.OptionalVerifier)
	return !ok || v.CanVerify(kind, hasSecret)
}

// Mints reports whether other credentials are issued with those of a connector.
func (r Registry) Mints(name string) bool {
	minter, ok := r[name].Connector.(connectors.Minter)
	return ok && minter.Mints()
}

// Rated returns the names of the rate-limited connectors.
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

// NeedsTenant reports whether any connector discovers or is notified: workflows need the tenant's
// name to choose those.
func (r Registry) NeedsTenant() bool {
	for _, e := range r {
		_, discovers := connectors.As[connectors.Discoverer](e.Connector)
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
