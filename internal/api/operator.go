package api

import (
	"context"
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
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"profile must be one of %v, got %q", tenant.Profiles(), body.Profile)})
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
		ThresholdLeavers  *int            `json:"thresholdLeavers"`
		ThresholdShare    *float64        `json:"thresholdShare"`
		ThresholdWindow   *int            `json:"thresholdWindowSeconds"`
		Orphans           *tenant.Orphans `json:"orphans"`

		UnknownAgents  *tenant.UnknownAgents `json:"unknownAgents"`
		SubjectIssuers *[]string             `json:"subjectIssuers"`
		IPSIE          *bool                 `json:"ipsie"`
		WaiverApproval *bool                 `json:"waiverApproval"`
		EvidenceDays   *int                  `json:"evidenceDays"`
		LegalHold      *string               `json:"legalHold"`
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	if body.Profile != nil && !slices.Contains(tenant.Profiles(), *body.Profile) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"profile must be one of %v, got %q", tenant.Profiles(), *body.Profile)})
		return
	}
	to := tenant.Settings(body)
	// An operator sets or tightens a threshold; only an approver, who is another person, loosens it.
	approver := caller(r).Class == auth.ClassApprover
	if approver && !to.OnlyThreshold() {
		s.fail(w, r, httpjson.Problem{
			Status: http.StatusForbidden,
			Detail: "an approver's token may change only thresholdLeavers, thresholdShare, thresholdWindowSeconds, " +
				"waiverApproval, evidenceDays and legalHold",
		})
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

// listAdminActs serves a page of the administrative acts on a tenant, or on the installation.
func (s *Server) listAdminActs(w http.ResponseWriter, r *http.Request) {
	serveAfter(s, w, r, s.Audit.List, func(a audit.Act) int64 { return a.ID })
}

// serveAfter serves a page of a list whose items are numbered, after the number in the cursor.
func serveAfter[T any](
	s *Server, w http.ResponseWriter, r *http.Request,
	list func(ctx context.Context, tenant uuid.UUID, after int64, limit int) ([]T, error), number func(item T) int64,
) {
	limit, err := limit(r)
	var after int64
	if err == nil {
		after, err = queryCursor(r)
	}
	var items []T
	if err == nil {
		items, err = list(r.Context(), tenantOf(r).ID, after, limit)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(items) == limit {
		next = strconv.FormatInt(number(items[len(items)-1]), 10)
	}
	answerPage(w, items, next)
}

func (s *Server) listTokens(w http.ResponseWriter, r *http.Request) {
	tokens, err := s.Auth.Tokens(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, tokens, "")
}

// issued is the response to a token's creation, the only one that contains its secret.
type issued struct {
	auth.Token
	Secret string `json:"secret"`
}

// maxTTL limits the lifetime of a token.
const maxTTL = 100 * 365 * 24 * time.Hour

func (s *Server) createToken(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Class       auth.Class `json:"class"`
		Description string     `json:"description"`
		TTL         int64      `json:"ttlSeconds"`
		Issuer      string     `json:"issuer"`
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	of := tenantOf(r).ID
	allowed := []auth.Class{auth.ClassSCIM, auth.ClassPlatform, auth.ClassReceiver}
	if of == uuid.Nil {
		allowed = auth.OperatorClasses()
	}
	switch {
	case !slices.Contains(allowed, body.Class):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"class must be one of %v on this path, got %q", allowed, body.Class)})
		return
	case body.TTL < 0 || body.TTL > int64(maxTTL/time.Second):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"ttlSeconds must be between 0 and %d, got %d", int64(maxTTL/time.Second), body.TTL)})
		return
	case body.Issuer != "" && (body.Class != auth.ClassPlatform || !tenant.ValidIssuer(body.Issuer)):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"issuer must be an absolute URL, and is for tokens of class platform, got %q", body.Issuer)})
		return
	case len(body.Description) > maxReference || httpjson.HasControl(body.Description):
		s.fail(w, r, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"description must be at most %d bytes without control characters", maxReference)})
		return
	}
	token, secret, err := s.Auth.Issue(r.Context(), of, auth.NewToken{
		Class: body.Class, Description: body.Description, TTL: time.Duration(body.TTL) * time.Second, Issuer: body.Issuer,
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

// createSignIn creates a link that opens one session of the caller's token at the console. The secret is in the
// fragment, which browsers do not send, so that no log has it.
func (s *Server) createSignIn(w http.ResponseWriter, r *http.Request) {
	if auth.IsSession(auth.Bearer(r.Header)) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusForbidden, Detail: "a session opens no other session: use a token"})
		return
	}
	secret, err := s.Auth.NewSignIn(r.Context(), caller(r).TokenID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, SignIn{
		URL:       httpjson.PageURL(r, s.PublicURL) + ConsolePath + "/sign-in#" + secret,
		ExpiresAt: time.Now().Add(auth.SignInTTL).UTC().Truncate(time.Second),
	})
}

// openSession opens a session by the secret of a sign-in, for the command line.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request) {
	var body struct {
		SignIn string `json:"signIn"`
	}
	err := httpjson.Decode(w, r, &body)
	if err == nil && !auth.IsSignIn(body.SignIn) {
		err = auth.ErrSignIn
	}
	var session string
	if err == nil {
		session, err = s.Auth.OpenSession(r.Context(), body.SignIn)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, map[string]string{"token": session})
}

// ConsolePath is the path of the console.
const ConsolePath = "/console"

// SignIn is the response to the creation of a sign-in.
type SignIn struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (s *Server) listCredentials(w http.ResponseWriter, r *http.Request) {
	s.listItems(w, r, connectors.Kinds())
}

// getItem serves an item with the history of its states.
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
