package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/internal/evidence"
)

// Histories reads workflow histories. It implements evidence.Histories.
type Histories struct {
	client client.Client
}

// NewHistories returns the histories of a client's namespace.
func NewHistories(c client.Client) Histories { return Histories{c} }

// Runs implements evidence.Histories: the runs that Temporal lists, since a cascade has further runs after a re-run and
// if its history gets long, and the run with the ID, which the list may lack for a moment.
func (h Histories) Runs(ctx context.Context, workflowID, runID string) ([]evidence.Run, error) {
	ids, err := h.list(ctx, workflowID)
	if err != nil {
		return nil, err
	}
	if runID != "" && !slices.Contains(ids, runID) {
		ids = append(ids, runID)
	}
	runs := make([]evidence.Run, len(ids))
	for i, id := range ids {
		if runs[i], err = h.read(ctx, workflowID, id); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// list returns the IDs of the runs of a workflow, oldest first.
func (h Histories) list(ctx context.Context, workflowID string) ([]string, error) {
	var found []*workflow.WorkflowExecutionInfo
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId = '%s'", strings.ReplaceAll(workflowID, "'", `\'`)),
	}
	for {
		page, err := h.client.ListWorkflow(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("list the runs of %s: %w", workflowID, err)
		}
		found = append(found, page.GetExecutions()...)
		if request.NextPageToken = page.GetNextPageToken(); len(request.GetNextPageToken()) == 0 {
			break
		}
	}
	slices.SortFunc(found, func(a, b *workflow.WorkflowExecutionInfo) int {
		return a.GetStartTime().AsTime().Compare(b.GetStartTime().AsTime())
	})
	ids := make([]string, len(found))
	for i, execution := range found {
		ids[i] = execution.GetExecution().GetRunId()
	}
	return ids, nil
}

// read returns a run. Error: evidence.ErrRunning.
func (h Histories) read(ctx context.Context, workflowID, runID string) (evidence.Run, error) {
	run := evidence.Run{ID: runID}
	var all history.History
	events := h.client.GetWorkflowHistory(ctx, workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		var deleted *serviceerror.NotFound
		if errors.As(err, &deleted) {
			return run, nil
		}
		if err != nil {
			return run, fmt.Errorf("read the history of %s: %w", workflowID, err)
		}
		all.Events = append(all.Events, event)
	}
	if run.Events = len(all.GetEvents()); run.Events == 0 {
		return run, nil
	}
	switch all.GetEvents()[run.Events-1].GetEventType() {
	case enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
		enums.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT, enums.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
		enums.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED, enums.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
	default:
		return run, evidence.ErrRunning
	}
	encoded, err := protojson.Marshal(&all)
	if err != nil {
		return run, fmt.Errorf("encode the history of %s: %w", workflowID, err)
	}
	run.History = encoded
	return run, nil
}
