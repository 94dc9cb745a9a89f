package authzen

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/tenant"
)

const (
	// BasePath is the mount path of [Server.Access]. AuthZEN 1.0 uses the same path.
	BasePath = "/access/v1"
	// MetadataPath is the path of the metadata document (AuthZEN 1.0 section 9).
	MetadataPath = "/.well-known/authzen-configuration"

	maxEvaluations = 100
)

// Server serves the AuthZEN endpoints.
type Server struct {
	Store *Store
	Auth  *auth.Store
	// PublicURL is the base URL for clients. If it is empty, the request's host is used.
	PublicURL string
	Log       *slog.Logger
}

// Handler returns the endpoints of the OpenID AuthZEN Authorization API 1.0. They require a
// token of class platform or gateway, or a client's access token with the scope authzen.
func (s *Server) Handler() http.Handler {
	r := chi.NewRouter()
	httpjson.RefuseUnknown(r, s.Log)
	r.Use(echoRequestID, bounded, s.Auth.Require(s.Log, auth.ClassPlatform, auth.ClassGateway))
	r.Post("/evaluation", s.evaluate)
	r.Post("/evaluations", s.evaluateAll)
	r.Post("/search/resource", s.searchResources)
	r.Post("/search/subject", s.searchSubjects)
	return r
}

// bounded limits the duration of a request, including its authentication, to decideTimeout.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), decideTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// metadataAge is how long gateways may cache the metadata (AuthZEN 1.0 section 11.9).
const metadataAge = time.Hour

// Metadata serves the AuthZEN metadata document, which contains the endpoint URLs.
func (s *Server) Metadata(w http.ResponseWriter, r *http.Request) {
	base := httpjson.BaseURL(r, s.PublicURL)
	httpjson.AnswerCacheable(w, metadataAge, map[string]string{
		"policy_decision_point": base, "access_evaluation_endpoint": base + BasePath + "/evaluation",
		"access_evaluations_endpoint": base + BasePath + "/evaluations",
		"search_resource_endpoint":    base + BasePath + "/search/resource",
		"search_subject_endpoint":     base + BasePath + "/search/subject",
	})
}

// echoRequestID copies the request's X-Request-ID to the response (AuthZEN 1.0 section 10.1.3).
func echoRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("X-Request-ID"); id != "" {
			w.Header().Set("X-Request-ID", id)
		}
		next.ServeHTTP(w, r)
	})
}

// entity is a subject or a resource of AuthZEN.
type entity struct {
	Type       string     `json:"type"`
	ID         string     `json:"id"`
	Properties properties `json:"properties"`
}

// properties are the properties that decisions use. Others are ignored.
type properties struct {
	OnBehalfOf any `json:"on_behalf_of"`
	OwnerID    any `json:"ownerID"`
	// IDs are the candidates of a resource search; leaver's own property.
	IDs []string `json:"ids"`
}

type action struct {
	Name       string         `json:"name"`
	Properties map[string]any `json:"properties"` // ignored, and an object (section 5.3)
}

// evaluation is one access evaluation. In a batch, the top level of the body has the defaults.
type evaluation struct {
	Subject  *entity      `json:"subject"`
	Action   *action      `json:"action"`
	Resource *entity      `json:"resource"`
	Context  *surrounding `json:"context"`
}

// surrounding is the part of an evaluation's context that decisions use: the agent through which
// the subject acts, by its SCIM id or name.
type surrounding struct {
	Agent any `json:"agent"`
}

// orDefaults returns the evaluation with the batch's defaults in place of its missing members. A
// member that is given replaces the default as a whole (AuthZEN 1.0 section 7.1.1).
func (e evaluation) orDefaults(top evaluation) evaluation {
	return evaluation{
		Subject: cmp.Or(e.Subject, top.Subject), Resource: cmp.Or(e.Resource, top.Resource),
		Action: cmp.Or(e.Action, top.Action), Context: cmp.Or(e.Context, top.Context),
	}
}

// questions returns the questions that an evaluation of a caller asks. If context.agent is set and
// the subject is a user or an identity, the agent acts on behalf of that principal. If the subject is
// another agent, both agents must be allowed.
func (e evaluation) questions(by auth.Caller) ([]Question, error) {
	q, err := e.question()
	q.Issuers, q.AgentOptional = by.NameIssuers(), by.Tenant.UnknownAgents == tenant.UnknownAgentsAllow
	if err != nil || e.Context == nil || e.Context.Agent == nil {
		return []Question{q}, err
	}
	agent, err := property(e.Context.Agent, "context.agent")
	if err == nil && httpjson.HasControl(agent) {
		err = httpjson.Problem{Status: http.StatusBadRequest, Detail: "context.agent must not contain control characters"}
	}
	through := q
	switch q.SubjectType {
	case directory.TypeUser, AnyType:
		through.through(agent)
		return []Question{through}, err
	case directory.TypeAgent:
		if q.Subject == agent {
			return []Question{q}, err
		}
		through.Subject, through.Through = agent, true
		return []Question{through, q}, err
	}
	return []Question{q}, err // another type of subject is denied as unknown
}

// question returns the question of an evaluation without its context. The subject's property
// on_behalf_of names the user for whom an agent acts, the resource's property ownerID its owner.
func (e evaluation) question() (Question, error) {
	missing := func(what string) (Question, error) {
		return Question{}, httpjson.Problem{Status: http.StatusBadRequest, Detail: what + " is required"}
	}
	switch {
	case e.Subject == nil || e.Subject.Type == "" || e.Subject.ID == "":
		return missing("subject with type and id")
	case e.Action == nil || e.Action.Name == "":
		return missing("action with name")
	case e.Resource == nil || e.Resource.Type == "" || e.Resource.ID == "":
		return missing("resource with type and id")
	case strings.HasSuffix(e.Action.Name, ownSuffix):
		return Question{}, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"action.name must not end in %s, got %q; name the owner in resource.properties.ownerID", ownSuffix, e.Action.Name)}
	}
	q := Question{
		OnBehalfOfType: directory.TypeUser, Subject: e.Subject.ID, Action: e.Action.Name,
		ResourceType: foldType(e.Resource.Type), Resource: e.Resource.ID,
	}
	switch strings.ToLower(e.Subject.Type) {
	case "user":
		q.SubjectType = directory.TypeUser
	case "agent":
		q.SubjectType = directory.TypeAgent
	case "identity": // the sub of a token (COAZ-MCP)
		q.SubjectType, q.Identity = AnyType, true
	default:
		q.SubjectType = e.Subject.Type // denied as unknown
	}
	var err error
	q.OnBehalfOf, err = property(e.Subject.Properties.OnBehalfOf, "subject.properties.on_behalf_of")
	// A resource's properties are its owner's: a value of another type names no principal.
	q.Owner, _ = e.Resource.Properties.OwnerID.(string)
	if err == nil && httpjson.HasControl(
		q.SubjectType, q.Subject, q.OnBehalfOf, q.Action, q.ResourceType, q.Resource, q.Owner,
	) {
		err = httpjson.Problem{Status: http.StatusBadRequest, Detail: "the evaluation must not contain control characters"}
	}
	return q, err
}

// ownSuffix marks scopes for resources that the principal owns. Action names must not have it.
const ownSuffix = ":own"

// foldType returns the canonical spelling of a built-in resource type, ignoring case and spaces,
// so that a variant such as "Team" is not evaluated as another type. Other types are unchanged.
func foldType(name string) string {
	folded := strings.ToLower(strings.TrimSpace(name))
	switch folded {
	case "credential", "connector", "team":
		return folded
	}
	return name
}

// property returns a string property, or "" if it is absent. A value of another type is an error:
// without it, the decision would be about another request.
func property(value any, name string) (string, error) {
	if value == nil {
		return "", nil
	}
	text, ok := value.(string)
	if !ok || text == "" {
		return "", httpjson.Problem{Status: http.StatusBadRequest, Detail: name + " must be a non-empty string"}
	}
	return text, nil
}

// decision is the response to an evaluation. The context of a denial contains the reason, and that of
// a permit when it ends by itself.
type decision struct {
	Decision bool           `json:"decision"`
	Context  map[string]any `json:"context,omitempty"`
}

// decisionOf returns the decision by the answers to an evaluation's questions: the first reason to
// deny, or else the earliest end of a permit.
func decisionOf(answers ...Answer) decision {
	d := decision{Decision: true}
	var until *time.Time
	for _, a := range answers {
		if a.Reason != Allow {
			return decision{Context: map[string]any{"reason": a.Reason}}
		}
		until = earlier(until, a.Until)
	}
	if until != nil {
		d.Context = map[string]any{"validUntil": until.UTC()}
	}
	return d
}

// decideTimeout limits the duration of a request. Gateways give up earlier, and the request would
// occupy a database connection that others need.
const decideTimeout = 2 * time.Second

func (s *Server) decide(r *http.Request, questions ...Question) ([]Answer, error) {
	ctx := r.Context()
	answers, err := s.Store.Decide(ctx, auth.CallerOf(r).Tenant.ID, questions...)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(database.ErrUnavailable, err)
	}
	return answers, err
}

// The encoded response of most evaluations, and its headers.
var (
	allowed  = []byte(`{"decision":true}` + "\n")
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

func (s *Server) evaluate(w http.ResponseWriter, r *http.Request) {
	var e evaluation
	err := httpjson.DecodeLoosely(w, r, &e)
	if err == nil {
		err = s.answerOne(w, r, e)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
	}
}

func (s *Server) answerOne(w http.ResponseWriter, r *http.Request, e evaluation) error {
	questions, err := e.questions(auth.CallerOf(r))
	if err != nil {
		return err
	}
	answers, err := s.decide(r, questions...)
	if err != nil {
		return err
	}
	if d := decisionOf(answers...); !d.Decision || d.Context != nil {
		httpjson.Answer(w, http.StatusOK, d)
		return nil
	}
	w.Header()["Content-Type"], w.Header()["Cache-Control"] = jsonType, noStore
	_, _ = w.Write(allowed) // fails only if the client has disconnected
	return nil
}

// batch is the body of /evaluations.
type batch struct {
	evaluation
	Evaluations []json.RawMessage `json:"evaluations"`
	Options     struct {
		Semantic string `json:"evaluations_semantic"`
	} `json:"options"`
}

func (s *Server) evaluateAll(w http.ResponseWriter, r *http.Request) {
	var b batch
	err := httpjson.DecodeLoosely(w, r, &b)
	switch {
	case err != nil:
	case len(b.Evaluations) == 0: // a single evaluation, as at the other endpoint
		err = s.answerOne(w, r, b.evaluation)
	case len(b.Evaluations) > maxEvaluations:
		err = httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"evaluations must have at most %d entries, got %d", maxEvaluations, len(b.Evaluations))}
	default:
		err = s.answerAll(w, r, b)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
	}
}

// answerAll evaluates a batch in order and stops according to evaluations_semantic. A malformed
// evaluation is denied with an error in its context, and does not fail the batch.
func (s *Server) answerAll(w http.ResponseWriter, r *http.Request, b batch) error {
	stop, ok := map[string]func(bool) bool{
		"": func(bool) bool { return false }, "execute_all": func(bool) bool { return false },
		"deny_on_first_deny":     func(allowed bool) bool { return !allowed },
		"permit_on_first_permit": func(allowed bool) bool { return allowed },
	}[b.Options.Semantic]
	if !ok {
		return httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"evaluations_semantic must be one of execute_all, deny_on_first_deny, permit_on_first_permit, got %q",
			b.Options.Semantic)}
	}
	decisions := make([]decision, len(b.Evaluations))
	var questions []Question
	asked := make([]int, len(b.Evaluations)) // how many questions each evaluation asks
	for i, raw := range b.Evaluations {
		var e evaluation
		var of []Question
		err := httpjson.DecodeLoose(raw, &e)
		if err == nil {
			of, err = e.orDefaults(b.evaluation).questions(auth.CallerOf(r))
		}
		if err != nil {
			decisions[i].Context = map[string]any{
				"error": map[string]any{"status": http.StatusBadRequest, "message": err.Error()},
			}
			continue
		}
		questions, asked[i] = append(questions, of...), len(of)
	}
	answers, err := s.decide(r, questions...)
	if err != nil {
		return err
	}
	for i, n := range asked {
		if n > 0 {
			decisions[i], answers = decisionOf(answers[:n]...), answers[n:]
		}
	}
	for i, d := range decisions {
		if stop(d.Decision) {
			decisions = decisions[:i+1]
			break
		}
	}
	httpjson.Answer(w, http.StatusOK, map[string]any{"evaluations": decisions})
	return nil
}
