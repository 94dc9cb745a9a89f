package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/workflows"
)

// Notifiers names the connectors that are told of a tenant's events.
type Notifiers func(ctx context.Context, tenant uuid.UUID) ([]string, error)

// Starter starts the workflows of lifecycle events. It implements
// lifecycle.Starter.
type Starter struct {
	client client.Client
	policy workflows.Policy
	notify Notifiers
}

// NewStarter returns a starter with that policy.
func NewStarter(c client.Client, policy workflows.Policy, notify Notifiers) *Starter {
	return &Starter{client: c, policy: policy, notify: notify}
}

// Policy fills the defaults into what is configured.
func Policy(c config.Policy) workflows.Policy {
	p := workflows.DefaultPolicy()
	if c.Deadline > 0 {
		p.Deadline = c.Deadline
	}
	if c.AttemptTimeout > 0 {
		p.AttemptTimeout = c.AttemptTimeout
	}
	if c.InitialInterval > 0 {
		p.InitialInterval = c.InitialInterval
	}
	if c.MaximumInterval > 0 {
		p.MaximumInterval = c.MaximumInterval
	}
	return p
}

// Start starts the event's workflow, or returns the run that was started
// before (I3): running or closed, an ID is used once.
func (s *Starter) Start(ctx context.Context, e lifecycle.Event) (string, error) {
	return s.start(ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING)
}

// closing is how long a run may take from its report to its end: a cascade that
// has just told its survivors may be re-run, though Temporal has it running yet.
const closing = time.Second

// Rerun starts the next run of a cascade that closed without success.
// Error: lifecycle.ErrNotFailed where it is running, or completed.
func (s *Starter) Rerun(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.next(ctx, e)
	if errors.Is(err, lifecycle.ErrNotFailed) {
		ended, cancel := context.WithTimeout(ctx, closing)
		defer cancel()
		_ = s.client.GetWorkflow(ended, e.WorkflowID, "").Get(ended, nil) // how it ends, the next attempt tells
		runID, err = s.next(ctx, e)
	}
	return runID, err
}

func (s *Starter) next(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.start(ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY, enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return "", lifecycle.ErrNotFailed
	}
	return runID, err
}

func (s *Starter) start(ctx context.Context, e lifecycle.Event, reuse enums.WorkflowIdReusePolicy, conflict enums.WorkflowIdConflictPolicy) (string, error) {
	workflow, ok := workflowOf[e.Kind]
	if !ok {
		return "", fmt.Errorf("no workflow for events of kind %s", e.Kind)
	}
	notify, err := s.notify(ctx, e.Tenant)
	if err != nil {
		return "", err
	}
	priority := 3 // Temporal's default; 1 goes first
	if e.Kind == lifecycle.Leaver {
		priority = 1
	}
	run, err := s.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       e.WorkflowID,
		TaskQueue:                workflows.TaskQueue,
		WorkflowIDReusePolicy:    reuse,
		WorkflowIDConflictPolicy: conflict,
		// Set for both: with UseExisting a closed duplicate is no error.
		WorkflowExecutionErrorWhenAlreadyStarted: reuse == enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.SearchTenant.ValueSet(e.Tenant.String()),
			workflows.SearchPrincipal.ValueSet(e.Principal.String()),
			workflows.SearchTrigger.ValueSet(e.Trigger),
			workflows.SearchState.ValueSet("running"),
		),
		Memo:          map[string]any{"event": e.ID, "actor": e.Actor, "principalType": e.PrincipalType},
		StaticSummary: fmt.Sprintf("%s of %s %s (%s)", e.Kind, e.PrincipalType, e.Principal, e.Trigger),
		Priority:      temporal.Priority{PriorityKey: priority},
	}, workflow, workflows.Input{
		Tenant: e.Tenant, Event: e.ID, Principal: e.Principal, PrincipalType: e.PrincipalType,
		Sequence: e.Sequence, Trigger: e.Trigger, Changed: e.Changed, Notify: notify, Policy: s.policy,
	})
	if err != nil {
		return "", err
	}
	return run.GetRunID(), nil
}

// updateTimeout bounds what a caller waits for a worker to take an Update.
const updateTimeout = 30 * time.Second

// Retry asks a running cascade to try one item again now, or with uuid.Nil all
// that wait or failed. Error: lifecycle.RefusedError, with the reason.
func (s *Starter) Retry(ctx context.Context, workflowID string, item uuid.UUID) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	handle, err := s.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: workflows.UpdateRetry,
		Args: []any{workflows.RetryRequest{Item: item}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	var notFound *serviceerror.NotFound
	if errors.As(err, &notFound) {
		return 0, &lifecycle.RefusedError{Reason: "the cascade is not running: re-run it, if it failed"}
	}
	if err != nil {
		return 0, fmt.Errorf("update %s: %w", workflowID, err)
	}
	var response workflows.RetryResponse
	err = handle.Get(ctx, &response)
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) {
		return 0, &lifecycle.RefusedError{Reason: refused.Message()}
	}
	if err != nil {
		return 0, fmt.Errorf("update %s: %w", workflowID, err)
	}
	return response.Retried, nil
}

var workflowOf = map[lifecycle.Kind]any{
	lifecycle.Joiner: workflows.Joiner, lifecycle.Mover: workflows.Mover,
	lifecycle.Leaver: workflows.Leaver, lifecycle.TeamSync: workflows.TeamSync,
}
