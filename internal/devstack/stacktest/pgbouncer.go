package stacktest

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/devstack"
)

// Pgbouncer starts a pgbouncer in transaction mode, with the settings that docs/OPERATIONS.md
// names, and returns the URL of the database through it. It skips the test if pgbouncer is not
// installed.
func Pgbouncer(t testing.TB, appURL string) string {
	t.Helper()
	u, err := url.Parse(appURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sockets, port, stop, err := devstack.StartPgbouncer(ctx, query.Get("host"), query.Get("user"))
	if errors.Is(err, devstack.ErrNoPgbouncer) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	query.Set("host", sockets)
	query.Set("port", port)
	query.Set("default_query_exec_mode", "cache_describe")
	u.RawQuery = query.Encode()
	return u.String()
}
