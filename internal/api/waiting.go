package api

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// ShownCascade is the response for a cascade.
type ShownCascade struct {
	cascade.Cascade
	PrincipalName string `json:"principalName"`
	// Waiting lists the pending work of an open cascade. Lists of cascades omit it.
	Waiting []Waiting `json:"waiting,omitempty"`
	// Held is whether an open cascade waits for the approval of a mass deactivation. Lists of cascades omit it.
	Held bool `json:"held,omitempty"`
	// Unmanaged lists unmanaged credentials that the cascade found. It does not end them.
	Unmanaged []credential.Unmanaged `json:"unmanaged,omitempty"`
}

// Waiting is a pending item, the pending discovery of a connector, or a workflow that no worker runs,
// with the state of its attempts.
type Waiting struct {
	Item      *uuid.UUID      `json:"itemId,omitempty"` // nil for a discovery or a workflow
	Kind      connectors.Kind `json:"kind,omitempty"`
	Connector string          `json:"connector,omitempty"` // empty for a workflow
	Attempts  int             `json:"attempts"`
	Answer    string          `json:"answer"` // of the last attempt
	NextTry   *time.Time      `json:"nextTry,omitempty"`
	Deadline  *time.Time      `json:"deadline,omitempty"`
}

const (
	// maxWaiting limits the pending items and unmanaged credentials in a response.
	maxWaiting = 100
	// temporalTimeout limits the query to Temporal. The response does not depend on its success.
	temporalTimeout = 2 * time.Second
)

func (s *Server) shownCascade(ctx context.Context, tenant uuid.UUID, c *cascade.Cascade) (ShownCascade, error) {
	shown := ShownCascade{Cascade: *c}
	names, err := s.names(ctx, tenant, c.Principal)
	if err != nil {
		return shown, err
	}
	shown.PrincipalName = names[c.Principal]
	q := credential.UnmanagedQuery{Event: &c.ID, Limit: maxWaiting}
	if shown.Unmanaged, err = s.Credentials.Unmanaged(ctx, tenant, q); err != nil {
		return shown, err
	}
	if c.ClosedAt != nil {
		return shown, nil
	}
	if shown.Held, err = s.Threshold.Held(ctx, tenant, c.ID); err != nil {
		return shown, err
	}
	shown.Waiting, err = s.waiting(ctx, tenant, c)
	return shown, err
}

// waiting returns the pending work of an open cascade. The answers of downstreams come from
// PostgreSQL, the attempts from Temporal.
func (s *Server) waiting(ctx context.Context, tenant uuid.UUID, c *cascade.Cascade) ([]Waiting, error) {
	items, err := s.Cascades.WaitsFor(ctx, tenant, c.ID, maxWaiting)
	if err != nil {
		return nil, err
	}
	pauses, err := s.Pauses.All(ctx)
	if err != nil {
		return nil, err
	}
	asked, cancel := context.WithTimeout(ctx, temporalTimeout)
	defer cancel()
	pending, err := s.Runner.Pending(asked, c.WorkflowID)
	if err != nil {
		s.Log.WarnContext(ctx, "failed to query pending activities", "workflow_id", c.WorkflowID, "error", err)
	}
	var waiting []Waiting
	if c.StartedAt != nil && c.BegunAt == nil && time.Since(*c.StartedAt) > time.Second {
		waiting = append(waiting, Waiting{Answer: "no worker has taken up the workflow: start `leaver worker`"})
	}
	for _, p := range pending {
		if connector, ok := strings.CutPrefix(p.ID, "find:"); ok {
			waiting = append(waiting, Waiting{
				Connector: connector, Attempts: p.Attempts, Answer: p.Answer, NextTry: p.NextTry, Deadline: p.Deadline,
			})
		}
	}
	for _, i := range items {
		w := Waiting{Item: &i.Item, Kind: i.Kind, Connector: i.Connector, Attempts: i.Attempts, Answer: i.Answer}
		for _, p := range pending {
			if strings.Contains(p.ID, i.Item.String()) || strings.HasPrefix(p.ID, "batch:"+i.Connector+":") {
				if w.Attempts == 0 && p.Answer != "" {
					w.Answer = p.Answer
				}
				w.Attempts, w.NextTry, w.Deadline = max(w.Attempts, p.Attempts), p.NextTry, p.Deadline
			}
		}
		waiting = append(waiting, w)
	}
	for n, w := range waiting {
		pause, paused := pauses[w.Connector]
		switch {
		case w.Connector == "": // the workflow itself
		case paused:
			waiting[n].Answer = "paused by an operator: " + pause.Reason
		case !s.configured(w.Connector):
			waiting[n].Answer = "the connector is not configured in this process"
		case w.Answer == "":
			waiting[n].Answer = "no attempt has failed yet; check that a worker is running"
		}
	}
	return waiting, nil
}

func (s *Server) configured(connector string) bool {
	for _, c := range s.Connectors.Describe() {
		if c.Name == connector {
			return true
		}
	}
	return false
}
