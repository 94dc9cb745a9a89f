package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	leaver "github.com/leaverhq/leaver/docs/examples/go"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
)

// polling returns the poll URL of a new stream and the receiver's token.
func (i *installation) polling() (url, token string) {
	i.t.Helper()
	token = i.token(i.tenant.ID, auth.ClassReceiver)
	i.runsUntilTheEnd(func(ctx context.Context) { i.app.Signals.Listen(ctx, i.app.Log) })
	stream := i.must("POST", "/ssf/v1/streams", token, fmt.Sprintf(`{"events_requested":[%q]}`, ssf.SessionRevoked))
	return stream["delivery"].(map[string]any)["endpoint_url"].(string), token
}

// person provisions a user with an agent, and returns the user's id.
func (i *installation) person(name string) string {
	i.t.Helper()
	id := i.must("POST", "/scim/v2/Users", i.scim,
		fmt.Sprintf(`{"userName":%q,"externalId":%q,"active":true}`, name+"@example.com", name))["id"].(string)
	i.clientOf("agent-of-"+name, id, "shared-client", "")
	return id
}

// TestExample_GoMiddleware calls through the middleware of docs/examples/go before and after a
// deactivation, while permits are remembered for a minute.
func TestExample_GoMiddleware(t *testing.T) {
	i := installAPI(t)
	events, token := i.polling()
	guard := &leaver.Guard{
		URL: i.url, Token: i.gateway(ownIssuer), Events: events, EventToken: token, Remember: time.Minute,
		Identify: func(r *http.Request) (sub, client, action, kind, id string) {
			return r.Header.Get("Sub"), "shared-client", "tools/call", "tool", "crm_search"
		},
	}
	i.runsUntilTheEnd(guard.Listen)
	calls := httptest.NewServer(guard.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "done")
	})))
	t.Cleanup(calls.Close)
	call := func(sub string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, calls.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Sub", sub)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	ada := i.person("ada")
	i.person("bob")
	for range 3 {
		if status := call("ada"); status != http.StatusOK {
			t.Fatalf("a call of an active user answered %d, want 200", status)
		}
	}
	i.deactivate(ada)
	stacktest.Eventually(t, 10*time.Second, "the denial", func() bool { return call("ada") == http.StatusForbidden })
	if status := call("bob"); status != http.StatusOK {
		t.Errorf("another user's call answered %d, want 200", status)
	}
	if status := call("nobody"); status != http.StatusForbidden {
		t.Errorf("an unknown user's call answered %d, want 403", status)
	}
	guard.URL = "http://127.0.0.1:1"
	if status := call("cyd"); status != http.StatusServiceUnavailable {
		t.Errorf("a call without leaver answered %d, want 503", status)
	}
}

// TestExample_TypeScriptMiddleware runs docs/examples/typescript in Node.js, which runs TypeScript since
// version 22.18: NODE names another program than node.
func TestExample_TypeScriptMiddleware(t *testing.T) {
	node := os.Getenv("NODE")
	if node == "" {
		node = "node"
	}
	if exec.CommandContext(t.Context(), node, "-e", "if (!process.features.typescript) process.exit(1)").Run() != nil {
		t.Skip("Node.js 22.18 or later is not installed: set NODE to its path")
	}
	i := installAPI(t)
	events, token := i.polling()
	process := exec.CommandContext(t.Context(), node, "../../docs/examples/typescript/try.ts", i.url, i.gateway(ownIssuer), events, token)
	in, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = process.Wait() })
	answers := bufio.NewScanner(out)
	call := func(sub string) string {
		line, err := json.Marshal(map[string]any{
			"sub": sub, "client": "shared-client", "action": "tools/call",
			"resource": map[string]string{"type": "tool", "id": "crm_search"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Write(append(line, '\n')); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() {
			t.Fatalf("the program ended: %v", answers.Err())
		}
		return answers.Text()
	}
	ada := i.person("ada")
	i.person("bob")
	for range 3 {
		if got := call("ada"); got != "permitted" {
			t.Fatalf("a call of an active user is %s, want permitted", got)
		}
	}
	i.deactivate(ada)
	stacktest.Eventually(t, 10*time.Second, "the denial", func() bool { return call("ada") == "denied" })
	if got := call("bob"); got != "permitted" {
		t.Errorf("another user's call is %s, want permitted", got)
	}
}
