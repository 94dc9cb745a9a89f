package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
)

// drill provisions a user with agents and credentials, deactivates the user, and verifies that
// no credential works any more.
type drill struct {
	*console
	*installation
	peers     *downstreams
	ui        string
	namespace string

	ada, bob string   // SCIM ids
	agents   []string // SCIM ids; the last is a sub-agent of the first
	held     []*holding
	// unmanaged is the credential that is not registered.
	unmanaged *holding
	gateway   gateway
	cascade   cascade.Cascade
	left      time.Time  // when the deactivation was sent
	rows      [][]string // of the report, in addition to those of held
}

// holding is a credential or scheduled run of Ada's agents, with functions that use it.
type holding struct {
	what  string
	where string
	id    string // of the registration
	// reference is the downstream's name for it, by which discovery reports it.
	reference string
	cascade   cascade.Cascade
	// use returns nil if the credential works.
	use func(context.Context) error
	// dead returns how the downstream refuses it, or an error if it still works.
	dead func(context.Context) (string, error)

	proof string
	alive bool
}

const drillTimeout = 2 * time.Minute

func (d *drill) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.subscribe, d.join, d.collect, d.share, d.move, d.admit, d.proveAlive, d.leave, d.decideAfter, d.turnAway,
		d.follow, d.claim, d.hear, d.proveDead, d.leaveAtBroker,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := d.report(ctx); err != nil {
		return err
	}
	return d.verifyExport(ctx)
}

// join provisions Ada as Okta does, by a search and a create, and then her agents.
func (d *drill) join(ctx context.Context) error {
	d.say("Ada joins, as Okta provisions her, with two agents of hers, one of which has a sub-agent.")
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
		"displayName": "Ada Lovelace", "locale": "en-US", "externalId": "00u1ada", "groups": []any{}, "password": "1mz050nq",
		"active": true,
	}
	var created struct {
		ID string `json:"id"`
	}
	if err := d.call(ctx, http.MethodPost, "/scim/v2/Users", d.scim, user, &created); err != nil {
		return err
	}
	d.ada = created.ID
	for _, agent := range agentNames {
		body := map[string]any{
			"schemas":       []string{"urn:ietf:params:scim:schemas:core:2.0:Agent"},
			"agentUserName": agent, "active": true, "owners": []map[string]string{{"value": d.ada}},
		}
		if len(d.agents) == len(agentNames)-1 {
			body["parent"] = map[string]string{"value": d.agents[0]}
		}
		if err := d.call(ctx, http.MethodPost, "/scim/v2/Agents", d.scim, body, &created); err != nil {
			return err
		}
		d.agents = append(d.agents, created.ID)
	}
	return nil
}

// agentNames are Ada's agents; the last is a sub-agent of the first.
var agentNames = []string{"outreach-writer", "report-builder", "outreach-follow-up"}

// collect issues real credentials to the agents and registers each.
func (d *drill) collect(ctx context.Context) error {
	d.say("Her agents collect credentials: two refresh tokens, a service account with an open session, " +
		"a scheduled run, an account in an application, keys of an agent platform.")
	for i, agent := range d.agents[:2] {
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
		"principalId": d.ada, "agentId": d.agents[1], "kind": "service_account", "connector": "crm", "reference": role,
		"secret": password,
	}); err != nil {
		return err
	}
	h, schedule, err := d.schedule(ctx)
	if err != nil {
		return err
	}
	if err := d.register(ctx, "/v1/scheduled-runs", h, map[string]any{
		"principalId": d.ada, "agentId": d.agents[0], "kind": "scheduled_run", "connector": "agent-runs",
		"reference": schedule,
	}); err != nil {
		return err
	}
	if d.peers.cache != nil {
		h, user, password, err := d.cacheAccount(ctx)
		if err != nil {
			return err
		}
		if err := d.register(ctx, "/v1/credentials", h, map[string]any{
			"principalId": d.ada, "agentId": d.agents[0], "kind": "service_account", "connector": "cache", "reference": user,
			"secret": password,
		}); err != nil {
			return err
		}
	}
	h, account, err := d.applicationAccount(ctx)
	if err != nil {
		return err
	}
	if err := d.register(ctx, "/v1/credentials", h, map[string]any{
		"principalId": d.ada, "kind": "service_account", "connector": "application", "reference": account,
	}); err != nil {
		return err
	}
	// The sub-agent's own key is ended only because the sub-agent loses its last owner.
	sub := d.agents[len(d.agents)-1]
	subKey := d.apiKey("API key of the sub-agent itself", "key-of-the-sub-agent", 0)
	if err := d.register(ctx, "/v1/credentials", subKey, map[string]any{
		"principalId": sub, "agentId": sub, "kind": "api_key", "connector": "platform", "reference": "key-of-the-sub-agent",
	}); err != nil {
		return err
	}
	lying := d.apiKey("API key whose platform lies once", "key-that-lies", 1)
	return d.register(ctx, "/v1/credentials", lying, map[string]any{
		"principalId": d.ada, "agentId": d.agents[0], "kind": "api_key", "connector": "platform",
		"reference": "key-that-lies",
	})
}

// share registers one account for both Ada and Bob, and creates another that is not registered.
func (d *drill) share(ctx context.Context) error {
	d.say("She shares a service account with Bob, and has another that is not registered.")
	var created struct {
		ID string `json:"id"`
	}
	user := map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:User"}, "userName": "bob@example.com", "active": true,
	}
	if err := d.call(ctx, http.MethodPost, "/scim/v2/Users", d.scim, user, &created); err != nil {
		return err
	}
	d.bob = created.ID
	h, role, password, err := d.sharedAccount(ctx)
	if err != nil {
		return err
	}
	for _, of := range []string{d.bob, d.ada} {
		if err := d.register(ctx, "/v1/credentials", h, map[string]any{
			"principalId": of, "kind": "service_account", "connector": "crm", "reference": role, "secret": password,
		}); err != nil {
			return err
		}
	}
	d.held = d.held[:len(d.held)-1] // one account, registered for both; the id is Ada's
	d.unmanaged, err = d.forgotten(ctx)
	d.held = append(d.held, d.unmanaged)
	return err
}

func (d *drill) register(ctx context.Context, path string, h *holding, body map[string]any) error {
	var item credential.Item
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
	if reason, err := d.decide(ctx); err != nil || reason != string(authzen.Allow) {
		return fmt.Errorf("decision before the deactivation is %q, want allow: %w", reason, err)
	}
	d.left = time.Now()
	body := map[string]any{
		"schemas":    []string{"urn:ietf:params:scim:api:messages:2.0:PatchOp"},
		"Operations": []map[string]any{{"op": "Replace", "path": "active", "value": "False"}},
	}
	return d.call(ctx, http.MethodPatch, "/scim/v2/Users/"+d.ada, d.scim, body, nil)
}

// follow prints the cascade's progress until it closes.
func (d *drill) follow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	printed := make(map[string]credential.State)
	for {
		var err error
		if d.cascade, err = d.newest(ctx); err != nil {
			return err
		}
		if d.cascade.ID != uuid.Nil {
			items, err := d.itemsOf(ctx, d.cascade)
			if err != nil {
				return err
			}
			d.printChanges(items, printed)
		}
		if d.cascade.ClosedAt != nil {
			d.live("")
			d.say("%s  the cascade closed: %s", since(d.left, *d.cascade.ClosedAt), d.cascade.Outcome)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the cascade to close: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *drill) operate(path string) string { return "/v1/tenants/" + d.tenant.Name + path }

// newest returns Ada's newest cascade, or the zero Cascade if there is none.
func (d *drill) newest(ctx context.Context) (cascade.Cascade, error) { return d.newestOf(ctx, d.ada) }

// newestOf returns the newest cascade of a principal, or the zero Cascade if there is none.
func (d *drill) newestOf(ctx context.Context, principal string) (cascade.Cascade, error) {
	var cascades struct {
		Items []cascade.Cascade `json:"items"`
	}
	err := d.call(ctx, http.MethodGet, d.operate("/cascades?principal="+principal), d.operator, nil, &cascades)
	if err != nil || len(cascades.Items) == 0 {
		return cascade.Cascade{}, err
	}
	return cascades.Items[0], nil
}

func (d *drill) itemsOf(ctx context.Context, c cascade.Cascade) ([]credential.Item, error) {
	var items struct {
		Items []credential.Item `json:"items"`
	}
	err := d.call(ctx, http.MethodGet, d.operate("/credentials?cascade="+c.ID.String()), d.operator, nil, &items)
	return items.Items, err
}

// claim claims the unregistered account that discovery found, as an operator does. A separate
// cascade then ends it.
func (d *drill) claim(ctx context.Context) error {
	var unmanaged struct {
		Items []credential.Unmanaged `json:"items"`
	}
	if err := d.call(ctx, http.MethodGet, d.operate("/unmanaged"), d.operator, nil, &unmanaged); err != nil {
		return err
	}
	for _, u := range unmanaged.Items {
		if u.Reference != d.unmanaged.reference {
			continue
		}
		d.say("        discovery found %s, labelled as Ada's and unmanaged; an operator claims it", u.Reference)
		var bound credential.Item
		body := map[string]string{"principalId": d.ada, "reason": "its label says so"}
		if err := d.call(ctx, http.MethodPost, d.operate("/unmanaged/"+u.ID.String()+"/claim"), d.operator, body,
			&bound); err != nil {
			return err
		}
		d.unmanaged.id = bound.ID.String()
		return d.awaitBound(ctx)
	}
	return errors.New("discovery did not find the unregistered account")
}

func (d *drill) awaitBound(ctx context.Context) error {
	c, err := d.awaitCascade(ctx, d.ada, d.cascade.ID)
	if err != nil {
		return err
	}
	d.say("%s  its cascade closed: %s", since(d.left, *c.ClosedAt), c.Outcome)
	d.unmanaged.cascade = c
	return nil
}

// awaitCascade waits until the newest cascade of a principal is not the one with the id other and has closed,
// and returns it.
func (d *drill) awaitCascade(ctx context.Context, principal string, other uuid.UUID) (cascade.Cascade, error) {
	ctx, cancel := context.WithTimeout(ctx, drillTimeout)
	defer cancel()
	for {
		c, err := d.newestOf(ctx, principal)
		if err != nil {
			return c, err
		}
		if c.ID != other && c.ClosedAt != nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return c, fmt.Errorf("wait for the cascade to close: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// printChanges prints a line for each item whose state changed, and updates the progress line on a
// terminal.
func (d *drill) printChanges(items []credential.Item, printed map[string]credential.State) {
	ended := 0
	for _, item := range items {
		id := item.ID.String()
		if item.State != credential.Live && item.State != credential.Ending {
			ended++
		}
		if item.State == printed[id] || item.State == credential.Live {
			continue
		}
		printed[id] = item.State
		d.live("")
		d.say("%s  %-9s %s at %s", since(d.left, item.UpdatedAt), item.State, item.Kind, item.Connector)
	}
	d.live("%s  %d of %d ended", since(d.left, time.Now()), ended, len(items))
}

func since(from, to time.Time) string {
	return fmt.Sprintf("%6.2fs", to.Sub(from).Seconds())
}

// proveDead uses each credential once more and records how it is refused.
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

// report prints the table, and returns errSurvived if anything is still alive.
func (d *drill) report(ctx context.Context) error {
	survived := d.cascade.Outcome != "completed"
	w := tabwriter.NewWriter(d.out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nWHAT\tWHERE\tENDED AFTER\tVERIFIED AFTER\tPROOF BY USE")
	for _, row := range d.rows {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	for _, h := range d.held {
		in := d.cascade
		if h.cascade.ID != uuid.Nil {
			in = h.cascade
		}
		records, err := d.evidenceOf(ctx, in)
		if err != nil {
			return err
		}
		ended, verified := d.times(d.left, h.id, records)
		survived = survived || h.alive || verified == "-"
		_, _ = fmt.Fprintln(w, strings.Join([]string{h.what, h.where, ended, verified, h.proof}, "\t"))
	}
	for i, id := range d.agents {
		suspended, proof, err := d.suspended(ctx, id)
		if err != nil {
			return err
		}
		survived = survived || suspended == "-"
		_, _ = fmt.Fprintln(w, strings.Join([]string{"agent " + agentNames[i], "leaver", suspended, suspended, proof}, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if survived {
		return errSurvived
	}
	return nil
}

func (d *drill) evidenceOf(ctx context.Context, c cascade.Cascade) ([]evidence.Record, error) {
	var records struct {
		Items []evidence.Record `json:"items"`
	}
	err := d.call(ctx, http.MethodGet, d.operate("/cascades/"+c.ID.String()+"/evidence?limit=500"), d.operator, nil,
		&records)
	return records.Items, err
}

// lifecycleExtension is the SCIM extension that shows a restriction.
const lifecycleExtension = "urn:leaver:params:scim:schemas:extension:lifecycle:1.0:Principal"

// suspended returns how long after the deactivation an agent was suspended, "-" if it was not,
// and the proof: the registration of a new key for it is refused.
func (d *drill) suspended(ctx context.Context, agent string) (after, proof string, err error) {
	var resource map[string]json.RawMessage
	if err := d.call(ctx, http.MethodGet, "/scim/v2/Agents/"+agent, d.scim, nil, &resource); err != nil {
		return "", "", err
	}
	var restriction struct {
		Since time.Time `json:"restrictedSince"`
		Cause string    `json:"cause"`
	}
	if raw, restricted := resource[lifecycleExtension]; !restricted {
		return "-", "STILL ACTIVE", nil
	} else if err := json.Unmarshal(raw, &restriction); err != nil {
		return "", "", fmt.Errorf("read the agent's restriction: %w", err)
	}
	err = d.call(ctx, http.MethodPost, "/v1/credentials", d.platform, map[string]any{
		"principalId": agent, "agentId": agent, "kind": "api_key", "connector": "platform", "reference": "new-key",
	}, nil)
	if err == nil {
		return "-", "STILL ACTIVE: it was given a new key", nil
	}
	if !strings.Contains(err.Error(), "answered 409") {
		return "", "", err
	}
	return strings.TrimSpace(since(d.left, restriction.Since)),
		restriction.Cause + ": nothing new can be registered for it", nil
}

// times returns how long after from the downstream confirmed the revocation, and how long after
// from a probe saw the credential dead; "-" if it did not happen.
func (d *drill) times(from time.Time, id string, records []evidence.Record) (revoked, verified string) {
	item, err := uuid.Parse(id)
	if err != nil {
		return "-", "-"
	}
	proof := evidence.Proofs(records)[item]
	after := func(at *time.Time) string {
		if at == nil {
			return "-"
		}
		return strings.TrimSpace(since(from, *at))
	}
	return after(proof.EndedAt), after(proof.DeadAt)
}

// links prints where to go on, with a link that signs in to the console once.
func (d *drill) links(ctx context.Context) error {
	var signIn api.SignIn
	if err := d.call(ctx, http.MethodPost, "/v1/sign-ins", d.operator, nil, &signIn); err != nil {
		return err
	}
	run := ""
	if d.cascade.RunID != nil {
		run = *d.cascade.RunID
	}
	d.say("\nSCIM base URL   %s/scim/v2\nSCIM token      %s", d.url, d.scim)
	d.say("Console         %s (once, within 5 minutes; `leaver console` prints another link)", signIn.URL)
	if d.ui != "" {
		d.say("Temporal UI     %s", workflowLink(d.ui, d.namespace, d.cascade.WorkflowID, run))
	}
	d.say("Operator token  %s\n\n  LEAVER_URL=%s LEAVER_TOKEN=%s go run ./cmd/leaver cascade show --tenant %s %s",
		d.operator, d.url, d.operator, d.tenant.Name, d.cascade.ID)
	return nil
}

// call sends a request with a client's token and decodes the response into into, unless it is nil.
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
