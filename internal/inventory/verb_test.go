package inventory_test

import (
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/inventory"
)

func TestEndVerb_ByKindAndReliance(t *testing.T) {
	alone := map[connectors.Kind]inventory.Verb{
		connectors.RefreshToken: inventory.Revoke, connectors.AccessToken: inventory.Revoke, connectors.Session: inventory.Revoke, connectors.Grant: inventory.Revoke,
		connectors.ServiceAccount: inventory.Revoke, connectors.APIKey: inventory.Revoke, connectors.ScheduledRun: inventory.Cancel,
	}
	reliedOn := map[connectors.Kind]inventory.Verb{
		connectors.RefreshToken: inventory.Revoke, connectors.AccessToken: inventory.Revoke, connectors.Session: inventory.Revoke, connectors.Grant: inventory.Revoke,
		connectors.ServiceAccount: inventory.Rotate, connectors.APIKey: inventory.Rotate, connectors.ScheduledRun: inventory.Cancel,
	}
	for _, kind := range connectors.Kinds() {
		for relied, want := range map[bool]map[connectors.Kind]inventory.Verb{false: alone, true: reliedOn} {
			if got := inventory.EndVerb(kind, relied); got != want[kind] {
				t.Errorf("%s, relied on %t: %s, want %s", kind, relied, got, want[kind])
			}
		}
	}
}
