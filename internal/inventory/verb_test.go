package inventory_test

import (
	"testing"

	"github.com/leaverhq/leaver/internal/inventory"
)

func TestEndVerb_ByKindAndReliance(t *testing.T) {
	alone := map[inventory.Kind]inventory.Verb{
		inventory.RefreshToken: inventory.Revoke, inventory.AccessToken: inventory.Revoke, inventory.Session: inventory.Revoke, inventory.Grant: inventory.Revoke,
		inventory.ServiceAccount: inventory.Revoke, inventory.APIKey: inventory.Revoke, inventory.ScheduledRun: inventory.Cancel,
	}
	reliedOn := map[inventory.Kind]inventory.Verb{
		inventory.RefreshToken: inventory.Revoke, inventory.AccessToken: inventory.Revoke, inventory.Session: inventory.Revoke, inventory.Grant: inventory.Revoke,
		inventory.ServiceAccount: inventory.Rotate, inventory.APIKey: inventory.Rotate, inventory.ScheduledRun: inventory.Cancel,
	}
	for _, kind := range inventory.Kinds() {
		for relied, want := range map[bool]map[inventory.Kind]inventory.Verb{false: alone, true: reliedOn} {
			if got := inventory.EndVerb(kind, relied); got != want[kind] {
				t.Errorf("%s, relied on %t: %s, want %s", kind, relied, got, want[kind])
			}
		}
	}
}
