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
	// Rate is the limit in calls a second over all workers; 0 is none.
	Rate float64
	// Tenants names the tenants whose credentials live at this downstream. A
	// connector acts with rights of its own: without this list one tenant could
	// register, and so destroy, another's accounts.
	Tenants []string
}

// Registry holds the configured connectors by name.
type Registry map[string]Entry

// Accepts says why a tenant's item cannot be registered at a connector, or nil.
func (r Registry) Accepts(tenant, name string, kind inventory.Kind, hasSecret, shared bool) error {
	e, ok := r[name]
	if !ok || !slices.ContainsFunc(e.Tenants, func(t string) bool { return t == AllTenants || t == tenant }) {
		return fmt.Errorf("no connector %q is configured for this tenant", name)
	}
	if err := e.Connector.Accepts(kind, hasSecret, shared); err != nil {
		return fmt.Errorf("connector %s: %w", name, err)
	}
	return nil
}

// Notifiers returns the names of connectors that want to be told of changes.
func (r Registry) Notifiers() []string {
	var names []string
	for name, e := range r {
		if n, ok := e.Connector.(interface{ WantsNotifications() bool }); ok && n.WantsNotifications() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
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
