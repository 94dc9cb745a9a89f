package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// ErrorSurvivors is the type of the error that a cascade fails with if items survived
// it or a connector could not be queried. The details of the error are the report.
const ErrorSurvivors = "Survivors"

// Leaver ends the credentials and scheduled runs that agents hold on a principal's
// behalf. It completes with a report, or fails with the survivors (I7).
func Leaver(ctx workflow.Context, in Input) (cascade.Report, error) {
	c, err := newCascade(ctx, in)
	if err != nil {
		return cascade.Report{}, err
	}
	return c.run(ctx)
}

// cascadeRun is the state of one run.
type cascadeRun struct {
	in        Input
	deadline  time.Time
	items     map[string]*item // discovered by this run, by id
	order     []*item
	counts    map[credential.State]int // of those begun with
	inFlight  int                      // begun with and not settled
	open      map[string]int           // by connector: items whose activities are pending
	runs      int                      // of those in flight, how many are scheduled runs
	finding   int                      // connectors that are being asked what they hold
	answered  bool                     // one of them has answered since the last look
	notAsked  []cascade.NotAsked       // connectors that could not be asked
	batches   int                      // begun
	after     cascade.Item             // the last item of the page before; zero begins a pass
	first     []cascade.Item           // a page that was discovered already; nil if none was
	suspended int
	held      bool    // for approval of a mass deactivation
	deferred  []*item // items that are held for approval
	waiting   []activities.Waiting
	entitled  activities.Entitled // of a mover
	state     string              // the current LeaverState
	phase     string
}

// newCascade returns a cascade with its query and update handlers, which must be set
// before the workflow first blocks.
func newCascade(ctx workflow.Context, in Input) (*cascadeRun, error) {
	c := &cascadeRun{
		in: in, items: make(map[string]*item), counts: make(map[credential.State]int), open: make(map[string]int),
		phase: "settling", state: "running",
		deadline: workflow.Now(ctx).Add(in.Policy.Deadline),
	}
	if before := in.Continued; before != nil {
		c.deadline, c.suspended, c.held = before.Deadline, before.Suspended, before.Held
		for state, n := range before.Counts {
			c.counts[state] = n
		}
	}
	return c, c.handle(ctx)
}

// run settles the agents, ends scheduled runs and then credentials until discovery finds
// nothing more, and reports the outcome.
func (c *cascadeRun) run(ctx workflow.Context) (cascade.Report, error) {
	interrupted := c.settle(ctx)
	if interrupted == nil {
		c.awaitApproval(ctx)
		c.askDownstreams(ctx)
	}
	for {
		if interrupted == nil {
			interrupted = c.endUntilNothingIsLeft(ctx)
		}
		if workflow.IsContinueAsNewError(interrupted) {
			return cascade.Report{}, interrupted
		}
		// A cancelled cascade reports too: its remaining items become live or survivors.
		reporting, _ := workflow.NewDisconnectedContext(ctx)
		if err := workflow.Await(
			reporting, func() bool { return c.inFlight == 0 && workflow.AllHandlersFinished(ctx) },
		); err != nil {
			return cascade.Report{}, err
		}
		report, closed, err := c.report(reporting, interrupted)
		if err != nil {
			return report, err
		}
		if closed {
			report, err := c.close(reporting, report, interrupted)
			c.unblock(reporting, report.Outcome)
			return report, err
		}
	}
}

// settle suspends the agents that end with the principal, and sets c.held if the
// cascade is held for approval.
func (c *cascadeRun) settle(ctx workflow.Context) error {
	if c.in.Continued != nil {
		// Each run reads from PostgreSQL whether the threshold is exceeded.
		return workflow.ExecuteLocalActivity(localActivity(ctx), a.Held, c.in.ref()).Get(ctx, &c.held)
	}
	var settled activities.Settlement
	err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Settle, c.in.ref()).Get(ctx, &settled)
	c.suspended, c.held = len(settled.Suspended), settled.Held
	if !settled.Held {
		c.first = append([]cascade.Item{}, settled.Found...)
	}
	return err
}

// endUntilNothingIsLeft discovers and ends items, page by page, until all are concluded. It
// returns an error if the run is cancelled or must continue as new.
func (c *cascadeRun) endUntilNothingIsLeft(ctx workflow.Context) error {
	c.phase = "ending"
	for {
		c.answered = false
		found, full, err := c.discover(ctx)
		if err != nil {
			return err
		}
		if err := c.beginAll(ctx, found); err != nil {
			return err
		}
		// Start no more items if their activities could make the history too long.
		long := workflow.GetInfo(ctx).GetContinueAsNewSuggested() ||
			workflow.GetInfo(ctx).GetCurrentHistoryLength() > maxRunEvents
		switch {
		case long:
			if err := c.await(ctx, func() bool { return c.inFlight == 0 && c.finding == 0 }); err != nil {
				return err
			}
			return c.continueAsNew(ctx)
		case full:
			err = c.await(ctx, func() bool { return c.inFlight < maxInFlight })
		default:
			err = c.await(ctx, func() bool { return c.answered || c.quiet() })
		}
		if err != nil {
			return err
		}
		// If a connector has answered since the last discovery, discover again.
		if !full && !c.answered && c.quiet() {
			return nil
		}
	}
}

const (
	// maxRunEvents is the history length above which a run starts no more items. An
	// item that fails at first adds about eight events.
	maxRunEvents = 3000
	// maxInFlight is the number of items in flight below which a run discovers more.
	maxInFlight = 250
)

// quiet reports whether no item is in flight or held for approval, and no connector
// is being queried.
func (c *cascadeRun) quiet() bool { return c.inFlight == 0 && c.finding == 0 && len(c.deferred) == 0 }

func (c *cascadeRun) continueAsNew(ctx workflow.Context) error {
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	next := c.in
	// The next run discovers the items that are held for approval again.
	counts := make(map[credential.State]int)
	for state, n := range c.counts {
		if state != credential.Ending {
			counts[state] = n
		}
	}
	next.Continued = &Continued{Deadline: c.deadline, Suspended: c.suspended, Held: c.held, Counts: counts}
	return workflow.NewContinueAsNewError(ctx, workflow.GetInfo(ctx).WorkflowType.Name, next)
}

// discover returns the items of the next page that this run has not seen, scheduled
// runs first. full reports whether the page was full, so that there may be more.
func (c *cascadeRun) discover(ctx workflow.Context) (found []*item, full bool, err error) {
	held := c.first
	if c.first = nil; held == nil {
		in := activities.DiscoverInput{Cascade: c.in.ref(), After: c.after, Held: c.held}
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Discover, in).Get(ctx, &held); err != nil {
			return nil, false, err
		}
	}
	found = c.addUnseen(held)
	c.after = cascade.Item{}
	if full = len(held) == activities.DiscoverPage; full {
		c.after = held[len(held)-1]
	}
	return found, full, nil
}

// addUnseen adds the items that this run has not seen to c.items, and returns them.
func (c *cascadeRun) addUnseen(held []cascade.Item) (found []*item) {
	for _, h := range held {
		if id := h.ID.String(); c.items[id] == nil {
			i := &item{Item: h}
			c.items[id], c.order = i, append(c.order, i)
			found = append(found, i)
		}
	}
	return found
}

// beginAll starts all items. Each waits for a place in its connector's window, so that
// a downstream that is down delays no other (I10). Credentials wait for scheduled runs and minters,
// which could issue new ones, for up to RunsGrace: a scheduler that is down must not
// keep tokens alive.
func (c *cascadeRun) beginAll(ctx workflow.Context, found []*item) error {
	found = c.deferHeld(ctx, found)
	var runs, minters, credentials []*item
	for _, i := range found {
		switch {
		case i.Kind == connectors.ScheduledRun:
			runs = append(runs, i)
		case i.Mints:
			minters = append(minters, i)
		default:
			credentials = append(credentials, i)
		}
	}
	c.beginGroups(ctx, runs)
	c.beginGroups(ctx, minters)
	// If there are no runs to wait for, add no timer to the history.
	if len(credentials) > 0 && c.runs > 0 {
		if _, err := workflow.AwaitWithTimeout(
			ctx, c.in.Policy.RunsGrace, func() bool { return c.runs == 0 },
		); err != nil {
			return err
		}
	}
	c.beginGroups(ctx, credentials)
	return nil
}

// report closes the event. If the final discovery returns items that this run has not seen,
// it stores them in c.first, and closed is false.
func (c *cascadeRun) report(ctx workflow.Context, interrupted error) (report cascade.Report, closed bool, err error) {
	c.phase = phaseReporting
	in := activities.ReportInput{
		Cascade: c.in.ref(), Interrupted: interrupted != nil || len(c.notAsked) > 0, NotAsked: c.notAsked,
		Cancelled: temporal.IsCanceledError(interrupted), FinalDiscovery: interrupted == nil,
	}
	for {
		var reported activities.Reported
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Report, in).Get(ctx, &reported); err != nil {
			return cascade.Report{}, false, err
		}
		if len(reported.Found) == 0 {
			return reported.Report, true, nil
		}
		for _, h := range reported.Found {
			if c.items[h.ID.String()] == nil {
				c.first = append(c.first, h)
			}
		}
		if len(c.first) > 0 {
			return cascade.Report{}, false, nil
		}
		// This run has seen these items and could not conclude them.
		if in.FinalDiscovery = len(reported.Found) == activities.DiscoverPage; in.FinalDiscovery {
			in.After = reported.Found[len(reported.Found)-1]
		}
	}
}

// close completes the workflow. It fails the workflow if credentials survived or a connector
// could not be queried, so that the failure is visible without reading the result.
func (c *cascadeRun) close(ctx workflow.Context, report cascade.Report, interrupted error) (cascade.Report, error) {
	c.phase = report.Outcome
	c.show(ctx)
	if err := workflow.UpsertTypedSearchAttributes(ctx,
		SearchState.ValueSet(report.Outcome), SearchSurvivors.ValueSet(int64(report.Survivors))); err != nil {
		return report, err
	}
	notify(ctx, c.in, c.notice(report.Outcome), leaverNotifyDeadline)
	switch {
	case interrupted != nil:
		return report, interrupted
	case report.Survivors > 0:
		all := report.Survivors + report.Verified + report.Revoked + report.Absent + report.Expiring
		message := fmt.Sprintf("%d of %d items survived the cascade: fix the causes in the report, then run %s",
			report.Survivors, all, c.rerunCommand())
		return report, failed(message, report)
	case len(c.notAsked) > 0:
		return report, failed(c.unasked(), report)
	}
	return report, nil
}

// unasked returns the error message about the connectors that could not be queried.
func (c *cascadeRun) unasked() string {
	var names, reasons []string
	for _, n := range c.notAsked {
		names, reasons = append(names, n.Connector), append(reasons, n.Connector+": "+n.Reason)
	}
	return fmt.Sprintf("the connectors %v could not be queried for credentials (%s): once they answer, run %s",
		names, strings.Join(reasons, "; "), c.rerunCommand())
}

// rerunCommand returns the command that re-runs the cascade. --tenant accepts an id.
func (c *cascadeRun) rerunCommand() string {
	return fmt.Sprintf("`leaver cascade rerun %s --tenant %s --reason \"…\"`", c.in.Event, c.in.Tenant)
}

// notice returns the notification about the cascade's outcome.
func (c *cascadeRun) notice(outcome string) notice {
	if c.in.Moves {
		return notice{kind: "principal.mover", outcome: outcome, entitled: c.entitled}
	}
	return notice{kind: "principal.leaver", outcome: outcome}
}

func failed(message string, report cascade.Report) error {
	return temporal.NewApplicationErrorWithOptions(message, ErrorSurvivors, temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{report},
	})
}

// a gives typed references to the activities' methods; it is never called.
var a *activities.Activities

// localActivity returns a context for steps that only need PostgreSQL. They avoid the
// round trip through a task queue, and are retried until PostgreSQL is available.
func localActivity(ctx workflow.Context) workflow.Context {
	return workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		StartToCloseTimeout: localTimeout,
		// Without it, the SDK applies StartToCloseTimeout to all attempts together.
		ScheduleToCloseTimeout: outageTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 30 * time.Second,
		},
	})
}
