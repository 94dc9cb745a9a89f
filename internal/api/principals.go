package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
)

// findPrincipals finds principals by their names: a User and an Agent at most.
func (s *Server) findPrincipals(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" || hasControl(name) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: "name is the userName or agentUserName to look for"})
		return
	}
	found, err := s.Directory.ByName(r.Context(), tenantOf(r).ID, name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, found, "")
}

// Plan is what a cascade would do, in its order.
type Plan struct {
	Principal directory.Named   `json:"principal"`
	Items     []PlannedItem     `json:"items"`
	Orphans   []directory.Named `json:"orphanedAgents"` // suspended with all that they hold
	// Manager is who would own the orphans instead, by the tenant's policy.
	Manager *uuid.UUID `json:"orphansGoTo,omitempty"`
	More    bool       `json:"more"` // there are more items than are listed
	// Unbound are unmanaged credentials of the principal and its agents: they are not ended.
	Unbound []credential.Unbound `json:"unbound"`
	// NotAsked are the connectors that could not be asked.
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

// planEnd answers what a deactivation would end now, and changes nothing.
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
	if err := s.planUnbound(r.Context(), of, who.ID, &plan); err != nil {
		return Plan{}, err
	}
	plan.Orphans, err = s.Directory.Named(r.Context(), of.ID, orphans...)
	return plan, err
}

// planUnbound asks the connectors what they hold for those who would end, and adds what is
// registered for nobody. It stores nothing.
func (s *Server) planUnbound(ctx context.Context, of tenant.Tenant, principal uuid.UUID, plan *Plan) error {
	plan.Unbound, plan.NotAsked = []credential.Unbound{}, []cascade.NotAsked{}
	ending, err := s.Cascades.Principals(ctx, of.ID, principal)
	if err != nil {
		return err
	}
	found, failed := s.Connectors.Discover(ctx, of.Name, ending)
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		plan.NotAsked = append(plan.NotAsked, cascade.NotAsked{Connector: name, Reason: failed[name].Error()})
	}
	unmanaged, err := s.Credentials.Unmanaged(ctx, of.ID, found)
	if err != nil {
		return err
	}
	for _, u := range unmanaged {
		plan.Unbound = append(plan.Unbound, credential.Unbound{
			Connector: u.Connector, Kind: u.Kind, Reference: u.Reference, Label: u.Principal, Scopes: u.Scopes, ExpiresAt: u.ExpiresAt,
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

// Restoration is what a return would bring: entitlements, and never a credential.
type Restoration struct {
	Principal    directory.Named   `json:"principal"`
	Entitlements []string          `json:"entitlements"`
	Running      []cascade.Cascade `json:"runningCascades"` // that go on all the same
}

// planRestore answers what a return would bring now, and changes nothing.
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
		cascades, err = s.Cascades.List(r.Context(), of, cascade.Query{Principal: &who.ID, Limit: defaultLimit})
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

// restorePrincipal brings a principal back as its IdP would, on an operator's word.
func (s *Server) restorePrincipal(w http.ResponseWriter, r *http.Request) {
	result, err := s.change(w, r, "restore", s.Lifecycle.Restore)
	cancelled := []uuid.UUID{}
	if err == nil && r.URL.Query().Get("cancel") == "true" {
		cancelled, err = s.cancelAll(r, result.Resource.ID)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// An agent that nobody owns any more is suspended again in the same commit.
	httpjson.Answer(w, http.StatusAccepted, map[string]any{
		"eventId": result.Event.ID, "workflowId": result.Event.WorkflowID, "restricted": result.Resource.Restricted(), "cancelledCascades": cancelled,
	})
}

// cancelAll cancels the cascades of a principal's that run.
func (s *Server) cancelAll(r *http.Request, principal uuid.UUID) ([]uuid.UUID, error) {
	of := tenantOf(r).ID
	cancelled := []uuid.UUID{}
	open, err := s.Cascades.List(r.Context(), of, cascade.Query{Principal: &principal, Outcomes: []string{"pending", "running"}, Limit: maxLimit})
	if err != nil {
		return cancelled, err
	}
	for _, c := range open {
		if _, err := s.cancel(r.Context(), of, c.ID, caller(r).Actor(), "the principal was restored"); err != nil && !errors.Is(err, cascade.ErrNotRunning) {
			return cancelled, err
		}
		cancelled = append(cancelled, c.ID)
	}
	return cancelled, nil
}

// endPrincipal deactivates a principal as its IdP would, on an operator's word.
func (s *Server) endPrincipal(w http.ResponseWriter, r *http.Request) {
	result, err := s.change(w, r, "end", func(ctx context.Context, of uuid.UUID, resourceType string, id uuid.UUID, cause lifecycle.Cause) (lifecycle.Result, error) {
		return s.Lifecycle.SetActive(ctx, of, resourceType, id, false, cause)
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusAccepted, map[string]any{"cascadeId": result.Event.ID, "workflowId": result.Event.WorkflowID})
}

// change makes a lifecycle change of a principal, and puts the operator's reason on record.
func (s *Server) change(w http.ResponseWriter, r *http.Request, verb string,
	change func(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, cause lifecycle.Cause) (lifecycle.Result, error),
) (lifecycle.Result, error) {
	why, err := readReason(w, r)
	if err != nil {
		return lifecycle.Result{}, err
	}
	who, err := s.principal(r)
	if err != nil {
		return lifecycle.Result{}, err
	}
	of, by := tenantOf(r).ID, caller(r).Actor()
	result, err := change(r.Context(), of, who.Type, who.ID, lifecycle.Cause{Trigger: lifecycle.TriggerOperator, Actor: by})
	if err != nil {
		return lifecycle.Result{}, err
	}
	if result.Event == nil { // a return that finds nothing to do is an error already
		return lifecycle.Result{}, httpjson.Problem{Status: http.StatusConflict, Detail: "the principal is restricted already"}
	}
	return result, s.Cascades.RecordAct(r.Context(), of, result.Event.ID, by, verb, why)
}
