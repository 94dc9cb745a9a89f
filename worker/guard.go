package worker

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/internal/lifecycle"
)

// typeGuard fails a workflow whose type is not that of its ID. A payload is sealed for the ID of its
// workflow: without the guard, it would be the input of any other type, too.
type typeGuard struct {
	interceptor.WorkerInterceptorBase
}

// InterceptWorkflow implements interceptor.WorkerInterceptor.
func (*typeGuard) InterceptWorkflow(
	_ workflow.Context, next interceptor.WorkflowInboundInterceptor,
) interceptor.WorkflowInboundInterceptor {
	g := &guarded{}
	g.Next = next
	return g
}

type guarded struct {
	interceptor.WorkflowInboundInterceptorBase
}

// ExecuteWorkflow implements interceptor.WorkflowInboundInterceptor.
func (g *guarded) ExecuteWorkflow(ctx workflow.Context, in *interceptor.ExecuteWorkflowInput) (any, error) {
	info := workflow.GetInfo(ctx)
	if !belongs(info.WorkflowType.Name, info.WorkflowExecution.ID) {
		return nil, temporal.NewNonRetryableApplicationError(fmt.Sprintf(
			"%s is not the ID of a workflow of type %s", info.WorkflowExecution.ID, info.WorkflowType.Name), "WorkflowType", nil)
	}
	return g.Next.ExecuteWorkflow(ctx, in)
}

// belongs reports whether an ID is one of a workflow type. Self-tests, which operators may start by
// hand, have any ID that does not begin like another type's.
func belongs(workflowType, id string) bool {
	kind, _, _ := strings.Cut(id, "/")
	switch kind {
	case string(lifecycle.Leaver):
		return workflowType == "Leaver"
	case string(lifecycle.Joiner):
		return workflowType == "Joiner"
	case string(lifecycle.Mover):
		return workflowType == "Mover"
	case string(lifecycle.TeamSync):
		return workflowType == "TeamSync"
	case transmitKind:
		return workflowType == "Transmit"
	}
	return workflowType == "Reconcile" || workflowType == "Drill"
}
