package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Listen calls notified for each notification on a channel, until ctx is done or the connection is
// lost. The connection is not one of the pool's.
func (db *DB) Listen(ctx context.Context, channel string, notified func()) error {
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", channel, classify(err))
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen on %s: %w", channel, classify(err))
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("wait for notifications on %s: %w", channel, err)
		}
		notified()
	}
}
