package authzen

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// searchPage is the number of candidates that a search decides about at a time.
const searchPage = maxEvaluations

// search is the body of a search (AuthZEN 1.0 section 8). The searched entity has no id.
type search struct {
	Subject  *entity      `json:"subject"`
	Action   *action      `json:"action"`
	Resource *entity      `json:"resource"`
	Context  *surrounding `json:"context"`
	Page     struct {
		Token string `json:"token"`
	} `json:"page"`
}

// found is a response: the permitted candidates of a page, and the token of the next page, if any.
type found struct {
	Page struct {
		NextToken string `json:"next_token"`
	} `json:"page"`
	Results []identified `json:"results"`
}

type identified struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// searchResources returns the resources of a type on which the subject may act: of those that the request
// lists in resource.properties.ids, or else of those that the tenant's rules name.
func (s *Server) searchResources(w http.ResponseWriter, r *http.Request) {
	s.search(w, r, func(ctx context.Context, of uuid.UUID, q search) (candidates []evaluation, next string, err error) {
		if q.Resource == nil || q.Resource.Type == "" {
			return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: "resource with type is required"}
		}
		if q.Action == nil || q.Action.Name == "" {
			return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: "action with name is required"}
		}
		if httpjson.HasControl(q.Action.Name, q.Page.Token) {
			return nil, "", httpjson.Problem{
				Status: http.StatusBadRequest, Detail: "action.name and page.token must not have control characters",
			}
		}
		ids := q.Resource.Properties.IDs
		if ids == nil {
			if ids, next, err = s.Store.named(ctx, of, q); err != nil {
				return nil, "", err
			}
		}
		if len(ids) > searchPage {
			return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"resource.properties.ids must have at most %d entries, got %d", searchPage, len(ids))}
		}
		for _, id := range ids {
			resource := *q.Resource
			resource.ID = id
			candidates = append(candidates, evaluation{q.Subject, q.Action, &resource, q.Context})
		}
		return candidates, next, nil
	}, func(e evaluation) identified { return identified{e.Resource.Type, e.Resource.ID} })
}

// searchSubjects returns the users or agents that may act on a resource, a page of the directory at a
// time. A page may be empty and have a next one.
func (s *Server) searchSubjects(w http.ResponseWriter, r *http.Request) {
	s.search(w, r, func(ctx context.Context, of uuid.UUID, q search) (candidates []evaluation, next string, err error) {
		types := map[string]string{"user": directory.TypeUser, "agent": directory.TypeAgent}
		if q.Subject == nil || types[strings.ToLower(q.Subject.Type)] == "" {
			return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: "subject must have the type user or agent"}
		}
		ids, next, err := s.Store.principals(ctx, of, types[strings.ToLower(q.Subject.Type)], q.Page.Token)
		if err != nil {
			return nil, "", err
		}
		for _, id := range ids {
			subject := *q.Subject
			subject.ID = id.String()
			candidates = append(candidates, evaluation{&subject, q.Action, q.Resource, q.Context})
		}
		return candidates, next, nil
	}, func(e evaluation) identified { return identified{e.Subject.Type, e.Subject.ID} })
}

// search decides about a page of candidates and serves the permitted ones.
func (s *Server) search(w http.ResponseWriter, r *http.Request,
	candidatesOf func(context.Context, uuid.UUID, search) ([]evaluation, string, error),
	show func(evaluation) identified,
) {
	var q search
	err := httpjson.DecodeLoosely(w, r, &q)
	by := auth.CallerOf(r)
	var candidates []evaluation
	answer := found{Results: []identified{}}
	if err == nil {
		candidates, answer.Page.NextToken, err = candidatesOf(r.Context(), by.Tenant.ID, q)
	}
	var questions []Question
	asked := make([]int, len(candidates))
	for i, c := range candidates {
		var of []Question
		if of, err = c.questions(by); err != nil {
			break
		}
		questions, asked[i] = append(questions, of...), len(of)
	}
	var answers []Answer
	if err == nil && len(questions) > 0 {
		answers, err = s.decide(r, questions...)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	for i, n := range asked {
		if decisionOf(answers[:n]...).Decision {
			answer.Results = append(answer.Results, show(candidates[i]))
		}
		answers = answers[n:]
	}
	httpjson.Answer(w, http.StatusOK, answer)
}

// named returns a page of the ids of resources that the tenant's rules name: teams, and resources of MCP
// with a scope of their own for the action.
func (s *Store) named(ctx context.Context, tenant uuid.UUID, q search) (ids []string, next string, err error) {
	kind := foldType(q.Resource.Type)
	prefix := "team:"
	switch {
	case isMCP(kind, q.Action.Name):
		prefix = "scope:" + q.Action.Name + ":"
	case kind != "team":
		return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"resource.properties.ids is required: rules name no resources of type %q", q.Resource.Type)}
	}
	names, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[string], `
		select distinct g collate "C" from unnest((
		    select grants from mappings where tenant_id = $1 order by version desc limit 1)) g
		 where starts_with(g, $2) and substr(g, length($2) + 1) collate "C" > $3 order by 1 limit $4`,
		tenant, prefix, q.Page.Token, searchPage+1)
	if err != nil {
		return nil, "", fmt.Errorf("list the resources that the rules name: %w", err)
	}
	for _, name := range names {
		if id := strings.TrimPrefix(name, prefix); id != "own" || prefix == "team:" { // scope:…:own is no resource's
			ids = append(ids, id)
		}
	}
	if len(names) > searchPage {
		ids = ids[:searchPage]
		next = ids[len(ids)-1]
	}
	return ids, next, nil
}

// principals returns a page of the ids of a tenant's live principals of a type. after is the last id of
// the previous page; empty for the first.
func (s *Store) principals(
	ctx context.Context, tenant uuid.UUID, kind, after string,
) (ids []uuid.UUID, next string, err error) {
	last := uuid.Nil
	if after != "" {
		if last, err = uuid.Parse(after); err != nil {
			return nil, "", httpjson.Problem{Status: http.StatusBadRequest, Detail: "page.token is not one of a previous page"}
		}
	}
	ids, err = database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		select id from resources where tenant_id = $1 and type = $2 and deleted_at is null and id > $3
		 order by id limit $4`, tenant, kind, last, searchPage+1)
	if err != nil {
		return nil, "", fmt.Errorf("list principals: %w", err)
	}
	if len(ids) > searchPage {
		ids = ids[:searchPage]
		next = ids[searchPage-1].String()
	}
	return ids, next, nil
}
