package api

import (
	"errors"
	"net/http"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// listUnbound answers what connectors found and nobody registered.
func (s *Server) listUnbound(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, err := cursorID(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	found, err := s.Credentials.Unbound(r.Context(), tenantOf(r).ID, credential.UnboundQuery{After: after, Limit: n})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(found) == n {
		next = found[n-1].ID.String()
	}
	answerPage(w, found, next)
}

// bind makes something unbound somebody's. Where that one is gone already, a
// cascade ends it at once.
func (s *Server) bind(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Principal uuid.UUID  `json:"principalId"`
		Agent     *uuid.UUID `json:"agentId"`
		Reason    string     `json:"reason"`
	}
	id, err := pathID(r)
	if err == nil {
		err = httpjson.Decode(w, r, &body)
	}
	if err == nil {
		err = checkReason(&body.Reason)
	}
	if err == nil && body.Principal == uuid.Nil {
		err = httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: "principalId is missing"}
	}
	of, by := tenantOf(r).ID, caller(r).Actor()
	var bound struct {
		*credential.Item
		Cascade *uuid.UUID `json:"startedCascadeId,omitempty"`
	}
	restricted := false
	if err == nil {
		bound.Item, restricted, err = s.Credentials.Bind(r.Context(), of, id, body.Principal, body.Agent, by, body.Reason)
	}
	if err == nil && restricted {
		var event *lifecycle.Event
		if event, err = s.Lifecycle.EndAgain(r.Context(), of, body.Principal, lifecycle.Cause{Trigger: lifecycle.TriggerBound, Actor: by}); err == nil {
			bound.Cascade = &event.ID
		}
		if errors.Is(err, lifecycle.ErrNotRestricted) {
			err = nil // back by now, or only the agent is gone: the reconciler sees to that
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, bound)
}
