package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

// maxLineRates bounds the tokens whose rate is kept: when there are more, all begin anew.
const maxLineRates = 10_000

// lineRates hold the rate at which each token imports. The zero value is ready.
type lineRates struct {
	mu sync.Mutex
	of map[uuid.UUID]*rate.Limiter
}

// take takes lines of a token's rate, or returns the problem that says when to try again.
func (l *lineRates) take(token uuid.UUID, lines int) error {
	l.mu.Lock()
	limiter := l.of[token]
	if limiter == nil {
		if l.of == nil || len(l.of) >= maxLineRates {
			l.of = make(map[uuid.UUID]*rate.Limiter)
		}
		limiter = rate.NewLimiter(importRate, importBurst)
		l.of[token] = limiter
	}
	l.mu.Unlock()
	if limiter.AllowN(time.Now(), lines) {
		return nil
	}
	wait := math.Ceil((float64(lines) - limiter.Tokens()) / importRate)
	return problem{
		Status: http.StatusTooManyRequests, RetryAfter: int(max(1, wait)),
		Detail: fmt.Sprintf("this token may import %d lines a second; try again in %.0f s", importRate, max(1, wait)),
	}
}

// slow takes a place among the searches, imports and reports of the request's tenant.
func (s *Server) slow(r *http.Request) (ctx context.Context, release func(), err error) {
	return s.Slow(r.Context(), tenantOf(r).ID)
}

// slowly is the middleware of routes that read much.
func (s *Server) slowly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, release, err := s.slow(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		defer release()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
