package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// ShownItem is an item with the names of its principal and agent.
type ShownItem struct {
	credential.Item
	PrincipalName string `json:"principalName"`
	AgentName     string `json:"agentName,omitempty"`
}

func (s *Server) shownItems(ctx context.Context, tenant uuid.UUID, items []credential.Item) ([]ShownItem, error) {
	var ids []uuid.UUID
	for _, i := range items {
		if ids = append(ids, i.Principal); i.Agent != nil {
			ids = append(ids, *i.Agent)
		}
	}
	names, err := s.names(ctx, tenant, ids...)
	if err != nil {
		return nil, err
	}
	shown := make([]ShownItem, len(items))
	for n, i := range items {
		shown[n] = ShownItem{Item: i, PrincipalName: names[i.Principal]}
		if i.Agent != nil {
			shown[n].AgentName = names[*i.Agent]
		}
	}
	return shown, nil
}

// names returns the names of principals by id, including deleted principals.
func (s *Server) names(ctx context.Context, tenant uuid.UUID, ids ...uuid.UUID) (map[uuid.UUID]string, error) {
	names := make(map[uuid.UUID]string, len(ids))
	if len(ids) == 0 {
		return names, nil
	}
	found, err := s.Directory.Named(ctx, tenant, ids...)
	for _, n := range found {
		names[n.ID] = n.Name
	}
	return names, err
}

// queryPrincipal returns the id of the principal that a query parameter names by id, userName or
// agentUserName, or nil if the parameter is absent.
func (s *Server) queryPrincipal(r *http.Request, parameter string) (*uuid.UUID, error) {
	text := r.URL.Query().Get(parameter)
	if text == "" {
		return nil, nil //nolint:nilnil // absent is a value here
	}
	if id, err := uuid.Parse(text); err == nil {
		return &id, nil
	}
	id, err := s.byName(r.Context(), tenantOf(r).ID, text, "")
	var unknown nameError
	if errors.As(err, &unknown) {
		return nil, httpjson.Problem{Status: http.StatusBadRequest, Detail: parameter + ": " + unknown.Error()}
	}
	return &id, err
}

// nameError is returned for a name that does not identify exactly one principal.
type nameError string

func (e nameError) Error() string { return string(e) }

// byName returns the id of the principal with that name. kind is User, Agent, or empty for both.
// Error: nameError, unless exactly one principal matches.
func (s *Server) byName(ctx context.Context, tenant uuid.UUID, name, kind string) (uuid.UUID, error) {
	found, err := s.Directory.Resolve(ctx, tenant, reference(ctx, name, kind))
	return found.ID, naming(err, name)
}

// agentOf returns the id of the agent with that name that acts for a principal, or else of the only
// agent with the name. Error: nameError.
func (s *Server) agentOf(ctx context.Context, tenant, principal uuid.UUID, name string) (uuid.UUID, error) {
	found, err := s.Directory.ResolveAgent(ctx, tenant, principal, reference(ctx, name, directory.TypeAgent))
	if errors.Is(err, directory.ErrNotFound) {
		return s.byName(ctx, tenant, name, directory.TypeAgent)
	}
	return found.ID, naming(err, name)
}

// reference returns a reference by the caller of a request.
func reference(ctx context.Context, name, kind string) directory.Reference {
	return directory.Reference{Type: kind, Issuers: auth.CallerIn(ctx).NameIssuers(), Value: name}
}

// claim returns a reference by a claim of a token that the caller sees.
func claim(ctx context.Context, value, kind string) directory.Reference {
	ref := reference(ctx, value, kind)
	ref.Claim = true
	return ref
}

// naming turns the errors of a look-up into a nameError.
func naming(err error, name string) error {
	switch {
	case errors.Is(err, directory.ErrNotFound):
		return nameError(fmt.Sprintf("no user or agent named %q", name))
	case errors.Is(err, directory.ErrAmbiguousSubject):
		return nameError(fmt.Sprintf("several principals are, or within a day were, named %q: use the id", name))
	}
	return err
}

// resolve sets the ids of a registration that names its principal or agent.
func (s *Server) resolve(ctx context.Context, tenant uuid.UUID, body *registration) error {
	refuse := func(err error) error {
		var unknown nameError
		if errors.As(err, &unknown) {
			return httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: unknown.Error()}
		}
		return err
	}
	if body.Principal == uuid.Nil && body.PrincipalName != "" {
		id, err := s.byName(ctx, tenant, body.PrincipalName, "")
		if err != nil {
			return refuse(err)
		}
		body.Principal = id
	}
	if body.Agent == nil && body.AgentName != "" {
		id, err := s.agentOf(ctx, tenant, body.Principal, body.AgentName)
		if err != nil {
			return refuse(err)
		}
		body.Agent = &id
	}
	return nil
}

// queryList returns the comma-separated values of a query parameter.
func queryList(r *http.Request, name string) []string {
	var values []string
	for _, given := range r.URL.Query()[name] {
		for value := range strings.SplitSeq(given, ",") {
			if value = strings.TrimSpace(value); value != "" {
				values = append(values, value)
			}
		}
	}
	return values
}
