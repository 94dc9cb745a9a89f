package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/tenant"
)

func (s *Server) listTenants(w http.ResponseWriter, r *http.Request) {
	tenants, err := s.Tenants.List(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, tenants, "")
}

func (s *Server) createTenant(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name    string         `json:"name"`
		Profile tenant.Profile `json:"profile"`
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Profile == "" {
		body.Profile = tenant.ProfileDefault
	}
	if !slices.Contains(tenant.Profiles(), body.Profile) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("profile is one of %v", tenant.Profiles())})
		return
	}
	t, err := s.Tenants.Create(r.Context(), body.Name, body.Profile)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, t)
}

func (s *Server) getTenant(w http.ResponseWriter, r *http.Request) {
	httpjson.Answer(w, http.StatusOK, tenantOf(r))
}

func (s *Server) configureTenant(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Profile           *tenant.Profile `json:"profile"`
		PublicDiscovery   *bool           `json:"publicDiscovery"`
		RequestsPerSecond *int            `json:"requestsPerSecond"`
		BrakeLeavers      *int            `json:"brakeLeavers"`
		BrakeShare        *float64        `json:"brakeShare"`
		BrakeWindow       *int            `json:"brakeWindowSeconds"`
		Orphans           *tenant.Orphans `json:"orphans"`
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Profile != nil && !slices.Contains(tenant.Profiles(), *body.Profile) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("profile is one of %v", tenant.Profiles())})
		return
	}
	to := tenant.Settings(body)
	// Of two people one sets a threshold, and another loosens it.
	approver := caller(r).Class == auth.ClassApprover
	if approver && !to.OnlyThreshold() {
		s.fail(w, r, httpjson.Problem{Status: http.StatusForbidden, Detail: "an approver's token may change only brakeLeavers, brakeShare and brakeWindowSeconds"})
		return
	}
	configure := s.Tenants.Configure
	if approver {
		configure = s.Tenants.ConfigureApproved
	}
	t, err := configure(r.Context(), tenantOf(r).ID, to)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, t)
}

// listAdminActs answers a page of what was done to a tenant, or to the installation.
func (s *Server) listAdminActs(w http.ResponseWriter, r *http.Request) {
	limit, err := limit(r)
	var after int64
	if err == nil {
		after, err = queryNumber(r, "cursor")
	}
	var acts []audit.Act
	if err == nil {
		acts, err = s.Audit.List(r.Context(), tenantOf(r).ID, after, limit)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(acts) == limit {
		next = strconv.FormatInt(acts[len(acts)-1].ID, 10)
	}
	answerPage(w, acts, next)
}

func (s *Server) listTokens(w http.ResponseWriter, r *http.Request) {
	tokens, err := s.Auth.Tokens(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, tokens, "")
}

// issued is the one answer that ever holds a token's secret.
type issued struct {
	auth.Token
	Secret string `json:"secret"`
}

func (s *Server) createToken(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Class       auth.Class `json:"class"`
		Description string     `json:"description"`
		TTL         int64      `json:"ttlSeconds"`
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	of := tenantOf(r).ID
	allowed := []auth.Class{auth.ClassSCIM, auth.ClassPlatform, auth.ClassReceiver}
	if of == uuid.Nil {
		allowed = []auth.Class{auth.ClassOperator}
	}
	switch {
	case !slices.Contains(allowed, body.Class):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf("class is one of %v here", allowed)})
		return
	case body.TTL < 0 || body.TTL > int64((100*365*24*time.Hour)/time.Second) || len(body.Description) > maxReference || hasControl(body.Description):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: "ttlSeconds is out of range, or the description too long"})
		return
	}
	token, secret, err := s.Auth.Issue(r.Context(), of, auth.NewToken{
		Class: body.Class, Description: body.Description, TTL: time.Duration(body.TTL) * time.Second,
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, issued{token, secret})
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		err = s.Auth.Revoke(r.Context(), tenantOf(r).ID, id)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) listInventory(w http.ResponseWriter, r *http.Request) {
	s.listItems(w, r, connectors.Kinds())
}

// getItem is one item with its history.
func (s *Server) getItem(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	item, err := s.Credentials.Get(r.Context(), tenantOf(r).ID, id, connectors.Kinds())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	history, err := s.Credentials.History(r.Context(), tenantOf(r).ID, id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, struct {
		*credential.Item
		History []credential.StateChange `json:"history"`
	}{item, history})
}
