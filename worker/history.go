package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/internal/evidence"
)

// Runs implements evidence.Histories. A cascade has further runs after a re-run, and if its history gets long. Runs
// that another client of the namespace started under the workflow ID are left out.
func (s *Starter) Runs(
	ctx context.Context, event uuid.UUID, workflowID, runID string, each func(r evidence.Run) error,
) error {
	ids, err := s.runIDs(ctx, workflowID)
	if err != nil {
		return err
	}
	if !slices.Contains(ids, runID) { // the list may lack the last run for a moment; a cascade that never began has none
		ids = append(ids, runID)
	}
	for _, id := range ids {
		if id != runID {
			started, _, err := s.sealedID(ctx, workflowID, id, memoEvent)
			if err != nil && !isNotFound(err) {
				return err
			}
			if started != event {
				continue
			}
		}
		run := evidence.Run{}
		if id != "" {
			if run, err = s.history(ctx, workflowID, id); err != nil {
				return err
			}
		}
		if err := each(run); err != nil {
			return err
		}
	}
	return nil
}

// runIDs returns the IDs of the runs of a workflow that Temporal lists, oldest first.
func (s *Starter) runIDs(ctx context.Context, workflowID string) ([]string, error) {
	var found []*workflow.WorkflowExecutionInfo
	request := &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId = '%s'", strings.ReplaceAll(workflowID, "'", `\'`)),
	}
	for {
		page, err := s.client.ListWorkflow(ctx, request)
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

// history returns a run. Error: evidence.ErrRunning.
func (s *Starter) history(ctx context.Context, workflowID, runID string) (evidence.Run, error) {
	run := evidence.Run{ID: runID}
	var all history.History
	events := s.client.GetWorkflowHistory(ctx, workflowID, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
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
