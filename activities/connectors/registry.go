package connectors

import (
	"fmt"
	"slices"

	"github.com/leaverhq/leaver/internal/inventory"
)

// AllTenants in an entry's tenants opens a connector to every tenant.
const AllTenants = "*"

// Entry is a configured connector.
type Entry struct {
	Connector Connector
	// Rate is the limit in attempts a second over all workers; 0 is none. An
	// attempt is up to three calls: probe, end, probe.
	Rate float64
	// Tenants names the tenants whose credentials live at this downstream. A
	// connector acts with rights of its own: without this list one tenant could
	// register, and so destroy, another's accounts.
	Tenants []string
}

func (e Entry) serves(tenant string) bool {
	return slices.Contains(e.Tenants, AllTenants) || slices.Contains(e.Tenants, tenant)
}

func (e Entry) notifies() bool {
	n, ok := e.Connector.(interface{ WantsNotifications() bool })
	return ok && n.WantsNotifications()
}

// Registry holds the configured connectors by name.
type Registry map[string]Entry

// Accepts says why a tenant's item cannot be registered at a connector, or nil.
func (r Registry) Accepts(tenant, name string, kind inventory.Kind, hasSecret, shared bool) error {
	e, ok := r[name]
	if !ok || !e.serves(tenant) {
		return fmt.Errorf("no connector %q is configured for this tenant", name)
	}
	if err := e.Connector.Accepts(kind, hasSecret, shared); err != nil {
		return fmt.Errorf("connector %s: %w", name, err)
	}
	return nil
}

// Notifiers returns the names of the connectors that want to be told of a
// tenant's changes.
func (r Registry) Notifiers(tenant string) []string {
	var names []string
	for name, e := range r {
		if e.notifies() && e.serves(tenant) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Notify tells whether any connector wants to be told of changes.
func (r Registry) Notify() bool {
	for _, e := range r {
		if e.notifies() {
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
