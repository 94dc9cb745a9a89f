// Package coalesce lets calls that come while others are under way go on together,
// as commits do in a database: nobody waits for company, and whoever has to wait
// anyhow has some. Ten calls at a time cost little more than one.
package coalesce

import (
	"context"
	"sync"
	"time"
)

const (
	// most is how many calls go together.
	most = 64
	// patience bounds calls that go together, since they end with no caller's context.
	patience = 20 * time.Second
)

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
	ctx  context.Context //nolint:containedctx // of a call that waits: whether anybody still does
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
	next := g.next(key)
	if len(next) == 0 {
		return
	}
	go func() {
		for ; len(next) > 0; next = g.next(key) {
			g.together(key, next)
		}
	}()
}

func (g *Group[K, T]) next(key K) []waiting[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lanes[key]
	var next []waiting[T]
	for len(l.waiting) > 0 && len(next) < most {
		if w := l.waiting[0]; w.ctx.Err() == nil {
			next = append(next, w)
		}
		l.waiting = l.waiting[1:]
	}
	if len(next) == 0 {
		if l.underWay--; l.underWay == 0 {
			delete(g.lanes, key)
		}
	}
	return next
}

func (g *Group[K, T]) together(key K, company []waiting[T]) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	calls := make([]T, len(company))
	for i, w := range company {
		calls[i] = w.call
	}
	for i, err := range g.do(ctx, key, calls) {
		company[i].done <- err
	}
}
