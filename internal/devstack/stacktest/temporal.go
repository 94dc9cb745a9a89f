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

// namespace returns the package's namespace. It is created once, because
// registering a namespace takes longer than most tests.
var namespace = sync.OnceValues(newNamespace)

func newNamespace() (string, error) {
	name := "t-" + uuid.NewString()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := worker.EnsureNamespace(ctx, config.Temporal{Address: shared.TemporalAddress, Namespace: name})
	return name, err
}

// Temporal returns the configuration of the shared server with this package's namespace.
func Temporal(t testing.TB) config.Temporal { t.Helper(); return temporal(t, namespace) }

// OwnTemporal is like [Temporal] with a new namespace, for tests whose workers must not get other
// tests' tasks.
func OwnTemporal(t testing.TB) config.Temporal { t.Helper(); return temporal(t, newNamespace) }

func temporal(t testing.TB, namespace func() (string, error)) config.Temporal {
	t.Helper()
	name, err := namespace()
	if err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	return config.Temporal{Address: shared.TemporalAddress, Namespace: name}
}

// Eventually polls the condition every 10 ms until it is true, and fails the test with the text
// missing if that takes longer than timeout.
func Eventually(t testing.TB, timeout time.Duration, missing string, condition func() bool) {
	t.Helper()
	for until := time.Now().Add(timeout); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("after %s still missing: %s", timeout, missing)
}
