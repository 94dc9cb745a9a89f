package api

import (
	"errors"
	"net/http"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// listUnmanaged lists the credentials that connectors found and that are not registered.
func (s *Server) listUnmanaged(w http.ResponseWriter, r *http.Request) {
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
	found, err := s.Credentials.Unmanaged(r.Context(), tenantOf(r).ID, credential.UnmanagedQuery{After: after, Limit: n})
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

// claim claims an unmanaged credential for a principal. If the principal is already restricted, a
// cascade ends the credential at once.
func (s *Server) claim(w http.ResponseWriter, r *http.Request) {
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
		err = httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: "principalId is required"}
	}
	of, by := tenantOf(r).ID, caller(r).Actor()
	var claimed struct {
		*credential.Item
		Cascade *uuid.UUID `json:"startedCascadeId,omitempty"`
	}
	restricted := false
	if err == nil {
		claimed.Item, restricted, err = s.Credentials.Claim(r.Context(), of, id, body.Principal, body.Agent,
			s.Connectors.Mints, by, body.Reason)
	}
	if err == nil && restricted {
		var event *lifecycle.Event
		cause := lifecycle.NewCause(r.Context(), lifecycle.TriggerClaimed, by)
		if event, err = s.Lifecycle.EndAgain(r.Context(), of, body.Principal, cause); err == nil {
			claimed.Cascade = &event.ID
		}
		if errors.Is(err, lifecycle.ErrNotRestricted) {
			err = nil // restored in the meantime, or only the agent is restricted: the reconciler handles it
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, claimed)
}
