package stacktest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/worker"
)

// namespace is made once for each package: registering one takes longer than
// most tests.
var namespace = sync.OnceValues(newNamespace)

func newNamespace() (string, error) {
	name := "t-" + uuid.NewString()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := worker.EnsureNamespace(ctx, config.Temporal{Address: shared.TemporalAddress, Namespace: name})
	return name, err
}

// Temporal returns how to reach the shared server, in this package's namespace.
func Temporal(t testing.TB) config.Temporal { return temporal(t, namespace) }

// OwnTemporal is [Temporal] in a namespace of the test's own: for tests whose workers
// run beside others'.
func OwnTemporal(t testing.TB) config.Temporal { return temporal(t, newNamespace) }

func temporal(t testing.TB, namespace func() (string, error)) config.Temporal {
	t.Helper()
	name, err := namespace()
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	return config.Temporal{Address: shared.TemporalAddress, Namespace: name}
}

// Eventually waits for a condition, and fails the test with what is missing.
func Eventually(t testing.TB, patience time.Duration, missing string, condition func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("after %s still missing: %s", patience, missing)
}
