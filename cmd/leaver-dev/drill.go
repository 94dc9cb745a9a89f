package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// drill takes one person from her first day to after her last.
type drill struct {
	*console
	*installation
	peers     *downstreams
	ui        string
	namespace string

	ada     string   // SCIM id
	agents  []string // SCIM ids
	held    []*holding
	cascade lifecycle.Cascade
	left    time.Time // when the deactivation was sent
}

// holding is something that an agent of Ada's holds, and how to use it.
type holding struct {
	what  string
	where string
	id    string // in the inventory
	// use says nil when it works.
	use func(context.Context) error
	// dead says why it no longer works, or an error where it still does.
	dead func(context.Context) (string, error)

	proof string
	alive bool
}

const drillPatience = 2 * time.Minute

func (d *drill) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.join, d.collect, d.proveAlive, d.leave, d.follow, d.proveDead,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return d.report(ctx)
}

// join provisions Ada as Okta does: look, create; then two agents of hers.
func (d *drill) join(ctx context.Context) error {
	d.say("Ada joins, as Okta provisions her, with two agents of hers.")
	name := "ada.lovelace@example.com"
	var list struct {
		Total int `json:"totalResults"`
	}
	query := url.Values{"filter": {`userName eq "` + name + `"`}, "startIndex": {"1"}, "count": {"100"}}
	if err := d.call(ctx, http.MethodGet, "/scim/v2/Users?"+query.Encode(), d.scim, nil, &list); err != nil {
		return err
	}
	user := map[string]any{
		"schemas":  []string{"urn:ietf:params:scim:schemas:core:2.0:User"},
		"userName": name, "name": map[string]string{"givenName": "Ada", "familyName": "Lovelace"},
		"emails":      []map[string]any{{"primary": true, "value": name, "type": "work"}},
		"displayName": "Ada Lovelace", "locale": "en-US", "externalId": "00u1ada", "groups": []any{}, "password": "1mz050nq", "active": true,
	}
	var created struct {
		ID string `json:"id"`
	}
	if err := d.call(ctx, http.MethodPost, "/scim/v2/Users", d.scim, user, &created); err != nil {
		return err
	}
	d.ada = created.ID
	for _, agent := range []string{"outreach-writer", "report-builder"} {
		body := map[string]any{
			"schemas":       []string{"urn:ietf:params:scim:schemas:core:2.0:Agent"},
			"agentUserName": agent, "active": true, "owners": []map[string]string{{"value": d.ada}},
		}
		if err := d.call(ctx, http.MethodPost, "/scim/v2/Agents", d.scim, body, &created); err != nil {
			return err
		}
		d.agents = append(d.agents, created.ID)
	}
	return nil
}

// collect lets the agents get real credentials, and registers each.
func (d *drill) collect(ctx context.Context) error {
	d.say("Her agents collect credentials: two refresh tokens, a service account with an open session, a scheduled run.")
	for i, agent := range d.agents {
		h, secret, err := d.refreshToken(ctx, i)
		if err != nil {
			return err
		}
		if err := d.register(ctx, "/v1/credentials", h, map[string]any{
			"principalId": d.ada, "agentId": agent, "kind": "refresh_token", "connector": "workspace",
			"reference": fmt.Sprintf("token of agent %d", i+1), "secret": secret, "scopes": []string{"mail.send"},
		}); err != nil {
			return err
		}
	}
	h, role, password, err := d.serviceAccount(ctx)
	if err != nil {
		return err
	}
	if err := d.register(ctx, "/v1/credentials", h, map[string]any{
		"principalId": d.ada, "agentId": d.agents[1], "kind": "service_account", "connector": "crm", "reference": role, "secret": password,
	}); err != nil {
		return err
	}
	h, schedule, err := d.schedule(ctx)
	if err != nil {
		return err
	}
	return d.register(ctx, "/v1/scheduled-runs", h, map[string]any{
		"principalId": d.ada, "agentId": d.agents[0], "kind": "scheduled_run", "connector": "agent-runs", "reference": schedule,
	})
}

func (d *drill) register(ctx context.Context, path string, h *holding, body map[string]any) error {
	var item inventory.Item
	if err := d.call(ctx, http.MethodPost, path, d.platform, body, &item); err != nil {
		return err
	}
	h.id = item.ID.String()
	d.held = append(d.held, h)
	return nil
}

func (d *drill) proveAlive(ctx context.Context) error {
	for _, h := range d.held {
		if err := h.use(ctx); err != nil {
			return fmt.Errorf("%s at %s does not work before the deactivation: %w", h.what, h.where, err)
		}
	}
	d.say("Each of the %d works.", len(d.held))
	return nil
}

// leave deactivates Ada as Entra does.
func (d *drill) leave(ctx context.Context) error {
	d.say("\nPayroll terminates Ada: the IdP sends {\"op\":\"Replace\",\"path\":\"active\",\"value\":\"False\"}.")
	d.left = time.Now()
	body := map[string]any{
		"schemas":    []string{"urn:ietf:params:scim:api:messages:2.0:PatchOp"},
		"Operations": []map[string]any{{"op": "Replace", "path": "active", "value": "False"}},
	}
	return d.call(ctx, http.MethodPatch, "/scim/v2/Users/"+d.ada, d.scim, body, nil)
}

// follow tells the cascade's progress until it closes.
func (d *drill) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	path := "/v1/tenants/" + d.tenant.Name
	told := make(map[string]inventory.State)
	for {
		var cascades struct {
			Items []lifecycle.Cascade `json:"items"`
		}
		if err := d.call(ctx, http.MethodGet, path+"/cascades?principal="+d.ada, d.operator, nil, &cascades); err != nil {
			return err
		}
		var items struct {
			Items []inventory.Item `json:"items"`
		}
		if err := d.call(ctx, http.MethodGet, path+"/inventory?principal="+d.ada, d.operator, nil, &items); err != nil {
			return err
		}
		d.tell(items.Items, told)
		if len(cascades.Items) > 0 {
			if d.cascade = cascades.Items[0]; d.cascade.ClosedAt != nil {
				d.live("")
				d.say("%s  the cascade closed: %s", since(d.left, *d.cascade.ClosedAt), d.cascade.Outcome)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cascade is not done: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tell writes a line for each item that reached a new state, and keeps one
// live line on a terminal.
func (d *drill) tell(items []inventory.Item, told map[string]inventory.State) {
	ended := 0
	for _, item := range items {
		id := item.ID.String()
		if item.State != inventory.Live && item.State != inventory.Ending {
			ended++
		}
		if item.State == told[id] || item.State == inventory.Live {
			continue
		}
		told[id] = item.State
		d.live("")
		d.say("%s  %-9s %s at %s", since(d.left, item.UpdatedAt), item.State, item.Kind, item.Connector)
	}
	d.live("%s  %d of %d ended", since(d.left, time.Now()), ended, len(items))
}

func since(from, to time.Time) string {
	return fmt.Sprintf("%6.2fs", to.Sub(from).Seconds())
}

// proveDead uses each once more: what counts is that it fails.
func (d *drill) proveDead(ctx context.Context) error {
	for _, h := range d.held {
		proof, err := h.dead(ctx)
		if err != nil {
			h.alive, proof = true, "STILL ALIVE: "+err.Error()
		}
		h.proof = proof
	}
	return nil
}

// report prints the table, and fails where anything survived.
func (d *drill) report(ctx context.Context) error {
	var records struct {
		Items []evidence.Record `json:"items"`
	}
	path := "/v1/tenants/" + d.tenant.Name + "/cascades/" + d.cascade.ID.String() + "/evidence?limit=500"
	if err := d.call(ctx, http.MethodGet, path, d.operator, nil, &records); err != nil {
		return err
	}
	survived := d.cascade.Outcome != "completed"
	w := tabwriter.NewWriter(d.out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nWHAT\tWHERE\tREVOKED AFTER\tVERIFIED AFTER\tPROOF BY USE")
	for _, h := range d.held {
		revoked, verified := d.times(h.id, records.Items)
		survived = survived || h.alive || verified == "-"
		_, _ = fmt.Fprintln(w, strings.Join([]string{h.what, h.where, revoked, verified, h.proof}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if survived {
		return errSurvived
	}
	return nil
}

// times are when the downstream confirmed the end, and when a probe saw it.
func (d *drill) times(id string, records []evidence.Record) (revoked, verified string) {
	revoked, verified = "-", "-"
	for _, r := range records {
		if r.Item.String() != id {
			continue
		}
		switch after := strings.TrimSpace(since(d.left, r.At)); {
		case r.Outcome == "done" || r.Outcome == "gone":
			revoked = after
		case r.Step == "probe-after" && r.Outcome == "dead":
			verified = after
		}
	}
	return revoked, verified
}

func (d *drill) links() {
	run := ""
	if d.cascade.RunID != nil {
		run = *d.cascade.RunID
	}
	d.say("\nSCIM base URL   %s/scim/v2\nSCIM token      %s", d.url, d.scim)
	if d.ui != "" {
		d.say("Temporal UI     %s", workflowLink(d.ui, d.namespace, d.cascade.WorkflowID, run))
	}
	d.say("Operator token  %s\n\n  LEAVER_URL=%s LEAVER_TOKEN=%s go run ./cmd/leaver cascade show --tenant %s %s",
		d.operator, d.url, d.operator, d.tenant.Name, d.cascade.ID)
}

// call sends a request as one of leaver's clients.
func (d *drill) call(ctx context.Context, method, path, token string, body, into any) error {
	var payload io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		payload = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode > 299 {
		return fmt.Errorf("%s %s answered %d: %s", method, req.URL.Path, resp.StatusCode, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}
