package scim

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
)

func TestBodies_StalledTenantDoesNotBlockOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBodies()
		stalling, other := uuid.New(), uuid.New()
		request, answered := context.WithCancel(t.Context())
		if err := b.take(request, stalling); err != nil {
			t.Fatal(err)
		}
		if err := b.take(t.Context(), stalling); toError(err).Status != 503 {
			t.Errorf("a second request of the tenant: %v, want 503", err)
		}
		if err := b.take(t.Context(), other); err != nil {
			t.Errorf("a request of another tenant: %v", err)
		}
		answered()
		synctest.Wait()
		if err := b.take(t.Context(), stalling); err != nil {
			t.Errorf("after the first was answered: %v", err)
		}
	})
}
