package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// maxLineRates bounds the tokens whose limiter a process keeps.
const maxLineRates = 10_000

// lineRates holds the rate at which each token imports.
type lineRates struct {
	limiters *cache.Cache[uuid.UUID, *rate.Limiter]
}

func newLineRates() lineRates { return lineRates{cache.New[uuid.UUID, *rate.Limiter](maxLineRates, 0)} }

// take takes lines from a token's rate limit, or returns a problem that states when to retry.
func (l lineRates) take(ctx context.Context, token uuid.UUID, lines int) error {
	limiter, err := l.limiters.Get(ctx, token, func(context.Context) (*rate.Limiter, error) {
		return rate.NewLimiter(importRate, importBurst), nil
	})
	if err != nil {
		return err
	}
	if limiter.AllowN(time.Now(), lines) {
		return nil
	}
	wait := math.Ceil((float64(lines) - limiter.Tokens()) / importRate)
	return httpjson.Problem{
		Status: http.StatusTooManyRequests, RetryAfter: int(max(1, wait)),
		Detail: fmt.Sprintf("this token may import %d lines a second; try again in %.0f s", importRate, max(1, wait)),
	}
}

// slow acquires a slot of the limit on searches, imports and reports of the request's tenant.
func (s *Server) slow(r *http.Request) (ctx context.Context, release func(), err error) {
	return s.Slow(r.Context(), tenantOf(r).ID)
}

// slowly is middleware that holds a slot of [Server.slow] during a request.
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
