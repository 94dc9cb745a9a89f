package workflows_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/workflows"
)

// a provides typed references to the activities, which are mocked.
var a *activities.Activities

// model is the state behind the mocked activities: the items of a leaver, and the
// downstream's answer to each attempt.
type model struct {
	t     *testing.T
	env   *testsuite.TestWorkflowEnvironment
	in    workflows.Input
	mu    sync.Mutex // activities run concurrently
	items []*modelItem

	held      bool                                                 // the cascade is held for approval
	answer    func(i *modelItem, attempt int) error                // nil: the item is ended
	find      func(connector string) error                         // nil: the query succeeds
	report    func(in activities.ReportInput) *activities.Reported // nil: computed from the items
	abandoned []string
	blocked   []string
	unblocked []string
	unblocks  int      // attempts; the first fails
	bulk      bool     // the connectors end several items with one request
	batches   []int    // the number of items of each batch
	order     []string // of first attempts
}

type modelItem struct {
	cascade.Item
	name     string
	state    credential.State
	attempts []time.Time
}

// newModel prepares a cascade with a deadline of five minutes and first retries after a
// second. That makes at most nine attempts; the test environment allows ten.
func newModel(t *testing.T) *model {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	m := &model{t: t, env: suite.NewTestWorkflowEnvironment(), answer: func(*modelItem, int) error { return nil }}
	m.in = workflows.Input{
		Tenant: uuid.New(), Event: uuid.New(), Principal: uuid.New(), PrincipalType: "User",
		Policy: workflows.Policy{
			Deadline: 5 * time.Minute, AttemptTimeout: time.Minute, InitialInterval: time.Second,
			MaximumInterval: 10 * time.Minute,
			RunsGrace:       10 * time.Second, Window: 200, Batch: 1, ProgressInterval: time.Minute,
		},
	}
	m.env.RegisterActivity(a)
	m.env.SetWorkflowRunTimeout(30 * 24 * time.Hour)
	on := func(activity, returns any) {
		m.env.OnActivity(activity, mock.Anything, mock.Anything).Return(returns).Maybe()
	}
	on(a.Settle, func(_ context.Context, ref activities.CascadeRef) (activities.Settlement, error) {
		s := activities.Settlement{Held: m.held}
		if !m.held {
			s.Found, _ = m.discover(context.Background(), activities.DiscoverInput{Cascade: ref})
		}
		return s, nil
	})
	on(a.Discover, m.discover)
	on(a.Held, func(context.Context, activities.CascadeRef) (bool, error) { return m.held, nil })
	on(a.WaitsFor, func(context.Context, activities.CascadeRef) ([]activities.Waiting, error) { return nil, nil })
	for _, verb := range []any{a.Revoke, a.Rotate, a.Cancel} {
		on(verb, m.end)
	}
	on(a.EndBatch, m.endBatch)
	on(a.Block, func(_ context.Context, in activities.BatchInput) (activities.Done, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, id := range in.Items {
			m.blocked = append(m.blocked, m.item(id).name)
		}
		return activities.Done{}, nil
	})
	on(a.Blocked, func(context.Context, activities.CascadeRef) (items []cascade.Item, err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, i := range m.items {
			if slices.Contains(m.blocked, i.name) {
				items = append(items, i.Item)
			}
		}
		return items, nil
	})
	on(a.Unblock, func(_ context.Context, in activities.BatchInput) (activities.Done, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.unblocks++; m.unblocks == 1 {
			return activities.Done{}, temporal.NewApplicationError("down", activities.ErrorDownstream)
		}
		for _, id := range in.Items {
			m.unblocked = append(m.unblocked, m.item(id).name)
		}
		return activities.Done{}, nil
	})
	on(a.Abandon, func(_ context.Context, in activities.AbandonInput) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.item(in.Item).state = credential.Failed
		m.abandoned = append(m.abandoned, m.item(in.Item).name)
		return nil
	})
	on(a.Waive, func(_ context.Context, act activities.Act) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.item(act.Item).state = credential.Waived
		return nil
	})
	on(a.RecordAct, func(context.Context, activities.Act) error { return nil })
	on(a.Find, func(_ context.Context, in activities.FindInput) (activities.Findings, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		return activities.Findings{}, m.find(in.Connector)
	})
	on(a.Report, m.close)
	return m
}

// add adds a live item of the leaver.
func (m *model) add(name string, kind connectors.Kind, connector string) *modelItem {
	id := uuid.NewSHA1(uuid.NameSpaceURL, []byte(name))
	i := &modelItem{
		Item: cascade.Item{ID: id, Kind: kind, Connector: connector, Verb: credential.EndVerb(kind, false)},
		name: name, state: credential.Live,
	}
	m.items = append(m.items, i)
	return i
}

func (m *model) item(id uuid.UUID) *modelItem {
	return m.items[slices.IndexFunc(m.items, func(i *modelItem) bool { return i.ID == id })]
}

// discover returns a page of the live and ending items, in the order of the product.
func (m *model) discover(_ context.Context, in activities.DiscoverInput) ([]cascade.Item, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.page(in), nil
}

func (m *model) page(in activities.DiscoverInput) []cascade.Item {
	left := slices.DeleteFunc(
		slices.Clone(m.items),
		func(i *modelItem) bool { return i.state != credential.Live && i.state != credential.Ending },
	)
	before := func(x, y cascade.Item) int {
		if (x.Kind == connectors.ScheduledRun) != (y.Kind == connectors.ScheduledRun) {
			if x.Kind == connectors.ScheduledRun {
				return -1
			}
			return 1
		}
		return strings.Compare(x.ID.String(), y.ID.String())
	}
	var page []cascade.Item
	slices.SortFunc(left, func(x, y *modelItem) int { return before(x.Item, y.Item) })
	for _, i := range left {
		if in.After.ID != uuid.Nil && before(i.Item, in.After) <= 0 {
			continue
		}
		if i.state = credential.Ending; len(page) < activities.DiscoverPage {
			page = append(page, i.Item)
		}
	}
	return page
}

// end simulates one attempt.
func (m *model) end(_ context.Context, in activities.ItemInput) (activities.ItemResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.item(in.Item)
	if len(i.attempts) == 0 {
		m.order = append(m.order, i.name)
	}
	i.attempts = append(i.attempts, m.env.Now())
	if err := m.answer(i, len(i.attempts)); err != nil {
		if refusal := new(temporal.ApplicationError); errors.As(err, &refusal) &&
			refusal.Type() == activities.ErrorPermanent {
			i.state = credential.Failed
		}
		return activities.ItemResult{}, err
	}
	i.state = credential.Verified
	return activities.ItemResult{State: credential.Verified}, nil
}

func (m *model) endBatch(ctx context.Context, in activities.BatchInput) (activities.BatchResult, error) {
	m.mu.Lock()
	m.batches = append(m.batches, len(in.Items))
	m.mu.Unlock()
	result := activities.BatchResult{Bulk: m.bulk}
	for _, id := range in.Items {
		r, err := m.end(ctx, activities.ItemInput{Cascade: in.Cascade, Item: id})
		result.Outcomes = append(result.Outcomes, activities.ItemOutcome{Item: id, ItemResult: r, Again: err != nil})
	}
	return result, nil
}

// close returns the report that Activities.Report would return.
func (m *model) close(_ context.Context, in activities.ReportInput) (activities.Reported, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report != nil {
		if r := m.report(in); r != nil {
			return *r, nil
		}
	}
	if in.Cancelled {
		return activities.Reported{Report: cascade.Report{Outcome: "cancelled"}}, nil
	}
	var r cascade.Report
	for _, i := range m.items {
		switch i.state {
		case credential.Verified:
			r.Verified++
		case credential.Waived:
			r.Waived++
		case credential.Failed, credential.Ending:
			r.Survivors++
		default:
		}
	}
	if r.Outcome = "completed"; r.Survivors > 0 || in.Interrupted {
		r.Outcome = "failed"
	}
	return activities.Reported{Report: r}, nil
}

// run executes the workflow and returns its report and its error.
func (m *model) run(flow any) (cascade.Report, error) {
	m.t.Helper()
	m.env.ExecuteWorkflow(flow, m.in)
	if !m.env.IsWorkflowCompleted() {
		m.t.Fatal("the workflow has not completed")
	}
	err := m.env.GetWorkflowError()
	var report cascade.Report
	if err == nil {
		err = m.env.GetWorkflowResult(&report)
	}
	return report, err
}

// wantCompleted runs the Leaver workflow and fails the test unless all items are verified.
func (m *model) wantCompleted() {
	m.t.Helper()
	report, err := m.run(workflows.Leaver)
	if err != nil || report.Verified != len(m.items) || report.Outcome != "completed" {
		m.t.Errorf("report %+v (%v), want %d verified", report, err, len(m.items))
	}
}

// wantSurvivors runs the Leaver workflow and fails the test unless n items survived.
func (m *model) wantSurvivors(n int) {
	m.t.Helper()
	_, err := m.run(workflows.Leaver)
	var failed *temporal.ApplicationError
	var report cascade.Report
	if !errors.As(err, &failed) || failed.Type() != workflows.ErrorSurvivors || failed.Details(&report) != nil ||
		report.Survivors != n {
		m.t.Errorf("%v, report %+v; want %d survivors", err, report, n)
	}
}

func downstreamFails(*modelItem, int) error {
	return temporal.NewApplicationError("503", activities.ErrorDownstream)
}

func TestLeaver_EndsEverything(t *testing.T) {
	m := newModel(t)
	m.add("token", connectors.RefreshToken, "oauth")
	m.add("key", connectors.APIKey, "platform")
	m.wantCompleted()
}

func TestLeaver_CompletesWithNothingToEnd(t *testing.T) {
	newModel(t).wantCompleted()
}

func TestLeaver_RetriesWithBackoff(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	m.answer = func(i *modelItem, attempt int) error {
		if attempt < 5 {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	m.wantCompleted()
	var pauses []time.Duration
	for n := 1; n < len(key.attempts); n++ {
		pauses = append(pauses, key.attempts[n].Sub(key.attempts[n-1]))
	}
	if diff := cmp.Diff([]time.Duration{
		time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second,
	}, pauses); diff != "" {
		t.Error(diff)
	}
}

func TestLeaver_DeadlineLeavesSurvivors(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	m.add("token", connectors.RefreshToken, "oauth")
	m.answer = func(i *modelItem, attempt int) error {
		if i == key {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	start := m.env.Now()
	m.wantSurvivors(1)
	if diff := cmp.Diff([]string{"key"}, m.abandoned); diff != "" {
		t.Errorf("abandoned: %s", diff)
	}
	if last := key.attempts[len(key.attempts)-1].Sub(start); last != 255*time.Second {
		t.Errorf("the last attempt was after %s, want the ninth, the last before the deadline", last)
	}
}

func TestLeaver_PermanentRefusalIsASurvivorAtOnce(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	m.answer = func(*modelItem, int) error {
		return temporal.NewNonRetryableApplicationError("not the owner", activities.ErrorPermanent, nil)
	}
	m.wantSurvivors(1)
	if len(key.attempts) != 1 || len(m.abandoned) != 0 {
		t.Errorf("%d attempts, and abandoned %v; want one attempt, which concludes it", len(key.attempts), m.abandoned)
	}
}

func TestLeaver_PausedConnectorExtendsDeadline(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	start := m.env.Now()
	m.answer = func(*modelItem, int) error {
		if m.env.Now().Sub(start) < time.Hour {
			return temporal.NewApplicationError("paused", activities.ErrorPaused)
		}
		return nil
	}
	m.wantCompleted()
}

func TestLeaver_RunsEndBeforeCredentials(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	m.add("run", connectors.ScheduledRun, "scheduler")
	m.wantCompleted()
	if diff := cmp.Diff([]string{"run", "key"}, m.order); diff != "" {
		t.Error(diff)
	}
}

// TestLeaver_MintersEndBeforeOtherCredentials lets the minter's downstream fail once: the other credential waits.
func TestLeaver_MintersEndBeforeOtherCredentials(t *testing.T) {
	m := newModel(t)
	m.in.Policy.Batch = 50
	m.add("key", connectors.APIKey, "platform")
	minter := m.add("minter", connectors.RefreshToken, "idp")
	minter.Mints = true
	m.answer = func(i *modelItem, attempt int) error {
		if i == minter && attempt < 2 {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	m.wantCompleted()
	if diff := cmp.Diff([]string{"minter", "key"}, m.order); diff != "" {
		t.Error(diff)
	}
}

func TestLeaver_CredentialsWaitForRunsNoLongerThanTheGrace(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	run := m.add("run", connectors.ScheduledRun, "scheduler")
	m.answer = func(i *modelItem, attempt int) error {
		if i == run && attempt < 8 {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	m.wantCompleted()
	if waited := key.attempts[0].Sub(run.attempts[0]); waited != 10*time.Second {
		t.Errorf("the credential waited %s for the run, want the grace of 10s", waited)
	}
}

func TestLeaver_BatchesItemsByConnector(t *testing.T) {
	m := newModel(t)
	m.in.Policy.Batch = 50
	one, two := m.add("one", connectors.APIKey, "platform"), m.add("two", connectors.APIKey, "platform")
	m.answer = func(i *modelItem, attempt int) error {
		if i == two && attempt < 3 {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	m.wantCompleted()
	if len(one.attempts) != 1 || len(two.attempts) != 3 {
		t.Errorf(
			"%d and %d attempts, want 1 and 3: items that a batch cannot end are retried individually",
			len(one.attempts), len(two.attempts),
		)
	}
}

func TestLeaver_ThresholdHoldsIrreversibleItems(t *testing.T) {
	m := newModel(t)
	m.held = true
	token := m.add("token", connectors.RefreshToken, "oauth")
	key := m.add("key", connectors.APIKey, "platform")
	start := m.env.Now()
	m.env.RegisterDelayedCallback(func() {
		if len(token.attempts) != 1 || len(key.attempts) != 0 {
			t.Errorf(
				"%d and %d attempts while it is held, want the token's only", len(token.attempts), len(key.attempts),
			)
		}
		m.held = false
		m.env.SignalWorkflow(workflows.SignalApprove, nil)
	}, 2*time.Hour+time.Minute)
	m.wantCompleted()
	if diff := cmp.Diff([]string{"key"}, m.blocked); diff != "" {
		t.Errorf("blocked: %s", diff)
	}
	if at := key.attempts[0].Sub(start); at != 2*time.Hour+time.Minute {
		t.Errorf("the first attempt on the key was after %s, want at the approval", at)
	}
}

func TestLeaver_PollsForApprovalIfSignalIsLost(t *testing.T) {
	m := newModel(t)
	m.held = true
	key := m.add("key", connectors.APIKey, "platform")
	start := m.env.Now()
	m.env.RegisterDelayedCallback(func() { m.held = false }, 90*time.Minute)
	m.wantCompleted()
	if at := key.attempts[0].Sub(start); at != 2*time.Hour {
		t.Errorf("the first attempt on the key was after %s, want at the next hourly poll", at)
	}
}

func TestLeaver_SignalWithoutApprovalEndsNothing(t *testing.T) {
	m := newModel(t)
	m.held = true
	key := m.add("key", connectors.APIKey, "platform")
	m.env.RegisterDelayedCallback(func() { m.env.SignalWorkflow(workflows.SignalApprove, nil) }, time.Minute)
	m.env.RegisterDelayedCallback(func() {
		if len(key.attempts) != 0 {
			t.Error("a signal without an approval started the key")
		}
		m.held = false
	}, 5*time.Minute)
	m.wantCompleted()
}

// update sends an Update and returns its result.
func (m *model) update(name string, request any) *updated {
	u := &updated{}
	m.env.UpdateWorkflow(name, uuid.NewString(), &testsuite.TestUpdateCallback{
		OnReject:   func(err error) { u.rejected = err },
		OnAccept:   func() { u.accepted = true },
		OnComplete: func(_ any, err error) { u.err = err },
	}, request)
	return u
}

type updated struct {
	accepted      bool
	rejected, err error
}

func TestLeaver_RetryTriesAtOnce(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	repaired := false
	m.answer = func(i *modelItem, attempt int) error {
		if !repaired {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	start := m.env.Now()
	m.env.RegisterDelayedCallback(func() {
		repaired = true
		m.update(workflows.UpdateRetry, workflows.RetryRequest{
			Item: key.ID, By: "op", Reason: "repaired", At: m.env.Now(),
		})
	}, 200*time.Second)
	m.wantCompleted()
	if at := key.attempts[len(key.attempts)-1].Sub(start); at != 200*time.Second {
		t.Errorf("the last attempt was after %s, want at the retry", at)
	}
}

func TestLeaver_RetryIsRefused(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	m.answer = downstreamFails
	refused := map[string]workflows.RetryRequest{
		"without a reason": {By: "op"},
		"of another item":  {Item: uuid.New(), Reason: "why"},
		"that is old":      {Reason: "why", At: m.env.Now().Add(-time.Hour)},
	}
	results := make(map[string]*updated)
	m.env.RegisterDelayedCallback(func() {
		for name, r := range refused {
			if r.At.IsZero() {
				r.At = m.env.Now()
			}
			results[name] = m.update(workflows.UpdateRetry, r)
		}
	}, time.Minute)
	m.wantSurvivors(1)
	for name := range refused {
		if results[name].rejected == nil || results[name].accepted {
			t.Errorf("a retry %s: %+v, want it rejected", name, results[name])
		}
	}
}

func TestLeaver_WaivedItemIsNotRetried(t *testing.T) {
	m := newModel(t)
	key := m.add("key", connectors.APIKey, "platform")
	m.answer = downstreamFails
	var waived *updated
	m.env.RegisterDelayedCallback(func() {
		waived = m.update(workflows.UpdateWaive, workflows.WaiveRequest{
			Item: key.ID, By: "security", Reason: "the vendor ends it on Monday",
			Until: m.env.Now().Add(72 * time.Hour), At: m.env.Now(),
		})
	}, 200*time.Second)
	report, err := m.run(workflows.Leaver)
	if err != nil || report.Waived != 1 || report.Survivors != 0 || waived.rejected != nil || waived.err != nil {
		t.Errorf("report %+v (%v), update %+v; want one waived", report, err, waived)
	}
	if last := key.attempts[len(key.attempts)-1].Sub(key.attempts[0]); last != 127*time.Second {
		t.Errorf("the last attempt was after %s, want none after the waiver", last)
	}
}

func TestLeaver_CancelledReportsAsCancelled(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	m.answer = downstreamFails
	var reported activities.ReportInput
	m.report = func(in activities.ReportInput) *activities.Reported { reported = in; return nil }
	m.env.RegisterDelayedCallback(m.env.CancelWorkflow, time.Minute)
	if _, err := m.run(workflows.Leaver); !temporal.IsCanceledError(err) {
		t.Errorf("%v, want it cancelled", err)
	}
	if !reported.Cancelled || reported.FinalDiscovery || len(m.abandoned) != 0 {
		t.Errorf("reported %+v, abandoned %v; want the items left to the report", reported, m.abandoned)
	}
}

func TestLeaver_RetriesBulkItemsInOneBatch(t *testing.T) {
	m := newModel(t)
	m.in.Policy.Batch, m.bulk = 50, true
	for n := range 6 {
		m.add(strings.Repeat("k", n+1), connectors.APIKey, "platform")
	}
	m.answer = func(i *modelItem, attempt int) error {
		if len(i.name) > 3 && attempt < 3 || len(i.name) == 6 {
			return downstreamFails(i, attempt)
		}
		return nil
	}
	m.wantSurvivors(1)
	if diff := cmp.Diff([]int{6, 3, 3}, m.batches); diff != "" {
		t.Errorf("batches of other items, then one alone: %s", diff)
	}
}

func TestLeaver_CancelledWhileHeldUnblocks(t *testing.T) {
	m := newModel(t)
	m.held = true
	m.add("token", connectors.RefreshToken, "oauth")
	m.add("key", connectors.APIKey, "platform")
	m.env.RegisterDelayedCallback(m.env.CancelWorkflow, time.Hour)
	if _, err := m.run(workflows.Leaver); !temporal.IsCanceledError(err) {
		t.Errorf("%v, want it cancelled", err)
	}
	if diff := cmp.Diff([]string{"key"}, m.unblocked); diff != "" || m.unblocks != 2 {
		t.Errorf("unblocked in %d attempts: %s", m.unblocks, diff)
	}
}

func TestLeaver_ContinuesAsNewWithACursor(t *testing.T) {
	m := newModel(t)
	m.in.Policy.Batch = 50
	for n := range 400 {
		m.add(strings.Repeat("k", n+1), connectors.APIKey, "platform")
	}
	m.env.SetCurrentHistoryLength(5000)
	_, err := m.run(workflows.Leaver)
	var next *workflow.ContinueAsNewError
	if !errors.As(err, &next) {
		t.Fatalf("%v, want it to continue as new", err)
	}
	ended := 0
	for _, i := range m.items {
		if i.state == credential.Verified {
			ended++
		}
	}
	if ended != activities.DiscoverPage {
		t.Errorf("%d items ended, want the page that was started", ended)
	}
}

func TestLeaver_ContinuedRunKeepsDeadlineAndCounts(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	m.answer = downstreamFails
	start := m.env.Now()
	m.in.Continued = &workflows.Continued{
		Deadline: start.Add(2 * time.Minute), Counts: map[credential.State]int{credential.Verified: 7},
	}
	m.env.RegisterDelayedCallback(func() {
		value, err := m.env.QueryWorkflow(workflows.QueryProgress)
		var progress workflows.Progress
		if err != nil || value.Get(&progress) != nil || progress.Counts["verified"] != 7 {
			t.Errorf("progress %+v (%v), want 7 verified by the run before", progress, err)
		}
	}, 30*time.Second)
	m.wantSurvivors(1)
	if took := m.env.Now().Sub(start); took > 3*time.Minute {
		t.Errorf("it took %s, want the deadline of the first run", took)
	}
}

func TestLeaver_UnreachableConnectorFailsTheCascade(t *testing.T) {
	m := newModel(t)
	m.in.Discover = []string{"oauth"}
	m.add("key", connectors.APIKey, "platform")
	m.find = func(string) error {
		return temporal.NewNonRetryableApplicationError("no such connector", activities.ErrorPermanent, nil)
	}
	_, err := m.run(workflows.Leaver)
	if err == nil || !strings.Contains(err.Error(), "[oauth] could not be queried") ||
		m.items[0].state != credential.Verified {
		t.Errorf("%v; want the rest ended, and the cascade failed", err)
	}
}

func TestLeaver_EndsCredentialsFoundLate(t *testing.T) {
	m := newModel(t)
	m.in.Discover = []string{"oauth"}
	m.add("key", connectors.APIKey, "platform")
	calls := 0
	m.find = func(string) error {
		if calls++; calls < 4 {
			return temporal.NewApplicationError("503", activities.ErrorDownstream)
		}
		m.add("unregistered", connectors.Grant, "oauth")
		return nil
	}
	m.wantCompleted()
}

func TestLeaver_FinalDiscoveryEndsLateRegistrations(t *testing.T) {
	m := newModel(t)
	m.add("key", connectors.APIKey, "platform")
	calls := 0
	m.report = func(in activities.ReportInput) *activities.Reported {
		if calls++; calls == 1 && in.FinalDiscovery {
			m.add("late", connectors.APIKey, "platform")
			return &activities.Reported{Found: m.page(activities.DiscoverInput{})}
		}
		return nil
	}
	m.wantCompleted()
	if calls != 2 {
		t.Errorf("%d reports, want 2", calls)
	}
}

func TestLeaver_FinalDiscoveryReadsPastKnownItems(t *testing.T) {
	m := newModel(t)
	m.in.Policy.Batch = 50
	for n := range activities.DiscoverPage {
		m.add(strings.Repeat("k", n+1), connectors.APIKey, "platform")
	}
	var asked []activities.ReportInput
	m.report = func(in activities.ReportInput) *activities.Reported {
		if asked = append(asked, in); len(asked) > 1 {
			return nil
		}
		var known []cascade.Item
		for _, i := range m.items {
			known = append(known, i.Item)
		}
		return &activities.Reported{Found: known}
	}
	m.wantCompleted()
	if len(asked) != 2 || !asked[1].FinalDiscovery || asked[1].After.ID != m.items[len(m.items)-1].ID {
		t.Errorf("asked %+v, want a second page after the last known item", asked)
	}
}

func TestMover_EndsOnlyWhatItsEventHasMarked(t *testing.T) {
	for name, ends := range map[string]bool{"nothing": false, "something": true} {
		t.Run(name, func(t *testing.T) {
			m := newModel(t)
			m.env.OnActivity(a.Entitle, mock.Anything, mock.Anything).Return(activities.Entitled{
				Lost: []string{"team:x"}, Ends: ends,
			}, nil)
			m.env.OnActivity(a.Record, mock.Anything, mock.Anything).Return(nil).Maybe()
			key := m.add("key", connectors.APIKey, "platform")
			if _, err := m.run(workflows.Mover); err != nil {
				t.Fatal(err)
			}
			if (len(key.attempts) > 0) != ends {
				t.Errorf("%d attempts on the key, want %s ended", len(key.attempts), name)
			}
		})
	}
}
