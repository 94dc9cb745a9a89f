package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
)

// reservedFor is how long the list of reserved roles is cached: imports check each line.
const reservedFor = time.Minute

// reserved caches the roles that are never altered, with the reasons.
type reserved struct {
	mu     sync.Mutex
	roles  map[string]string
	readAt time.Time
}

const reservedSQL = `
	select rolname, reason
	  from (select r.rolname, ` + forbiddenReason + ` as reason from pg_catalog.pg_roles r) roles
	 where reason is not null`

// Reserved implements connectors.Guard. It returns a permanent error for a role that is never
// altered, and nil while the list cannot be read: the connector refuses again before it acts.
func (c *Connector) Reserved(ctx context.Context, role string) error {
	c.reserved.mu.Lock()
	defer c.reserved.mu.Unlock()
	if time.Since(c.reserved.readAt) > reservedFor {
		if roles, err := c.readReserved(ctx); err == nil {
			c.reserved.roles = roles
		}
		c.reserved.readAt = time.Now() // after a failure too: no other registration waits for the downstream
	}
	if reason, ok := c.reserved.roles[role]; ok {
		return connectors.Permanent("the role %q cannot be registered: %s", role, reason)
	}
	return nil
}

func (c *Connector) readReserved(ctx context.Context) (map[string]string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, reservedSQL)
	if err != nil {
		return nil, classify("list the reserved roles", err)
	}
	roles := make(map[string]string)
	var role, reason string
	_, err = pgx.ForEachRow(rows, []any{&role, &reason}, func() error {
		roles[role] = reason
		return nil
	})
	if err != nil {
		return nil, classify("list the reserved roles", err)
	}
	return roles, nil
}
