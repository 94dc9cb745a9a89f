package credential_test

import (
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

func TestEndVerb_ByKindAndReliance(t *testing.T) {
	alone := map[connectors.Kind]credential.Verb{
		connectors.RefreshToken: credential.Revoke, connectors.AccessToken: credential.Revoke,
		connectors.Session: credential.Revoke, connectors.Grant: credential.Revoke,
		connectors.ServiceAccount: credential.Revoke, connectors.APIKey: credential.Revoke,
		connectors.ScheduledRun: credential.Cancel,
	}
	reliedOn := map[connectors.Kind]credential.Verb{
		connectors.RefreshToken: credential.Revoke, connectors.AccessToken: credential.Revoke,
		connectors.Session: credential.Revoke, connectors.Grant: credential.Revoke,
		connectors.ServiceAccount: credential.Rotate, connectors.APIKey: credential.Rotate,
		connectors.ScheduledRun: credential.Cancel,
	}
	for _, kind := range connectors.Kinds() {
		for relied, want := range map[bool]map[connectors.Kind]credential.Verb{false: alone, true: reliedOn} {
			if got := credential.EndVerb(kind, relied); got != want[kind] {
				t.Errorf("EndVerb(%s, %t) = %s, want %s", kind, relied, got, want[kind])
			}
		}
	}
}
