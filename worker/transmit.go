package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/workflows"
)

// Transmit starts the workflow that pushes a stream's tokens, or signals a running one that there are
// more. Another client's run under its ID is replaced.
func (s *Starter) Transmit(ctx context.Context, p ssf.Pushing) error {
	id := fmt.Sprintf("%s/%s/%s", transmitKind, p.Tenant, p.Stream)
	err := s.transmitOnce(ctx, id, p)
	if isNotFound(err) { // the run has closed in the meantime
		err = s.transmitOnce(ctx, id, p)
	}
	if err != nil {
		return fmt.Errorf("start the push workflow of stream %s: %w", p.Stream, err)
	}
	return nil
}

func (s *Starter) transmitOnce(ctx context.Context, id string, p ssf.Pushing) error {
	err := s.transmit(ctx, id, p, enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &started) {
		return err
	}
	own, err := s.transmits(ctx, id, started.RunId, p.Stream)
	switch {
	case err != nil:
		return err
	case own:
		return s.client.SignalWorkflow(ctx, id, started.RunId, workflows.SignalMore, nil)
	}
	return s.transmit(ctx, id, p, enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING)
}

func (s *Starter) transmit(
	ctx context.Context, id string, p ssf.Pushing, conflict enums.WorkflowIdConflictPolicy,
) error {
	_, err := s.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       id,
		TaskQueue:                workflows.TaskQueue,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: conflict,

		WorkflowExecutionErrorWhenAlreadyStarted: true,

		TypedSearchAttributes: temporal.NewSearchAttributes(workflows.SearchTenant.ValueSet(p.Tenant.String())),
		Memo:                  map[string]any{memoStream: p.Stream},
		StaticSummary:         "push security events to stream " + p.Stream.String(),
	}, workflows.Transmit, activities.PushInput{Tenant: p.Tenant, Stream: p.Stream})
	return err
}

// transmitKind is the first part of the IDs of push workflows.
const transmitKind = "transmit"

// memoStream is the key of the stream's id in the memo of its push workflow.
const memoStream = "stream"

// transmits reports whether a run that has the ID of a stream's push workflow is one: leaver's workers
// execute it, and only leaver can seal the stream's id in the memo.
func (s *Starter) transmits(ctx context.Context, id, runID string, stream uuid.UUID) (bool, error) {
	of, queue, err := s.sealedID(ctx, id, runID, memoStream)
	return err == nil && of == stream && queue == workflows.TaskQueue, err
}
