package scim_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
)

// TestNames_HoldNoControls checks that names cannot contain control characters, because
// operators read names in terminals, logs and reports.
func TestNames_HoldNoControls(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for name, character := range map[string]string{
		"escape": `\u001b]0;pwned\u0007`, "newline": `\n`, "delete": `\u007f`, "a C1 control": `\u009b2K`, "an override": `\u202e`, "an isolate": `\u2066`, "a line separator": `\u2028`,
	} {
		for attribute, body := range map[string]string{
			"userName":    `{"userName":"x%sy"}`,
			"displayName": `{"userName":"u","displayName":"x%sy"}`,
			"familyName":  `{"userName":"u","name":{"familyName":"x%sy"}}`,
		} {
			if a := p.do("POST", "/Users", fmt.Sprintf(body, character)); a.status != http.StatusBadRequest || a.body["scimType"] != "invalidValue" {
				t.Errorf("%s in %s: %d %s", name, attribute, a.status, a.raw)
			}
		}
		for attribute, body := range map[string]string{
			"subject":  `{"agentUserName":"a","subject":"x%sy"}`,
			"clientId": `{"agentUserName":"a","oAuthClientIdentifiers":[{"clientId":"x%sy"}]}`,
		} {
			if a := p.do("POST", "/Agents", fmt.Sprintf(body, character)); a.status != http.StatusBadRequest {
				t.Errorf("%s in an agent's %s: %d %s", name, attribute, a.status, a.raw)
			}
		}
		if a := p.do("POST", "/Groups", fmt.Sprintf(`{"displayName":"x%sy"}`, character)); a.status != http.StatusBadRequest {
			t.Errorf("%s in a group's name: %d", name, a.status)
		}
	}
	for name, text := range map[string]string{"right to left": `\u200fעדה`, "an emoji with a joiner": `👩\u200d💻`, "a soft hyphen": `a\u00adb`} {
		if a := p.do("POST", "/Users", fmt.Sprintf(`{"userName":%q,"displayName":"%s"}`, name, text)); a.status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	// An address is not a name: it may have several lines.
	if a := p.do("POST", "/Users", `{"userName":"lines","addresses":[{"type":"work","formatted":"100 Main St\nTown"}]}`); a.status != http.StatusCreated {
		t.Errorf("an address of two lines: %d %s", a.status, a.raw)
	}
}
