// Package logging limits how often a process logs the same warning or error.
package logging

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxKept limits the number of stored records.
const maxKept = 1000

// volatile lists the attributes that are ignored in comparisons because they differ by attempt.
var volatile = []string{"Attempt", "RunID", "ActivityID", "in", "stack"}

// Limited returns a handler that passes warnings and errors with the same message and attributes at most
// once per interval. The attribute "suppressed" of the next record is the number of dropped records.
func Limited(next slog.Handler, interval time.Duration) slog.Handler {
	return &limited{Handler: next, interval: interval, state: &state{seen: make(map[string]*seen)}}
}

type limited struct {
	slog.Handler
	interval time.Duration
	state    *state
}

// state is shared by the handlers that WithAttrs and WithGroup derive.
type state struct {
	mu   sync.Mutex
	seen map[string]*seen
}

type seen struct {
	at         time.Time
	suppressed int
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return l.Handler.Handle(ctx, r)
	}
	key := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if !slices.Contains(volatile, a.Key) {
			key += "\x00" + a.Key + "=" + a.Value.String()
		}
		return true
	})
	suppressed, pass := l.state.pass(key, r.Time, l.interval)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return l.Handler.Handle(ctx, r)
}

func (s *state) pass(key string, at time.Time, interval time.Duration) (suppressed int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.seen[key]
	if last != nil && at.Sub(last.at) < interval {
		last.suppressed++
		return 0, false
	}
	if last != nil {
		suppressed = last.suppressed
	}
	if len(s.seen) >= maxKept {
		clear(s.seen)
	}
	s.seen[key] = &seen{at: at}
	return suppressed, true
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{l.Handler.WithAttrs(attrs), l.interval, l.state}
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.interval, l.state}
}
