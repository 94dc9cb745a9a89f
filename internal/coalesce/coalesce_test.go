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
	"time"

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

// sizes are those of the trips.
func (r *recorder) sizes() (sizes []int) {
	for _, trip := range r.trips {
		sizes = append(sizes, len(trip))
	}
	return sizes
}

func numbers(n int) (calls []string) {
	for i := range n {
		calls = append(calls, fmt.Sprint(i))
	}
	return calls
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

func TestWhereTwoMayBeUnderWaySevenThatWaitGoAtOnce(t *testing.T) {
	for _, test := range []struct {
		waiting int
		want    []int // the sizes of the trips, in their order
	}{{6, []int{1, 6}}, {7, []int{7, 1}}, {9, []int{7, 1, 2}}} {
		t.Run(fmt.Sprint(test.waiting), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				r.behind(t, coalesce.NewGroup(2, r.do), numbers(test.waiting)...)
				if diff := cmp.Diff(test.want, r.sizes()); diff != "" {
					t.Errorf("sizes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestWhoeverHasWaitedForLongGoesWithoutCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		g := coalesce.NewGroup(2, r.do)
		go func() { _ = g.Do(t.Context(), "k", "slow") }()
		synctest.Wait()
		start := time.Now()
		if err := g.Do(t.Context(), "k", "a"); err != nil || time.Since(start) != 10*time.Millisecond {
			t.Errorf("made after %v: %v; want 10 ms", time.Since(start), err)
		}
		close(r.goOn)
	})
}

func TestWhoeverHasWaitedForLongGoesWhenATripIsOverWhateverElseIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, slower := make(chan struct{}), make(chan struct{})
		g := coalesce.NewGroup(2, func(_ context.Context, _ string, calls []chan struct{}) []error {
			for _, c := range calls {
				<-c
			}
			return make([]error, len(calls))
		})
		at := func(c chan struct{}) { go func() { _ = g.Do(t.Context(), "k", c) }() }
		at(slow)
		synctest.Wait()
		at(slower)
		time.Sleep(10 * time.Millisecond) // until it goes
		synctest.Wait()
		now := make(chan struct{})
		close(now)
		done := make(chan error, 1)
		go func() { done <- g.Do(t.Context(), "k", now) }()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		close(slow)
		synctest.Wait()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("it waits for the slower one")
		}
		close(slower)
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
		r.behind(t, coalesce.NewGroup(1, r.do), numbers(100)...)
		if diff := cmp.Diff([]int{1, 64, 36}, r.sizes()); diff != "" {
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
