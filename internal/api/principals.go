package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
)

// findPrincipals lists the principals with a name: at most one User and one Agent.
func (s *Server) findPrincipals(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" || httpjson.HasControl(name) {
		s.fail(w, r, httpjson.Problem{
			Status: http.StatusBadRequest,
			Detail: "name is required: a userName or agentUserName without control characters",
		})
		return
	}
	found, err := s.Directory.ByName(r.Context(), tenantOf(r).ID, name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, found, "")
}

// Resolved is the principal that the claims of a token name. It contains no attributes, since a
// platform has no right to read the directory.
type Resolved struct {
	ID   uuid.UUID `json:"id"`
	Type string    `json:"type"`
	// ActsFor is the principal of the sub, if an agent was resolved by its client_id.
	ActsFor *uuid.UUID `json:"actsFor,omitempty"`
}

// resolvePrincipal serves the principal that a token's sub names or, with client_id, the agent that
// acts for it. The claims are those of the issuer of the caller's token.
func (s *Server) resolvePrincipal(w http.ResponseWriter, r *http.Request) {
	resolved, err := s.resolveClaims(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, resolved)
}

func (s *Server) resolveClaims(r *http.Request) (Resolved, error) {
	query, ctx, of := r.URL.Query(), r.Context(), caller(r).Tenant.ID
	issuer, sub, client := query.Get("issuer"), query.Get("sub"), query.Get("client_id")
	switch {
	case sub == "" && client == "" || httpjson.HasControl(sub, client):
		return Resolved{}, httpjson.Problem{
			Status: http.StatusBadRequest, Detail: "sub or client_id is required, without control characters",
		}
	case issuer != "" && issuer != caller(r).Issuer:
		return Resolved{}, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"issuer must be that of the caller's token, %q, got %q; "+
				"an operator sets it with `leaver token create --class platform --issuer URL`", caller(r).Issuer, issuer)}
	case sub == "":
		agent, err := s.Directory.Resolve(ctx, of, claim(ctx, client, directory.TypeAgent))
		return Resolved{ID: agent.ID, Type: agent.Type}, err
	}
	principal, err := s.Directory.Resolve(ctx, of, claim(ctx, sub, ""))
	if err != nil || client == "" {
		return Resolved{ID: principal.ID, Type: principal.Type}, err
	}
	agent, err := s.Directory.ResolveAgent(ctx, of, principal.ID, claim(ctx, client, directory.TypeAgent))
	if errors.Is(err, directory.ErrNotFound) {
		err = httpjson.Problem{Status: http.StatusNotFound, Detail: "no agent with the client_id acts for the principal"}
	}
	return Resolved{ID: agent.ID, Type: agent.Type, ActsFor: &principal.ID}, err
}

// Plan lists what a cascade would do, in its order.
type Plan struct {
	Principal directory.Named   `json:"principal"`
	Items     []PlannedItem     `json:"items"`
	Orphans   []directory.Named `json:"orphanedAgents"` // would be suspended with all their credentials
	// Manager is the user that would own the orphans instead, by the tenant's policy.
	Manager *uuid.UUID `json:"orphansGoTo,omitempty"`
	More    bool       `json:"more"` // Items is truncated
	// Unmanaged lists unmanaged credentials of the principal and its agents. They would not be ended.
	Unmanaged []credential.Unmanaged `json:"unmanaged"`
	// NotAsked lists the connectors whose discovery failed.
	NotAsked []cascade.NotAsked `json:"notAsked"`
}

// PlannedItem is one item that would be ended.
type PlannedItem struct {
	credential.Item
	Verb       credential.Verb `json:"verb"`
	Holders    []uuid.UUID     `json:"goesOnForPrincipals,omitempty"`
	Verifiable bool            `json:"verifiable"`
}

const maxPlan = 1000

// planEnd serves the plan of a deactivation. It changes nothing.
func (s *Server) planEnd(w http.ResponseWriter, r *http.Request) {
	plan, err := s.plan(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, plan)
}

func (s *Server) plan(r *http.Request) (Plan, error) {
	of := tenantOf(r)
	who, err := s.principal(r)
	if err != nil {
		return Plan{}, err
	}
	items, orphans, manager, err := s.Cascades.Plan(r.Context(), of.ID, who.ID, maxPlan+1)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{Principal: who, Items: []PlannedItem{}, Manager: manager, More: len(items) > maxPlan}
	for _, i := range items[:min(len(items), maxPlan)] {
		plan.Items = append(plan.Items, PlannedItem{
			Item: i.Item, Verb: i.Verb, Holders: i.Holders, Verifiable: s.Connectors.Verifies(i.Connector, i.Kind, i.Secret),
		})
	}
	if err := s.planUnmanaged(r.Context(), of, who.ID, &plan); err != nil {
		return Plan{}, err
	}
	plan.Orphans, err = s.Directory.Named(r.Context(), of.ID, orphans...)
	return plan, err
}

// planUnmanaged runs discovery for the principals that would end, and adds the credentials that are
// not registered to the plan. It stores nothing.
func (s *Server) planUnmanaged(ctx context.Context, of tenant.Tenant, principal uuid.UUID, plan *Plan) error {
	plan.Unmanaged, plan.NotAsked = []credential.Unmanaged{}, []cascade.NotAsked{}
	ending, err := s.Cascades.Principals(ctx, of.ID, principal)
	if err != nil {
		return err
	}
	named, err := s.Directory.Principals(ctx, of.ID, ending, true)
	if err != nil {
		return err
	}
	found, failed := s.Connectors.Discover(ctx, of.Name, named)
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		plan.NotAsked = append(plan.NotAsked, cascade.NotAsked{Connector: name, Reason: failed[name].Error()})
	}
	unmanaged, err := s.Credentials.WithoutRegistration(ctx, of.ID, found)
	if err != nil {
		return err
	}
	for _, u := range unmanaged {
		plan.Unmanaged = append(plan.Unmanaged, credential.Unmanaged{
			Connector: u.Connector, Kind: u.Kind, Reference: u.Reference, Label: u.Principal,
			Scopes: u.Scopes, ExpiresAt: u.ExpiresAt,
		})
	}
	return nil
}

func (s *Server) principal(r *http.Request) (directory.Named, error) {
	id, err := pathID(r)
	if err != nil {
		return directory.Named{}, err
	}
	found, err := s.Directory.Named(r.Context(), tenantOf(r).ID, id)
	if err == nil && len(found) == 0 {
		err = directory.ErrNotFound
	}
	if err != nil {
		return directory.Named{}, err
	}
	return found[0], nil
}

// Restoration lists what restoring a principal would bring back: entitlements, but no credentials.
type Restoration struct {
	Principal    directory.Named   `json:"principal"`
	Entitlements []string          `json:"entitlements"`
	Running      []cascade.Cascade `json:"runningCascades"` // not cancelled by the restoration
}

// planRestore serves what restoring a principal would bring back. It changes nothing.
func (s *Server) planRestore(w http.ResponseWriter, r *http.Request) {
	of := tenantOf(r).ID
	who, err := s.principal(r)
	if err == nil && !who.Restricted {
		err = lifecycle.ErrNotRestricted
	}
	plan := Restoration{Principal: who, Running: []cascade.Cascade{}}
	if err == nil {
		plan.Entitlements, err = s.Entitlements.Live(r.Context(), of, who.ID)
	}
	var cascades []cascade.Cascade
	if err == nil {
		q := cascade.Query{Principal: &who.ID, Limit: defaultLimit}
		cascades, err = s.Cascades.List(r.Context(), of, q)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	slices.Sort(plan.Entitlements)
	for _, c := range cascades {
		if c.ClosedAt == nil {
			plan.Running = append(plan.Running, c)
		}
	}
	httpjson.Answer(w, http.StatusOK, plan)
}

// restorePrincipal restores a principal as its IdP would, on behalf of an operator.
func (s *Server) restorePrincipal(w http.ResponseWriter, r *http.Request) {
	result, why, err := s.change(w, r, "restore", s.Lifecycle.Restore)
	cancelled := []uuid.UUID{}
	if err == nil && r.URL.Query().Get("cancel") == "true" {
		cancelled, err = s.cancelAll(r, result.Resource.ID, why)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// An agent without an active owner is suspended again in the same transaction.
	httpjson.Answer(w, http.StatusAccepted, map[string]any{
		"eventId": result.Event.ID, "workflowId": result.Event.WorkflowID,
		"restricted": result.Resource.Restricted(), "cancelledCascades": cancelled,
	})
}

// cancelAll cancels the open cascades of a restored principal and returns their ids.
func (s *Server) cancelAll(r *http.Request, principal uuid.UUID, why string) ([]uuid.UUID, error) {
	of := tenantOf(r).ID
	cancelled := []uuid.UUID{}
	q := cascade.Query{Principal: &principal, Outcomes: []string{"pending", "running"}, Limit: maxLimit}
	open, err := s.Cascades.List(r.Context(), of, q)
	if err != nil {
		return cancelled, err
	}
	for _, c := range open {
		_, err := s.cancel(r.Context(), of, c.ID, caller(r).Actor(), "the principal was restored: "+why)
		if err != nil && !errors.Is(err, cascade.ErrNotRunning) {
			return cancelled, err
		}
		cancelled = append(cancelled, c.ID)
	}
	return cancelled, nil
}

// endPrincipal deactivates a principal as its IdP would, on behalf of an operator.
func (s *Server) endPrincipal(w http.ResponseWriter, r *http.Request) {
	result, _, err := s.change(w, r, "end", func(
		ctx context.Context, of uuid.UUID, resourceType string, id uuid.UUID, cause lifecycle.Cause,
	) (lifecycle.Result, error) {
		return s.Lifecycle.SetActive(ctx, of, resourceType, id, false, cause)
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusAccepted,
		map[string]any{"cascadeId": result.Event.ID, "workflowId": result.Event.WorkflowID})
}

// errIDPOnly is returned to operators of a tenant with the setting ipsie (IPSIE AL SCIM 2.0 section 4.2).
var errIDPOnly = fault.New(fault.Forbidden,
	"the tenant's directory is changed by its IdP only: deactivate and reactivate the principal there, "+
		"or remove the restriction by `leaver tenant set NAME --ipsie=false`")

// change makes a lifecycle change of a principal, and records and returns the operator's reason.
func (s *Server) change(w http.ResponseWriter, r *http.Request, verb string,
	change func(
		ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, cause lifecycle.Cause,
	) (lifecycle.Result, error),
) (result lifecycle.Result, why string, err error) {
	why, err = readReason(w, r)
	if err != nil {
		return result, why, err
	}
	who, err := s.principal(r)
	if err != nil {
		return result, why, err
	}
	if tenantOf(r).IPSIE {
		return result, why, errIDPOnly
	}
	of, by := tenantOf(r).ID, caller(r).Actor()
	cause := lifecycle.NewCause(r.Context(), lifecycle.TriggerOperator, by)
	result, err = change(r.Context(), of, who.Type, who.ID, cause)
	if err != nil {
		return result, why, err
	}
	if result.Event == nil { // only of a deactivation: a restoration without effect is an error
		return result, why, httpjson.Problem{
			Status: http.StatusConflict, Detail: "the principal is already restricted",
		}
	}
	return result, why, s.Cascades.RecordAct(r.Context(), of, result.Event.ID, by, verb, why)
}

// erasePrincipal erases what names a deleted user. Texts of the evidence go too, so that only an approver may do it.
func (s *Server) erasePrincipal(w http.ResponseWriter, r *http.Request) {
	why, err := readReason(w, r)
	var id uuid.UUID
	if err == nil {
		id, err = pathID(r)
	}
	records := 0
	if err == nil {
		records, err = s.Erasure.User(r.Context(), tenantOf(r).ID, id, why)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, map[string]int{"records": records})
}
