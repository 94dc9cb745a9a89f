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
		r.behind(t, coalesce.NewGroup(r.do), "a", "b", "c")
		if diff := cmp.Diff([][]string{{"k/first"}, {"k/a", "k/b", "k/c"}}, r.trips); diff != "" {
			t.Errorf("trips (-want +got):\n%s", diff)
		}
	})
}

func TestSevenThatWaitGoAtOnce(t *testing.T) {
	for _, test := range []struct {
		waiting int
		want    []int // the sizes of the trips, in their order
	}{{6, []int{1, 6}}, {7, []int{7, 1}}, {9, []int{7, 1, 2}}} {
		t.Run(fmt.Sprint(test.waiting), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				r.behind(t, coalesce.NewGroup(r.do), numbers(test.waiting)...)
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
		g := coalesce.NewGroup(r.do)
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
		g := coalesce.NewGroup(func(_ context.Context, _ string, calls []chan struct{}) []error {
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

func TestNobodyIsLeftBehindASlowTripWhileAnotherMayBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, slower, now := make(chan struct{}), make(chan struct{}), make(chan struct{})
		close(now)
		g := coalesce.NewGroup(func(_ context.Context, _ string, calls []chan struct{}) []error {
			<-calls[0]
			return make([]error, len(calls))
		})
		var done atomic.Int32
		at := func(c chan struct{}, n int) {
			for range n {
				go func() {
					if g.Do(t.Context(), "k", c) == nil && c == now {
						done.Add(1)
					}
				}()
			}
			synctest.Wait()
		}
		at(slow, 1)
		at(slower, 7)
		at(now, 70) // more than go together
		time.Sleep(10 * time.Millisecond)
		close(slower)
		synctest.Wait()
		if done.Load() != 70 {
			t.Errorf("%d of 70 were made", done.Load())
		}
		close(slow)
	})
}

func TestWhoHasNotWaitedForLongWaitsForCompanyHoweverLongOthersDid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, slower := make(chan struct{}), make(chan struct{})
		now := make(chan struct{})
		close(now)
		g := coalesce.NewGroup(func(_ context.Context, _ string, calls []chan struct{}) []error {
			<-calls[0]
			return make([]error, len(calls))
		})
		at := func(c chan struct{}) { go func() { _ = g.Do(t.Context(), "k", c) }() }
		at(slow)
		synctest.Wait()
		for range 7 {
			at(slower)
		}
		time.Sleep(5 * time.Millisecond)
		start := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			_ = g.Do(t.Context(), "k", now)
			done <- time.Since(start)
		}()
		time.Sleep(6 * time.Millisecond)
		close(slow) // the seven, who went at once, have been there for more than 10 ms
		if waited := <-done; waited != 10*time.Millisecond {
			t.Errorf("it went after %v; want 10 ms", waited)
		}
		close(slower)
	})
}

func TestEachCallHasItsOwnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		outcomes := r.behind(t, coalesce.NewGroup(r.do), "good", "bad")
		if outcomes["good"] != nil || outcomes["bad"] == nil {
			t.Errorf("outcomes %v; want an error of bad only", outcomes)
		}
	})
}

func TestAHundredCallsGoInBatchesOfABoundedSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sizes []int
		goOn := make(chan struct{})
		g := coalesce.NewGroup(func(_ context.Context, _ string, calls []int) []error {
			<-goOn
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, len(calls))
			return make([]error, len(calls))
		})
		for _, n := range []int{1, 7, 100} { // as many as may be under way, and those who wait
			for range n {
				go func() { _ = g.Do(t.Context(), "k", 0) }()
			}
			synctest.Wait()
		}
		close(goOn)
		synctest.Wait()
		slices.Sort(sizes)
		if diff := cmp.Diff([]int{1, 7, 36, 64}, sizes); diff != "" {
			t.Errorf("sizes (-want +got):\n%s", diff)
		}
	})
}

func TestCallsOfAnotherKeyDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		g := coalesce.NewGroup(r.do)
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
		g := coalesce.NewGroup(r.do)
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
		g := coalesce.NewGroup(r.do)
		outcomes := r.behind(t, g, "panics", "with it")
		if outcomes["panics"] == nil || outcomes["with it"] == nil {
			t.Errorf("outcomes %v; want an error of each", outcomes)
		}
		if err := g.Do(t.Context(), "k", "next"); err != nil {
			t.Error(err)
		}
	})
}
