// Package coalesce lets calls that come while others are under way go on together,
// as commits do in a database: nobody waits for company, and whoever has to wait
// anyhow has some. Ten calls at a time cost little more than one.
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
	atOnce int
	do     func(ctx context.Context, key K, calls []T) []error

	mu    sync.Mutex
	lanes map[K]*lane[T]
}

type lane[T any] struct {
	underWay int
	waiting  []waiting[T]
}

type waiting[T any] struct {
	ctx  context.Context // of the call that waits: whether anybody still does
	call T
	done chan error // takes one
}

// NewGroup returns a group whose calls are made by do, which returns an error or nil for
// each; of one key so many times at once. A caller that finds room calls do itself.
func NewGroup[K comparable, T any](atOnce int, do func(ctx context.Context, key K, calls []T) []error) *Group[K, T] {
	return &Group[K, T]{atOnce: atOnce, do: do, lanes: make(map[K]*lane[T])}
}

// Do makes a call and returns its error, or ctx's; the call may then be made all the same.
func (g *Group[K, T]) Do(ctx context.Context, key K, call T) error {
	if w, must := g.wait(ctx, key, call); must {
		select {
		case err := <-w.done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer g.leave(key)
	ctx, cancel := context.WithTimeout(ctx, patience) // others wait for it
	defer cancel()
	return g.do(ctx, key, []T{call})[0]
}

// wait queues a call where as many as may are under way.
func (g *Group[K, T]) wait(ctx context.Context, key K, call T) (w waiting[T], must bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[key]
	if l == nil {
		l = &lane[T]{}
		g.lanes[key] = l
	}
	if l.underWay < g.atOnce {
		l.underWay++
		return w, false
	}
	w = waiting[T]{ctx, call, make(chan error, 1)}
	l.waiting = append(l.waiting, w)
	return w, true
}

// leave gives the room of a call that is over to those that have waited for it.
func (g *Group[K, T]) leave(key K) {
	batch := g.next(key)
	if len(batch) == 0 {
		return
	}
	go func() {
		for ; len(batch) > 0; batch = g.next(key) {
			g.together(key, batch)
		}
	}()
}

func (g *Group[K, T]) next(key K) []waiting[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[key]
	var batch []waiting[T]
	for len(l.waiting) > 0 && len(batch) < most {
		if w := l.waiting[0]; w.ctx.Err() == nil {
			batch = append(batch, w)
		}
		l.waiting = l.waiting[1:]
	}
	if len(batch) == 0 {
		if l.underWay--; l.underWay == 0 {
			delete(g.lanes, key)
		}
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
