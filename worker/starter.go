package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tracing"
	"github.com/leaverhq/leaver/workflows"
)

// Roles contains the names of the connectors that take part in a tenant's workflows.
type Roles struct {
	Notify      []string // connectors that are notified of events
	Discover    []string // connectors that can list a principal's credentials
	RateLimited []string // rate-limited connectors: one activity per item
}

// Starter starts the workflows of lifecycle events. It implements
// lifecycle.Starter.
type Starter struct {
	client client.Client
	policy workflows.Policy
	roles  func(ctx context.Context, tenant uuid.UUID) (Roles, error)
	// failures decrypts the failures of activities.
	failures converter.FailureConverter
}

// NewStarter returns a starter. roles returns the connectors of a tenant.
func NewStarter(c client.Client, policy workflows.Policy, failures converter.FailureConverter,
	roles func(ctx context.Context, tenant uuid.UUID) (Roles, error),
) *Starter {
	return &Starter{client: c, policy: policy, roles: roles, failures: failures}
}

// Policy returns the configured policy, with defaults for unset values.
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
	if c.ProgressInterval > 0 {
		p.ProgressInterval = c.ProgressInterval
	}
	return p
}

// Start starts the event's workflow and returns its run id. A workflow ID is used once: if
// the workflow was started before, running or closed, it returns that run (I3). A run that
// another client of the namespace started under the ID is replaced.
func (s *Starter) Start(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.start(
		ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE, enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &started) {
		return runID, err
	}
	return s.ownOrReplace(ctx, e, started.RunId)
}

// ownOrReplace returns runID if leaver started that run for the event, and otherwise replaces it.
func (s *Starter) ownOrReplace(ctx context.Context, e lifecycle.Event, runID string) (string, error) {
	own, err := s.owns(ctx, e, runID)
	if err != nil || own {
		return runID, err
	}
	return s.Replace(ctx, e)
}

// owns reports whether leaver started a run for the event: only leaver can seal the event's id in the
// memo. A run that Temporal has deleted is reported as own.
func (s *Starter) owns(ctx context.Context, e lifecycle.Event, runID string) (bool, error) {
	event, _, err := s.sealedID(ctx, e.WorkflowID, runID, memoEvent)
	if isNotFound(err) {
		return true, nil
	}
	return err == nil && event == e.ID, err
}

// sealedID returns the id that leaver sealed under a key of a run's memo, or [uuid.Nil] if there is none, and
// the run's task queue.
func (s *Starter) sealedID(ctx context.Context, workflowID, runID, key string) (id uuid.UUID, queue string, err error) {
	description, err := s.client.DescribeWorkflow(ctx, workflowID, runID)
	if err != nil {
		return uuid.Nil, "", fmt.Errorf("describe %s: %w", workflowID, err)
	}
	switch err := description.GetMemoValue(key, &id); {
	case errors.Is(err, seal.ErrUnknownKey): // of a process with a newer key set
		return uuid.Nil, "", fmt.Errorf("read the memo of %s: %w", workflowID, err)
	case err != nil: // another client wrote it
		id = uuid.Nil
	}
	return id, description.TaskQueueName, nil
}

// memoEvent is the key of the event's id in a workflow's memo.
const memoEvent = "event"

// Replace starts the event's workflow in place of whatever run has its ID: a run that is not leaver's, or
// one that closed without storing its outcome. A running one is terminated.
func (s *Starter) Replace(ctx context.Context, e lifecycle.Event) (string, error) {
	return s.start(ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING)
}

// closing is the time that a run may take from its report to its end. A cascade that has
// stored its survivors can be re-run although Temporal still shows it as running.
const closing = time.Second

// Rerun starts the next run of a cascade that closed without success, and returns its run
// id. It returns [cascade.ErrNotFailed] if the cascade is running or completed.
func (s *Starter) Rerun(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.next(ctx, e)
	if errors.Is(err, cascade.ErrNotFailed) {
		ended, cancel := context.WithTimeout(ctx, closing)
		defer cancel()
		_ = s.client.GetWorkflow(ended, e.WorkflowID, "").Get(ended, nil) // wait; the result does not matter
		runID, err = s.next(ctx, e)
	}
	return runID, err
}

// Restart starts the workflow of an open event again, however its last run closed: also a run that completed after the
// backup that the database was restored from. It returns [cascade.ErrNotFailed] if the workflow is running.
func (s *Starter) Restart(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.start(
		ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE, enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return "", cascade.ErrNotFailed
	}
	return runID, err
}

func (s *Starter) next(ctx context.Context, e lifecycle.Event) (string, error) {
	runID, err := s.start(
		ctx, e, enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY, enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	)
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &started) {
		return runID, err
	}
	if own, err := s.owns(ctx, e, started.RunId); err != nil {
		return "", err
	} else if own {
		return "", cascade.ErrNotFailed
	}
	return s.Replace(ctx, e)
}

func (s *Starter) start(
	ctx context.Context, e lifecycle.Event, reuse enums.WorkflowIdReusePolicy, conflict enums.WorkflowIdConflictPolicy,
) (string, error) {
	workflow, ok := workflowOf[e.Kind]
	if !ok {
		return "", fmt.Errorf("no workflow for events of kind %s", e.Kind)
	}
	roles, err := s.roles(ctx, e.Tenant)
	if err != nil {
		return "", err
	}
	priority := 3 // Temporal's default; 1 goes first
	if e.Kind == lifecycle.Leaver {
		priority = 1
	}
	run, err := s.client.ExecuteWorkflow(tracing.Continue(ctx, e.Trace), client.StartWorkflowOptions{
		ID:                       e.WorkflowID,
		TaskQueue:                workflows.TaskQueue,
		WorkflowIDReusePolicy:    reuse,
		WorkflowIDConflictPolicy: conflict,
		// If false, a closed duplicate returns its run id and no error.
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.SearchTenant.ValueSet(e.Tenant.String()),
			workflows.SearchPrincipal.ValueSet(e.Principal.String()),
			workflows.SearchTrigger.ValueSet(string(e.Trigger)),
			workflows.SearchState.ValueSet("running"),
		),
		Memo:          map[string]any{memoEvent: e.ID, "actor": e.Actor, "principalType": e.PrincipalType},
		StaticSummary: fmt.Sprintf("%s of %s %s (%s)", e.Kind, e.PrincipalType, e.Principal, e.Trigger),
		Priority:      temporal.Priority{PriorityKey: priority, FairnessKey: fairness(e)},
	}, workflow, workflows.Input{
		Tenant: e.Tenant, Event: e.ID, Principal: e.Principal, PrincipalType: e.PrincipalType,
		Sequence: e.Sequence, Trigger: string(e.Trigger), Changed: e.Changed, Notify: roles.Notify,
		Discover:    roles.Discover,
		RateLimited: roles.RateLimited, Fairness: fairness(e), Policy: s.policy,
	})
	if err != nil {
		return "", err
	}
	return run.GetRunID(), nil
}

// fairness returns Temporal's fairness key: tenant, actor and period, as in the relay. The
// actor is hashed, because Temporal shows the key.
func fairness(e lifecycle.Event) string {
	actor := fnv.New32a()
	_, _ = actor.Write([]byte(e.Actor)) // never fails, see hash.Hash
	return fmt.Sprintf(
		"%s:%08x:%x", e.Tenant, actor.Sum32(), e.CreatedAt.Unix()/int64(lifecycle.FairnessPeriod/time.Second),
	)
}

// updateTimeout bounds the time that a caller waits for an Update to complete.
const updateTimeout = 30 * time.Second

// Retry requests that a running cascade retries one item immediately, or with uuid.Nil all
// pending and failed items. It returns the number of retried items.
// Errors: [cascade.RefusedError], [cascade.ErrNotRunning].
func (s *Starter) Retry(ctx context.Context, workflowID string, item uuid.UUID, by, reason string) (int, error) {
	var response workflows.RetryResponse
	request := workflows.RetryRequest{Item: item, By: by, Reason: reason, At: time.Now()}
	err := s.update(ctx, workflowID, workflows.UpdateRetry, request, &response)
	return response.Retried, err
}

// Waive requests that a running cascade tolerates an item until a time.
// Errors: [cascade.RefusedError], [cascade.ErrNotRunning].
func (s *Starter) Waive(
	ctx context.Context, workflowID string, item uuid.UUID, by, reason string, until time.Time,
) error {
	request := workflows.WaiveRequest{Item: item, By: by, Reason: reason, Until: until, At: time.Now()}
	return s.update(ctx, workflowID, workflows.UpdateWaive, request, nil)
}

func (s *Starter) update(ctx context.Context, workflowID, name string, request, response any) error {
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	handle, err := s.client.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: name, Args: []any{request},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(ctx, response)
	}
	var refused *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case isNotFound(err):
		return cascade.ErrNotRunning
	case errors.As(err, &refused):
		return &cascade.RefusedError{Reason: refused.Message()}
	}
	return fmt.Errorf("update %s: %w", workflowID, err)
}

func isNotFound(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

// Approve signals a held cascade that its mass deactivation was approved. It does nothing if
// the cascade has closed.
func (s *Starter) Approve(ctx context.Context, workflowID string) error {
	err := s.client.SignalWorkflow(ctx, workflowID, "", workflows.SignalApprove, nil)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal %s: %w", workflowID, err)
	}
	return nil
}

// Status returns whether the workflow of an open cascade is running, was stopped (terminated or
// cancelled), is gone, or is foreign: it runs for a while as a run that leaver does not know. run is
// the last run that leaver knows.
func (s *Starter) Status(ctx context.Context, workflowID, run string) (cascade.WorkflowStatus, error) {
	description, err := s.client.DescribeWorkflowExecution(ctx, workflowID, "")
	if isNotFound(err) {
		return cascade.WorkflowGone, nil
	}
	if err != nil {
		return "", fmt.Errorf("describe %s: %w", workflowID, err)
	}
	info := description.GetWorkflowExecutionInfo()
	// A cascade stores each run before it does anything else.
	known := run == "" || info.GetExecution().GetRunId() == run || info.GetFirstRunId() == run
	status := info.GetStatus()
	running := status == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
	switch {
	case !known && (!running || time.Since(info.GetStartTime().AsTime()) > unknownAge):
		return cascade.WorkflowForeign, nil
	case running:
		return cascade.WorkflowRunning, nil
	case status == enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, status == enums.WORKFLOW_EXECUTION_STATUS_CANCELED:
		return cascade.WorkflowStopped, nil
	}
	return cascade.WorkflowGone, nil
}

// unknownAge is how long a new run may take to store that it is in progress.
const unknownAge = 5 * time.Minute

// Pending returns the pending activities of a workflow; none if it has closed.
func (s *Starter) Pending(ctx context.Context, workflowID string) ([]cascade.Pending, error) {
	description, err := s.client.DescribeWorkflowExecution(ctx, workflowID, "")
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", workflowID, err)
	}
	var pending []cascade.Pending
	for _, a := range description.GetPendingActivities() {
		p := cascade.Pending{ID: a.GetActivityId(), Attempts: int(a.GetAttempt())}
		if f := a.GetLastFailure(); f != nil {
			p.Answer = reasonOf(s.failures.FailureToError(f))
		}
		if at := a.GetNextAttemptScheduleTime(); at != nil && a.GetState() == enums.PENDING_ACTIVITY_STATE_SCHEDULED {
			next := at.AsTime()
			p.NextTry = &next
		}
		if at := a.GetExpirationTime(); at != nil {
			deadline := at.AsTime()
			p.Deadline = &deadline
		}
		pending = append(pending, p)
	}
	return pending, nil
}

// reasonOf returns the message of an activity's failure, without Temporal's wrapping.
func reasonOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) {
		return application.Message()
	}
	return err.Error()
}

// Pollers returns the number of workers that have polled a task queue within [pollerAge], for
// workflows or for activities.
func Pollers(ctx context.Context, c client.Client, queue string, kind enums.TaskQueueType) (int, error) {
	described, err := c.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		return 0, fmt.Errorf("describe task queue %s: %w", queue, err)
	}
	n := 0
	for _, p := range described.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) < pollerAge {
			n++
		}
	}
	return n, nil
}

// pollerAge is the maximum age of a poller's last poll: twice the duration of a long poll.
const pollerAge = 2 * time.Minute

// Cancel cancels a workflow. It does nothing if the workflow has closed or was never started.
func (s *Starter) Cancel(ctx context.Context, workflowID string) error {
	if err := s.client.CancelWorkflow(ctx, workflowID, ""); err != nil && !isNotFound(err) {
		return fmt.Errorf("cancel %s: %w", workflowID, err)
	}
	return nil
}

var workflowOf = map[lifecycle.Kind]any{
	lifecycle.Joiner: workflows.Joiner, lifecycle.Mover: workflows.Mover,
	lifecycle.Leaver: workflows.Leaver, lifecycle.TeamSync: workflows.TeamSync,
}
