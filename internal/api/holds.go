package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/registry"
)

func (s *Server) listHolds(w http.ResponseWriter, r *http.Request) {
	holds, err := s.Threshold.Holds(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, holds, "")
}

type reason struct {
	Reason string `json:"reason"`
}

func readReason(w http.ResponseWriter, r *http.Request) (string, error) {
	var body reason
	if err := httpjson.Decode(w, r, &body); err != nil {
		return "", err
	}
	err := checkReason(&body.Reason)
	return body.Reason, err
}

// approveHold approves the cascades that the deactivation threshold holds, and signals each one. A
// cascade that cannot be signalled polls for the approval within the hour. A request that names
// heldCascades is refused if more are held.
func (s *Server) approveHold(w http.ResponseWriter, r *http.Request) {
	var body struct {
		reason
		HeldCascades int `json:"heldCascades"`
	}
	err := httpjson.Decode(w, r, &body)
	if err == nil {
		err = checkReason(&body.Reason)
	}
	of := tenantOf(r).ID
	var id uuid.UUID
	if err == nil {
		id, err = s.Threshold.Approve(r.Context(), of, caller(r).Actor(), body.Reason, body.HeldCascades)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	signalled, pending := s.notifyApproved(context.WithoutCancel(r.Context()), of, id)
	httpjson.Answer(w, http.StatusOK, map[string]any{"id": id, "signalled": signalled, "pending": pending})
}

const releasePage = 500

func (s *Server) notifyApproved(ctx context.Context, tenant, id uuid.UUID) (signalled, pending int) {
	for after := int64(0); ; {
		waiting, last, err := s.Threshold.HeldWorkflows(ctx, tenant, id, after, releasePage)
		if err != nil {
			s.Log.ErrorContext(ctx, "failed to list the approved cascades; they will poll for the approval", "error", err)
			return signalled, pending + 1
		}
		for _, workflow := range waiting {
			if err := s.Runner.Approve(ctx, workflow); err != nil {
				s.Log.WarnContext(ctx, "failed to signal the approval; the cascade will poll for it",
					"workflow_id", workflow, "error", err)
				pending++
				continue
			}
			signalled++
		}
		if len(waiting) < releasePage {
			return signalled, pending
		}
		after = last
	}
}

// ShownConnector is a configured connector with its backlog and its pause.
type ShownConnector struct {
	registry.Description
	health.Backlog
	Paused *registry.Pause `json:"paused,omitempty"`
}

// listConnectors lists the configured connectors.
func (s *Server) listConnectors(w http.ResponseWriter, r *http.Request) {
	pauses, err := s.Pauses.All(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	backlogs, err := s.Health.Backlogs(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var all []ShownConnector
	for _, c := range s.Connectors.Describe() {
		of := ShownConnector{Description: c, Backlog: backlogs[c.Name]}
		if pause, ok := pauses[c.Name]; ok {
			of.Paused = &pause
		}
		all = append(all, of)
	}
	answerPage(w, all, "")
}

func (s *Server) pauseConnector(w http.ResponseWriter, r *http.Request) {
	s.changeConnector(w, r, s.Pauses.Pause)
}

func (s *Server) resumeConnector(w http.ResponseWriter, r *http.Request) {
	s.changeConnector(w, r, s.Pauses.Resume)
}

func (s *Server) changeConnector(
	w http.ResponseWriter, r *http.Request, change func(ctx context.Context, connector, by, reason string) error,
) {
	name := chi.URLParam(r, "name")
	why, err := readReason(w, r)
	known := slices.ContainsFunc(s.Connectors.Describe(), func(c registry.Description) bool { return c.Name == name })
	if err == nil && !known {
		err = httpjson.Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("no connector named %q is configured", name)}
	}
	if err == nil {
		err = change(r.Context(), name, caller(r).Actor(), why)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
