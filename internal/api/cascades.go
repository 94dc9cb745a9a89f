package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
)

const (
	maxWait  = time.Minute
	waitPoll = 200 * time.Millisecond
)

func (s *Server) listCascades(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	q := cascade.Query{Outcomes: queryList(r, "outcome"), Connector: query.Get("connector")}
	outcomes := []string{"pending", "running", "completed", "failed", "cancelled"}
	if slices.ContainsFunc(q.Outcomes, func(o string) bool { return !slices.Contains(outcomes, o) }) {
		s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"outcome must be a comma-separated list of %s, got %q", strings.Join(outcomes, ", "), query.Get("outcome"))})
		return
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
	if q.Principal, err = s.queryPrincipal(r, "principal"); err != nil {
		s.fail(w, r, err)
		return
	}
	if q.Agent, err = s.queryPrincipal(r, "agent"); err != nil {
		s.fail(w, r, err)
		return
	}
	if q.Before, err = queryCursor(r); err != nil {
		s.fail(w, r, err)
		return
	}
	if text := query.Get("since"); text != "" {
		since, err := time.Parse(time.RFC3339, text)
		if err != nil {
			s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"since must be a time such as 2026-11-27T18:00:00Z, got %q", text)})
			return
		}
		q.Since = &since
	}
	cascades, err := s.Cascades.List(r.Context(), tenantOf(r).ID, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(cascades) == q.Limit {
		next = strconv.FormatInt(cascades[len(cascades)-1].Sequence, 10)
	}
	ids := make([]uuid.UUID, len(cascades))
	for i, c := range cascades {
		ids[i] = c.Principal
	}
	names, err := s.names(r.Context(), tenantOf(r).ID, ids...)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	shown := make([]ShownCascade, len(cascades))
	for i, c := range cascades {
		shown[i] = ShownCascade{Cascade: c, PrincipalName: names[c.Principal]}
	}
	answerPage(w, shown, next)
}

func queryCursor(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("cursor")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"cursor must be the nextCursor of the previous page, got %q", text)}
	}
	return n, nil
}

// getCascade serves a cascade. With the parameter wait=30s it responds when the cascade has closed
// or after that time, whichever is first.
func (s *Server) getCascade(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	wait := time.Duration(0)
	if text := r.URL.Query().Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
			s.fail(w, r, httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"wait must be a duration such as 30s, got %q", text)})
			return
		}
	}
	c, err := s.waitClosed(r.Context(), tenantOf(r).ID, id, min(wait, maxWait))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	shown, err := s.shownCascade(r.Context(), tenantOf(r).ID, c)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, shown)
}

func (s *Server) waitClosed(ctx context.Context, tenant, id uuid.UUID, wait time.Duration) (*cascade.Cascade, error) {
	until := time.Now().Add(wait)
	for {
		c, err := s.Cascades.Get(ctx, tenant, id)
		if err != nil || c.ClosedAt != nil || !time.Now().Before(until) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, nil
		case <-time.After(waitPoll):
		}
	}
}

func (s *Server) listEvidence(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	limit, err := limit(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	after, err := queryCursor(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if _, err := s.Cascades.Get(r.Context(), tenantOf(r).ID, id); err != nil {
		s.fail(w, r, err)
		return
	}
	records, last, err := s.Evidence.ByEvent(r.Context(), tenantOf(r).ID, id, after, limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(records) == limit {
		next = strconv.FormatInt(last, 10)
	}
	answerPage(w, records, next)
}

// act is the request body of an operator's action. The reason is required.
type act struct {
	Reason string    `json:"reason"`
	Item   uuid.UUID `json:"itemId"`
	Until  time.Time `json:"until"` // of a waiver
}

func (s *Server) readAct(w http.ResponseWriter, r *http.Request) (uuid.UUID, act, error) {
	var body act
	id, err := pathID(r)
	if err != nil {
		return id, body, err
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		return id, body, err
	}
	return id, body, checkReason(&body.Reason)
}

// checkReason trims a reason, and returns an error if it is empty or not valid.
func checkReason(reason *string) error {
	if *reason = strings.TrimSpace(*reason); *reason == "" || len(*reason) > maxReference || httpjson.HasControl(*reason) {
		return httpjson.Problem{
			Status: http.StatusUnprocessableEntity, Detail: "reason must be 1 to 512 bytes, no control characters",
		}
	}
	return nil
}

// rerunCascade starts another run of a cascade that closed without success. It processes only the
// unrevoked credentials.
func (s *Server) rerunCascade(w http.ResponseWriter, r *http.Request) {
	id, body, err := s.readAct(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	of := tenantOf(r).ID
	event, err := s.Cascades.Reopen(r.Context(), of, id, caller(r).Actor(), body.Reason)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	run, err := s.Runner.Rerun(r.Context(), event)
	if err != nil {
		s.failTemporal(w, r, err)
		return
	}
	if err := s.Cascades.Running(r.Context(), of, id, event.Kind, run); err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusAccepted, map[string]string{"runId": run})
}

// retryCascade makes a running cascade retry one item, or all of its pending items, immediately.
func (s *Server) retryCascade(w http.ResponseWriter, r *http.Request) {
	id, body, err := s.readAct(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	of := tenantOf(r).ID
	c, err := s.Cascades.Get(r.Context(), of, id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	n, err := s.Runner.Retry(r.Context(), c.WorkflowID, body.Item, caller(r).Actor(), body.Reason)
	if err != nil {
		s.failTemporal(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusAccepted, map[string]int{"retried": n})
}

// cancelCascade cancels a cascade. Items that it has not ended yet stay as they are.
func (s *Server) cancelCascade(w http.ResponseWriter, r *http.Request) {
	id, body, err := s.readAct(w, r)
	var c *cascade.Cascade
	if err == nil {
		c, err = s.cancel(r.Context(), tenantOf(r).ID, id, caller(r).Actor(), body.Reason)
	}
	var shown ShownCascade
	if err == nil {
		shown, err = s.shownCascade(r.Context(), tenantOf(r).ID, c)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, shown)
}

// cancel closes a cascade in PostgreSQL, which every attempt checks before it acts, and then cancels
// its workflow. If Temporal is down, the workflow closes by itself afterwards.
func (s *Server) cancel(ctx context.Context, tenant, id uuid.UUID, by, reason string) (*cascade.Cascade, error) {
	c, err := s.Cascades.Cancel(ctx, tenant, id, by, reason)
	if err != nil {
		return nil, err
	}
	if err := s.Runner.Cancel(ctx, c.WorkflowID); err != nil {
		s.Log.WarnContext(ctx, "failed to cancel a workflow; its attempts are refused all the same",
			"workflow_id", c.WorkflowID, "error", err)
	}
	return c, nil
}

// cascadeOf returns the cascade that an item is in now. It returns an error if the item was never
// in the named cascade or has ended.
func (s *Server) cascadeOf(ctx context.Context, tenant, c, id uuid.UUID) (uuid.UUID, error) {
	item, err := s.Credentials.Get(ctx, tenant, id, connectors.Kinds())
	switch {
	case err != nil:
		return uuid.Nil, err
	case item.Event == nil:
		return uuid.Nil, credential.ErrNotFound
	case item.State != credential.Failed && item.State != credential.Ending && item.State != credential.Waived:
		return uuid.Nil, httpjson.Problem{Status: http.StatusConflict, Detail: fmt.Sprintf(
			"an item in state %s cannot be waived", item.State)}
	}
	if *item.Event != c {
		if had, err := s.Credentials.HadItem(ctx, tenant, c, id); err != nil || !had {
			return uuid.Nil, errors.Join(err, credential.ErrNotFound)
		}
	}
	return *item.Event, nil
}

func (s *Server) listActs(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	var acts []cascade.Done
	var size int
	var after int64
	if err == nil {
		size, err = limit(r)
	}
	if err == nil {
		after, err = queryCursor(r)
	}
	if err == nil {
		_, err = s.Cascades.Get(r.Context(), tenantOf(r).ID, id)
	}
	if err == nil {
		acts, err = s.Cascades.Acts(r.Context(), tenantOf(r).ID, id, after, size)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(acts) == size {
		next = strconv.FormatInt(acts[len(acts)-1].ID, 10)
	}
	answerPage(w, acts, next)
}

// failTemporal is [Server.fail] for requests to Temporal: it reports unknown errors as 503.
func (s *Server) failTemporal(w http.ResponseWriter, r *http.Request, err error) {
	if p := httpjson.ProblemOf(err); p.Status == http.StatusInternalServerError {
		s.Log.ErrorContext(r.Context(), "failed to send a request to Temporal", "path", r.URL.Path, "error", err)
		err = httpjson.Problem{
			Status: http.StatusServiceUnavailable, Detail: "Temporal did not accept the request; try again",
		}
	}
	s.fail(w, r, err)
}
