// Package coalesce lets calls that come while another is under way go on together, as
// commits do in a database. A second trip begins beside the first once enough wait, or
// one has waited for long; whoever finds nothing under way goes at once. Ten calls at a
// time cost little more than one.
package coalesce

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// most is how many calls go together.
	most = 64
	// atOnce is how many trips of one key may be under way.
	atOnce = 2
	// company is how many waiting calls make a trip beside another worthwhile: few cost
	// nearly what many do.
	company = 7
	// long is what a call waits for company at most.
	long = 10 * time.Millisecond
	// patience bounds calls that others go with, or wait for.
	patience = 20 * time.Second
)

// ErrAlone is what calls return that could not go together: nothing was done, and each
// is to be made by itself.
var ErrAlone = errors.New("the call must be made alone")

// All is one error for each of n calls, or nil for each.
func All(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// Group takes calls with an argument of type T. Those with equal keys may go together.
type Group[K comparable, T any] struct {
	do func(ctx context.Context, key K, calls []T) []error

	mu    sync.Mutex
	lanes map[K]*lane[T]
}

type lane[T any] struct {
	trips   int          // under way
	waiting []waiting[T] // in the order they came
}

type waiting[T any] struct {
	ctx   context.Context // of the call that waits: whether anybody still does
	call  T
	since time.Time
	done  chan error // takes one
}

// NewGroup returns a group whose calls are made by do, which returns an error or nil for
// each. A caller who finds nothing under way calls do itself.
func NewGroup[K comparable, T any](do func(ctx context.Context, key K, calls []T) []error) *Group[K, T] {
	return &Group[K, T]{do: do, lanes: make(map[K]*lane[T])}
}

// Do makes a call and returns its error, or ctx's; the call may then be made all the same.
func (g *Group[K, T]) Do(ctx context.Context, key K, call T) error {
	if w, must := g.queue(ctx, key, call); must {
		return g.wait(ctx, key, w)
	}
	defer func() {
		if batch := g.next(key); len(batch) > 0 {
			go g.run(key, batch)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, patience) // others wait for it
	defer cancel()
	return g.do(ctx, key, []T{call})[0]
}

// queue has a call wait where any is under way.
func (g *Group[K, T]) queue(ctx context.Context, key K, call T) (w waiting[T], must bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[key]
	if l == nil {
		g.lanes[key] = &lane[T]{trips: 1}
		return w, false
	}
	w = waiting[T]{ctx, call, time.Now(), make(chan error, 1)}
	l.waiting = append(l.waiting, w)
	g.another(key, l)
	return w, true
}

func (g *Group[K, T]) wait(ctx context.Context, key K, w waiting[T]) error {
	late := time.NewTimer(long)
	defer late.Stop()
	for {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			g.hurry(key)
		}
	}
}

// hurry begins a trip, if one that has waited for long still waits.
func (g *Group[K, T]) hurry(key K) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.lanes[key]; l != nil {
		g.another(key, l)
	}
}

// another begins another trip, if those who wait are worth it and one more may be under way.
func (g *Group[K, T]) another(key K, l *lane[T]) {
	if l.trips == atOnce || !l.ready() {
		return
	}
	if batch := l.take(); len(batch) > 0 {
		l.trips++
		go g.run(key, batch)
	}
}

// ready tells whether those who wait are worth a trip beside another.
func (l *lane[T]) ready() bool {
	return len(l.waiting) >= company || (len(l.waiting) > 0 && time.Since(l.waiting[0].since) >= long)
}

// run makes a trip, and those of the calls that wait when it is over.
func (g *Group[K, T]) run(key K, batch []waiting[T]) {
	for ; len(batch) > 0; batch = g.next(key) {
		g.together(key, batch)
	}
}

// next ends a trip, or goes on with those who wait.
func (g *Group[K, T]) next(key K) (batch []waiting[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[key]
	if l.trips == 1 || l.ready() {
		batch = l.take()
	}
	if len(batch) == 0 {
		if l.trips--; l.trips == 0 {
			delete(g.lanes, key)
		}
	}
	return batch
}

// take is a batch of those who wait, and still do.
func (l *lane[T]) take() (batch []waiting[T]) {
	for len(l.waiting) > 0 && len(batch) < most {
		if w := l.waiting[0]; w.ctx.Err() == nil {
			batch = append(batch, w)
		}
		l.waiting = l.waiting[1:]
	}
	return batch
}

func (g *Group[K, T]) together(key K, batch []waiting[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i, err := range g.attempt(ctx, key, batch) {
		batch[i].done <- err
	}
}

// attempt turns a panic into everybody's error: no caller is there to recover it.
func (g *Group[K, T]) attempt(ctx context.Context, key K, batch []waiting[T]) (errs []error) {
	defer func() {
		if p := recover(); p != nil {
			errs = All(fmt.Errorf("panic in calls that went together: %v\n%s", p, debug.Stack()), len(batch))
		}
	}()
	calls := make([]T, len(batch))
	for i, w := range batch {
		calls[i] = w.call
	}
	return g.do(ctx, key, calls)
}
