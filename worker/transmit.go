package worker

import (
	"context"
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/workflows"
)

// Transmit starts the workflow that pushes a stream's tokens, unless it is running already.
func (s *Starter) Transmit(ctx context.Context, p ssf.Pushing) error {
	_, err := s.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       fmt.Sprintf("transmit/%s/%s", p.Tenant, p.Stream),
		TaskQueue:                workflows.TaskQueue,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		TypedSearchAttributes:    temporal.NewSearchAttributes(workflows.SearchTenant.ValueSet(p.Tenant.String())),
		StaticSummary:            "push security events to stream " + p.Stream.String(),
	}, workflows.Transmit, activities.PushInput{Tenant: p.Tenant, Stream: p.Stream})
	if err != nil {
		return fmt.Errorf("start the push workflow of stream %s: %w", p.Stream, err)
	}
	return nil
}
