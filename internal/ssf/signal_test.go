package ssf

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestClaimsChanged_WithoutEntitlementsIsAnEmptyList(t *testing.T) {
	signal := ClaimsChanged(uuid.New(), "User", "", nil)
	encoded, err := json.Marshal(signal.Event)
	if err != nil || !strings.Contains(string(encoded), `"claims":{"entitlements":[]}`) {
		t.Errorf("%s (%v), want an empty list of entitlements", encoded, err)
	}
}

func TestCredentialRevoked_HasTheMembersOfCAEP(t *testing.T) {
	credential := uuid.New()
	signal := CredentialRevoked(uuid.New(), "User", "leaver/x", credential, "api_key", "platform", "verified")
	for _, name := range []string{
		"event_timestamp", "initiating_entity", "reason_admin",
		"credential_type", "change_type", "friendly_name", "credential_id",
	} {
		if signal.Event[name] == nil {
			t.Errorf("the event has no %s: %+v", name, signal.Event)
		}
	}
	if signal.Once != credential.String() {
		t.Errorf("once is %s, want the credential, so that it is emitted once", signal.Once)
	}
}
