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

// ShownCascade is a cascade as operators read it.
type ShownCascade struct {
	cascade.Cascade
	PrincipalName string `json:"principalName"`
	// Waiting is what an open cascade waits for. A list leaves it out.
	Waiting []Waiting `json:"waiting,omitempty"`
	// Unbound are unmanaged credentials that the cascade found: they are not ended.
	Unbound []credential.Unbound `json:"unbound,omitempty"`
}

// Waiting is an item, a connector that is asked what it holds, or the workflow itself, with
// what is known of the attempts.
type Waiting struct {
	Item      *uuid.UUID      `json:"itemId,omitempty"` // nil: the connector is asked what it holds
	Kind      connectors.Kind `json:"kind,omitempty"`
	Connector string          `json:"connector,omitempty"` // empty: no worker runs the workflow
	Attempts  int             `json:"attempts"`
	Answer    string          `json:"answer"` // the last one
	NextTry   *time.Time      `json:"nextTry,omitempty"`
	Deadline  *time.Time      `json:"deadline,omitempty"`
}

const (
	// maxWaiting bounds what an answer tells of a cascade.
	maxWaiting = 100
	// temporalTimeout bounds what an answer waits for Temporal, which it can do without.
	temporalTimeout = 2 * time.Second
)

func (s *Server) shownCascade(ctx context.Context, tenant uuid.UUID, c *cascade.Cascade) (ShownCascade, error) {
	shown := ShownCascade{Cascade: *c}
	names, err := s.names(ctx, tenant, c.Principal)
	if err != nil {
		return shown, err
	}
	shown.PrincipalName = names[c.Principal]
	if shown.Unbound, err = s.Credentials.Unbound(ctx, tenant, credential.UnboundQuery{Event: &c.ID, Limit: maxWaiting}); err != nil {
		return shown, err
	}
	if c.ClosedAt == nil {
		shown.Waiting, err = s.waiting(ctx, tenant, c)
	}
	return shown, err
}

// waiting returns what an open cascade waits for. PostgreSQL knows the answers of downstreams,
// Temporal the tries.
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
		s.Log.WarnContext(ctx, "failed to ask Temporal what a cascade waits for", "workflow_id", c.WorkflowID, "error", err)
	}
	var waiting []Waiting
	if c.StartedAt != nil && c.BegunAt == nil && time.Since(*c.StartedAt) > time.Second {
		waiting = append(waiting, Waiting{Answer: "no worker has taken up the workflow: start `leaver worker`"})
	}
	for _, p := range pending {
		if connector, ok := strings.CutPrefix(p.ID, "find:"); ok {
			waiting = append(waiting, Waiting{Connector: connector, Attempts: p.Attempts, Answer: p.Answer, NextTry: p.NextTry, Deadline: p.Deadline})
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
			waiting[n].Answer = "no connector of this name is configured here"
		case w.Answer == "":
			waiting[n].Answer = "no attempt has failed yet: is a worker running?"
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
