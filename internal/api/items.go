package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/tenant"
)

// items serves credentials or scheduled runs to platforms.
type items struct {
	*Server
	path  string
	kinds []connectors.Kind
}

// registration is the request body of a registration. The secret is sealed and never returned.
type registration struct {
	Principal uuid.UUID  `json:"principalId"`
	Agent     *uuid.UUID `json:"agentId"`
	// PrincipalName and AgentName may replace the ids: a userName or agentUserName.
	PrincipalName string `json:"principal"`
	AgentName     string `json:"agent"`

	Kind      connectors.Kind `json:"kind"`
	Connector string          `json:"connector"`
	Reference string          `json:"reference"`
	Secret    httpjson.Secret `json:"secret"`
	Shared    bool            `json:"shared"`
	// ReliedOnBy names other users of the account; Entitlement is the one it was granted under.
	ReliedOnBy  []string   `json:"reliedOnBy"`
	Entitlement string     `json:"entitlement"`
	Scopes      []string   `json:"scopes"`
	IssuedAt    *time.Time `json:"issuedAt"`
	ExpiresAt   *time.Time `json:"expiresAt"`
	// Mints is set if other credentials are issued with it.
	Mints bool `json:"mints"`
}

// item returns the item that the registration adds.
func (b registration) item() credential.New {
	issued := time.Now().UTC()
	if b.IssuedAt != nil {
		issued = *b.IssuedAt
	}
	return credential.New{
		Principal: b.Principal, Agent: b.Agent, Kind: b.Kind, Connector: b.Connector, Reference: b.Reference,
		Secret: b.Secret.Secret, Shared: b.Shared, ReliedOnBy: b.ReliedOnBy, Entitlement: b.Entitlement, Scopes: b.Scopes,
		IssuedAt: issued, ExpiresAt: b.ExpiresAt, Mints: b.Mints,
	}
}

const maxReference = 512 // bytes

func (h items) register(w http.ResponseWriter, r *http.Request) {
	var body registration
	if err := httpjson.Decode(w, r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	if body.Kind == "" && len(h.kinds) == 1 {
		body.Kind = h.kinds[0]
	}
	if err := h.check(r.Context(), tenantOf(r), h.kinds, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	// Acquired after the downstream has answered, so that a hanging downstream occupies no slot.
	slow, release, err := h.slow(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer release()
	item, err := h.Credentials.Register(slow, tenantOf(r).ID, body.item())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Location", BasePath+h.path+"/"+item.ID.String())
	httpjson.Answer(w, http.StatusCreated, item)
}

// check returns an error if the registration is invalid or could not be ended later. It resolves
// names to ids and sets the canonical spelling of the reference.
func (s *Server) check(ctx context.Context, of tenant.Tenant, kinds []connectors.Kind, body *registration) error {
	invalid := func(format string, args ...any) error {
		return httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(format, args...)}
	}
	if err := s.resolve(ctx, of.ID, body); err != nil {
		return err
	}
	texts := slices.Concat([]string{body.Reference, body.Connector, body.Entitlement}, body.Scopes, body.ReliedOnBy)
	switch {
	case body.Principal == uuid.Nil:
		return invalid("principalId or principal (a userName) is required")
	case !slices.Contains(kinds, body.Kind):
		return invalid("kind must be one of %v, got %q", kinds, body.Kind)
	case body.Reference == "" || len(body.Reference) > maxReference:
		return invalid("reference must be 1 to %d bytes long", maxReference)
	case slices.ContainsFunc(texts, func(t string) bool { return len(t) > maxReference }):
		return invalid("connector, entitlement, scopes and reliedOnBy must be at most %d bytes each", maxReference)
	case httpjson.HasControl(texts...):
		return invalid("reference, connector, entitlement, scopes and reliedOnBy must not contain control characters")
	case body.ExpiresAt != nil && body.ExpiresAt.Before(time.Now()):
		return invalid("expiresAt must be in the future, got %s", body.ExpiresAt.Format(time.RFC3339))
	}
	asked := connectors.Registration{
		Kind: body.Kind, Reference: body.Reference, HasSecret: body.Secret.Secret != "",
		Shared: body.Shared || len(body.ReliedOnBy) > 0,
	}
	var err error
	if body.Reference, err = s.Connectors.Accepts(of.Name, body.Connector, asked); err != nil {
		return invalid("%v", err)
	}
	body.Mints = body.Mints || s.Connectors.Mints(body.Connector)
	if !asked.Shared && body.Kind.IsAccount() {
		// An account that several principals hold is shared, even if no registration says so.
		if asked.Shared, err = s.Credentials.HeldByOthers(ctx, of.ID, body.item()); err != nil {
			return err
		}
		if _, err := s.Connectors.Accepts(of.Name, body.Connector, asked); err != nil {
			return invalid("%v", err)
		}
	}
	err = s.Connectors.Prove(ctx, of.ID, of.Name, body.item())
	if errors.Is(err, credential.ErrNotProven) || errors.Is(err, credential.ErrReserved) {
		return invalid("%v", err)
	} else if err != nil {
		return err
	}
	return nil
}

func (h items) get(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	item, err := h.Credentials.Get(r.Context(), caller(r).Tenant.ID, id, h.kinds)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, item)
}

func (h items) list(w http.ResponseWriter, r *http.Request) {
	h.listItems(w, r, h.kinds)
}

func (h items) release(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		err = h.Credentials.Release(r.Context(), caller(r).Tenant.ID, id, h.kinds)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// listItems serves a page of credentials and scheduled runs to platforms and operators.
func (s *Server) listItems(w http.ResponseWriter, r *http.Request, kinds []connectors.Kind) {
	query := r.URL.Query()
	q := credential.Query{Kinds: kinds, Connector: query.Get("connector")}
	for _, state := range queryList(r, "state") {
		if !slices.Contains(credential.States(), credential.State(state)) {
			s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"state must be a comma-separated list of %v, got %q", credential.States(), state)})
			return
		}
		q.States = append(q.States, credential.State(state))
	}
	if httpjson.HasControl(q.Connector) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: "connector must not contain control characters"})
		return
	}
	var err error
	if q.Limit, err = limit(r); err != nil {
		s.fail(w, r, err)
		return
	}
	if q.Event, err = queryID(r, "cascade"); err != nil {
		s.fail(w, r, err)
		return
	}
	for name, into := range map[string]**uuid.UUID{"principal": &q.Principal, "agent": &q.Agent} {
		if *into, err = s.queryPrincipal(r, name); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if q.After, err = cursorID(r); err != nil {
		s.fail(w, r, err)
		return
	}
	found, err := s.Credentials.List(r.Context(), tenantOf(r).ID, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(found) == q.Limit {
		next = found[len(found)-1].ID.String()
	}
	shown, err := s.shownItems(r.Context(), tenantOf(r).ID, found)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, shown, next)
}

const (
	defaultLimit = 100
	maxLimit     = 500
)

func limit(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"limit must be between 1 and %d, got %q", maxLimit, text)}
	}
	return n, nil
}

func queryID(r *http.Request, name string) (*uuid.UUID, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return nil, nil //nolint:nilnil // absent is a value here
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return nil, httpjson.Problem{
			Status: http.StatusBadRequest, Detail: fmt.Sprintf("%s must be a UUID, got %q", name, text),
		}
	}
	return &id, nil
}

// cursorID returns the cursor as an id, or the zero id for the first page.
func cursorID(r *http.Request) (uuid.UUID, error) {
	id, err := queryID(r, "cursor")
	if err != nil || id == nil {
		return uuid.Nil, err
	}
	return *id, nil
}

// answerPage writes a page: a list, which is never null, and the cursor of the next page.
func answerPage[T any](w http.ResponseWriter, found []T, next string) {
	if found == nil {
		found = []T{}
	}
	httpjson.Answer(w, http.StatusOK, struct {
		Items []T    `json:"items"`
		Next  string `json:"nextCursor,omitempty"`
	}{found, next})
}
