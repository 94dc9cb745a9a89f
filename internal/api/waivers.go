package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// waive waives the end of one item until a time. If the tenant requires an approval, the waiver waits for it.
func (s *Server) waive(w http.ResponseWriter, r *http.Request) {
	id, body, err := s.readAct(w, r)
	now := time.Now()
	if err == nil && (body.Item == uuid.Nil || !body.Until.After(now) || body.Until.After(now.Add(cascade.MaxWaiver))) {
		err = httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"itemId is required, and until must be within a year from now, got %s", body.Until.Format(time.RFC3339))}
	}
	of, by := tenantOf(r), caller(r).Actor()
	if err == nil {
		id, err = s.cascadeToWaive(r.Context(), of.ID, id, body.Item)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if of.WaiverApproval {
		request, err := s.Cascades.RequestWaiver(r.Context(), of.ID, body.Item, id, by, body.Reason, body.Until)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		httpjson.Answer(w, http.StatusAccepted, map[string]uuid.UUID{"waiverId": request})
		return
	}
	item, err := s.waiveItem(r.Context(), of.ID, id, body.Item, by, body.Reason, body.Until)
	if err != nil {
		s.failTemporal(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, item)
}

// cascadeToWaive returns the cascade that an item of a cascade is in now: another may have taken it over.
func (s *Server) cascadeToWaive(ctx context.Context, tenant, id, item uuid.UUID) (uuid.UUID, error) {
	if _, err := s.Cascades.Get(ctx, tenant, id); err != nil {
		return uuid.Nil, err
	}
	return s.cascadeOf(ctx, tenant, id, item)
}

// waiveItem waives an item of a cascade. A running cascade records the waiver; if the cascade has closed, PostgreSQL
// alone does.
func (s *Server) waiveItem(
	ctx context.Context, tenant, id, item uuid.UUID, by, reason string, until time.Time,
) (*credential.Item, error) {
	c, err := s.Cascades.Get(ctx, tenant, id)
	if err != nil {
		return nil, err
	}
	err = s.Runner.Waive(ctx, c.WorkflowID, item, by, reason, until)
	if errors.Is(err, cascade.ErrNotRunning) {
		err = s.Cascades.Waive(ctx, tenant, item, id, by, reason, until)
	}
	if err != nil {
		return nil, err
	}
	return s.Credentials.Get(ctx, tenant, item, connectors.Kinds())
}

// listWaivers serves the requests for waivers that an approver can decide on.
func (s *Server) listWaivers(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	var open []cascade.Waiver
	if err == nil {
		open, err = s.Cascades.Waivers(r.Context(), tenantOf(r).ID, n)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, open, "")
}

// approveWaiver waives the item of a request, on behalf of the approver.
func (s *Server) approveWaiver(w http.ResponseWriter, r *http.Request) {
	request, why, err := s.readWaiver(w, r)
	of, by := tenantOf(r).ID, caller(r).Actor()
	var id uuid.UUID
	if err == nil {
		id, err = s.cascadeToWaive(r.Context(), of, request.Cascade, request.Item)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reason := fmt.Sprintf("%s (requested by %s; approved: %s)", request.Reason, request.RequestedBy, why)
	item, err := s.waiveItem(r.Context(), of, id, request.Item, by, reason, request.Until)
	if err == nil {
		err = s.Cascades.DecideWaiver(r.Context(), of, request.ID, cascade.Approved, by, why)
	}
	if err != nil {
		s.failTemporal(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, item)
}

// declineWaiver declines a request: the cascade goes on as if it had not been made.
func (s *Server) declineWaiver(w http.ResponseWriter, r *http.Request) {
	request, why, err := s.readWaiver(w, r)
	if err == nil {
		err = s.Cascades.DecideWaiver(r.Context(), tenantOf(r).ID, request.ID, cascade.Declined, caller(r).Actor(), why)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// readWaiver returns the request in the path, and the approver's reason.
func (s *Server) readWaiver(w http.ResponseWriter, r *http.Request) (cascade.Waiver, string, error) {
	id, err := pathID(r)
	var why string
	if err == nil {
		why, err = readReason(w, r)
	}
	if err != nil {
		return cascade.Waiver{}, "", err
	}
	request, err := s.Cascades.Waiver(r.Context(), tenantOf(r).ID, id)
	return request, why, err
}
