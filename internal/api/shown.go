package api

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// Shown is the response for a principal.
type Shown struct {
	directory.Named
	Names        []directory.Name          `json:"names"` // besides the id
	Entitlements []entitlement.Entitlement `json:"entitlements"`
	Groups       []directory.Edge          `json:"groups"`
	Owners       []directory.Edge          `json:"owners,omitempty"`
	Parent       *directory.Edge           `json:"parent,omitempty"` // of a sub-agent
	Turns        []entitlement.Turn        `json:"lastChanges"`      // entitlements gained and lost
	// Stale is true if a change has not been evaluated into Entitlements yet.
	Stale       bool                   `json:"stale,omitempty"`
	Restriction *directory.Restriction `json:"restriction,omitempty"`
	// Credentials are those that the principal holds or that are held for it, Unmanaged its unmanaged
	// credentials, and Cascades its cascades, newest first: at most MaxShown of each.
	Credentials []ShownItem            `json:"credentials"`
	Unmanaged   []credential.Unmanaged `json:"unmanaged"`
	Cascades    []cascade.Cascade      `json:"cascades"`
	// Agents lists the agents that would end with it: those that only it owns, and their sub-agents. Parents has the
	// parent of each sub-agent.
	Agents  []directory.Named       `json:"agents"`
	Parents map[uuid.UUID]uuid.UUID `json:"parents"`
}

// MaxShown is the maximum number of each kind of entries of a [Shown].
const MaxShown = 100

const maxTurns = 20

func (s *Server) showPrincipal(w http.ResponseWriter, r *http.Request) {
	shown, err := s.shown(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, shown)
}

func (s *Server) shown(r *http.Request) (Shown, error) {
	of := tenantOf(r).ID
	who, err := s.principal(r)
	if err != nil {
		return Shown{}, err
	}
	shown := Shown{Named: who, Groups: []directory.Edge{}}
	if shown.Names, err = s.Directory.Names(r.Context(), of, who.ID); err != nil {
		return shown, err
	}
	if err := s.showHeld(r.Context(), of, &shown); err != nil {
		return shown, err
	}
	resource, err := s.Directory.Get(r.Context(), of, who.Type, who.ID)
	if errors.Is(err, directory.ErrNotFound) { // deleted: only its credentials and cascades are known
		shown.Entitlements, shown.Turns = []entitlement.Entitlement{}, []entitlement.Turn{}
		return shown, nil
	}
	if err != nil {
		return shown, err
	}
	shown.Restriction = resource.Restriction
	if shown.Stale, err = s.Entitlements.Invalidated(r.Context(), of, who.ID); err != nil {
		return shown, err
	}
	shown.Groups = append(shown.Groups, resource.Groups...)
	for _, e := range resource.Edges {
		switch e.Attribute {
		case directory.EdgeOwners:
			shown.Owners = append(shown.Owners, e)
		case directory.EdgeParent:
			shown.Parent = &e
		}
	}
	if shown.Entitlements, err = s.Entitlements.Of(r.Context(), of, who.ID); err != nil {
		return shown, err
	}
	shown.Turns, err = s.Entitlements.Turns(r.Context(), of, who.ID, maxTurns)
	return shown, err
}

// showHeld adds the agents, credentials and cascades of a principal.
func (s *Server) showHeld(ctx context.Context, of uuid.UUID, shown *Shown) error {
	q := credential.Query{Kinds: connectors.Kinds(), Principal: &shown.ID, Limit: MaxShown}
	items, err := s.Credentials.List(ctx, of, q)
	if err == nil {
		shown.Credentials, err = s.shownItems(ctx, of, items)
	}
	var ending []uuid.UUID
	if err == nil {
		ending, err = s.Cascades.Principals(ctx, of, shown.ID)
	}
	if err == nil {
		shown.Unmanaged, err = s.Credentials.Unmanaged(ctx, of,
			credential.UnmanagedQuery{Principals: ending, Limit: MaxShown})
	}
	if err == nil {
		shown.Cascades, err = s.Cascades.List(ctx, of, cascade.Query{Principal: &shown.ID, Limit: MaxShown})
	}
	if err == nil {
		shown.Agents, err = s.Directory.Named(ctx, of, ending...)
		shown.Agents = slices.DeleteFunc(shown.Agents, func(n directory.Named) bool { return n.ID == shown.ID })
	}
	if err == nil {
		shown.Parents, err = s.Directory.Parents(ctx, of, ending)
	}
	return err
}
