package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/coalesce"
)

// recorder makes calls, and holds the first until it is let go.
type recorder struct {
	mu    sync.Mutex
	trips [][]string // in their order, each sorted
	begun atomic.Bool
	goOn  chan struct{}
}

func newRecorder() *recorder { return &recorder{goOn: make(chan struct{})} }

func (r *recorder) do(_ context.Context, key string, calls []string) []error {
	if !r.begun.Swap(true) {
		<-r.goOn
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	trip := make([]string, len(calls))
	errs := make([]error, len(calls))
	for i, call := range calls {
		trip[i] = key + "/" + call
		switch call {
		case "bad":
			errs[i] = errors.New("refused")
		case "panics":
			panic("at the disco")
		}
	}
	slices.Sort(trip)
	r.trips = append(r.trips, trip)
	return errs
}

// behind makes calls while a first one is under way, lets that go once all wait, and
// returns their errors.
func (r *recorder) behind(t *testing.T, g *coalesce.Group[string, string], calls ...string) map[string]error {
	t.Helper()
	go func() { _ = g.Do(t.Context(), "k", "first") }()
	synctest.Wait()
	var mu sync.Mutex
	outcomes := make(map[string]error)
	for _, call := range calls {
		go func() {
			err := g.Do(t.Context(), "k", call)
			mu.Lock()
			defer mu.Unlock()
			outcomes[call] = err
		}()
	}
	synctest.Wait()
	close(r.goOn)
	synctest.Wait()
	return outcomes
}

func TestCallsThatComeMeanwhileGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		r.behind(t, coalesce.NewGroup(1, r.do), "a", "b", "c")
		if diff := cmp.Diff([][]string{{"k/first"}, {"k/a", "k/b", "k/c"}}, r.trips); diff != "" {
			t.Errorf("trips (-want +got):\n%s", diff)
		}
	})
}

func TestWhereTwoMayBeUnderWayTheSecondGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		r.behind(t, coalesce.NewGroup(2, r.do), "a")
		if diff := cmp.Diff([][]string{{"k/a"}, {"k/first"}}, r.trips); diff != "" {
			t.Errorf("trips (-want +got):\n%s", diff)
		}
	})
}

func TestEachCallHasItsOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		outcomes := r.behind(t, coalesce.NewGroup(1, r.do), "good", "bad")
		if outcomes["good"] != nil || outcomes["bad"] == nil {
			t.Errorf("outcomes %v; want an error of bad only", outcomes)
		}
	})
}

func TestAHundredCallsGoInBatchesOfABoundedSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	})
}

func TestCallsOfAnotherKeyDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		g := coalesce.NewGroup(1, r.do)
		go func() { _ = g.Do(t.Context(), "slow", "first") }()
		synctest.Wait()
		if err := g.Do(t.Context(), "other", "a"); err != nil {
			t.Error(err)
		}
		close(r.goOn)
	})
}

func TestACallThatNobodyWaitsForAnyMoreIsNotMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		g := coalesce.NewGroup(1, r.do)
		go func() { _ = g.Do(t.Context(), "k", "first") }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		var late error
		go func() { late = g.Do(ctx, "k", "late") }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(late, context.Canceled) {
			t.Errorf("a call that was cancelled while it waited returned %v", late)
		}
		close(r.goOn)
		synctest.Wait()
		if err := g.Do(t.Context(), "k", "next"); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([][]string{{"k/first"}, {"k/next"}}, r.trips); diff != "" {
			t.Errorf("trips (-want +got):\n%s", diff)
		}
	})
}

func TestAPanicIsAnErrorOfThoseThatWentTogetherAndTheNextGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		g := coalesce.NewGroup(1, r.do)
		outcomes := r.behind(t, g, "panics", "with it")
		if outcomes["panics"] == nil || outcomes["with it"] == nil {
			t.Errorf("outcomes %v; want an error of each", outcomes)
		}
		if err := g.Do(t.Context(), "k", "next"); err != nil {
			t.Error(err)
		}
	})
}
