package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/coalesce"
)

// recorder makes calls, and holds the first until it is let go.
type recorder struct {
	mu    sync.Mutex
	trips [][]string  // in their order, each sorted
	later atomic.Bool // than the first
	began chan struct{}
	goOn  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{began: make(chan struct{}), goOn: make(chan struct{})}
}

func (r *recorder) do(_ context.Context, key string, calls []string) []error {
	if !r.later.Swap(true) {
		close(r.began)
		<-r.goOn
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	trip := make([]string, len(calls))
	errs := make([]error, len(calls))
	for i, call := range calls {
		trip[i] = key + "/" + call
		if call == "bad" {
			errs[i] = errors.New("refused")
		}
	}
	slices.Sort(trip)
	r.trips = append(r.trips, trip)
	return errs
}

// behind makes calls while the first is under way, and lets that go once all wait.
func (r *recorder) behind(t *testing.T, g *coalesce.Group[string, string], calls ...string) map[string]error {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() { _ = g.Do(t.Context(), "k", "first") })
	<-r.began
	outcomes := make(map[string]error)
	var mu sync.Mutex
	for _, call := range calls {
		all.Go(func() {
			err := g.Do(t.Context(), "k", call)
			mu.Lock()
			defer mu.Unlock()
			outcomes[call] = err
		})
	}
	g.AwaitWaiting("k", len(calls))
	close(r.goOn)
	all.Wait()
	return outcomes
}

func TestCallsThatComeMeanwhileGoTogether(t *testing.T) {
	r := newRecorder()
	r.behind(t, coalesce.NewGroup(1, r.do), "a", "b", "c")
	if diff := cmp.Diff([][]string{{"k/first"}, {"k/a", "k/b", "k/c"}}, r.trips); diff != "" {
		t.Errorf("trips (-want +got):\n%s", diff)
	}
}

func TestEachCallHasItsOwnError(t *testing.T) {
	r := newRecorder()
	outcomes := r.behind(t, coalesce.NewGroup(1, r.do), "good", "bad")
	if outcomes["good"] != nil || outcomes["bad"] == nil {
		t.Errorf("outcomes %v; want an error of bad only", outcomes)
	}
}

func TestAHundredCallsGoInCompaniesOfABoundedSize(t *testing.T) {
	r := newRecorder()
	var calls []string
	for i := range 100 {
		calls = append(calls, fmt.Sprint(i))
	}
	r.behind(t, coalesce.NewGroup(1, r.do), calls...)
	var sizes []int
	for _, trip := range r.trips {
		sizes = append(sizes, len(trip))
	}
	if diff := cmp.Diff([]int{1, 64, 36}, sizes); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
}

func TestCallsOfAnotherKeyDoNotWait(t *testing.T) {
	r := newRecorder()
	g := coalesce.NewGroup(1, r.do)
	var first sync.WaitGroup
	first.Go(func() { _ = g.Do(t.Context(), "slow", "first") })
	<-r.began
	if err := g.Do(t.Context(), "other", "a"); err != nil {
		t.Error(err)
	}
	close(r.goOn)
	first.Wait()
}

func TestACallThatNobodyWaitsForIsNotMade(t *testing.T) {
	r := newRecorder()
	g := coalesce.NewGroup(1, r.do)
	var first sync.WaitGroup
	first.Go(func() { _ = g.Do(t.Context(), "k", "first") })
	<-r.began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Do(ctx, "k", "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call returned %v", err)
	}
	close(r.goOn)
	first.Wait()
	if err := g.Do(t.Context(), "k", "next"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([][]string{{"k/first"}, {"k/next"}}, r.trips); diff != "" {
		t.Errorf("trips (-want +got):\n%s", diff)
	}
}
