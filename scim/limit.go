package scim

import (
	"context"
	"math"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/tenant"
)

// burst is the number of seconds whose requests may come at once.
const burst = 2

// maxLimiters bounds the tenants whose limiter a process keeps.
const maxLimiters = 100_000

// limitKey names a limiter: a tenant whose rate changes gets another one.
type limitKey struct {
	tenant    uuid.UUID
	perSecond int
}

// limits holds each tenant's rate limiter in this process.
type limits struct {
	limiters *cache.Cache[limitKey, *rate.Limiter]
}

func newLimits() limits { return limits{cache.New[limitKey, *rate.Limiter](maxLimiters, 0)} }

// wait takes one request from the tenant's rate and returns 0, or returns the number of whole
// seconds until one is available. standard is the rate of a tenant that has none of its own.
func (l limits) wait(ctx context.Context, t tenant.Tenant, standard int) (seconds int) {
	limiter := l.limiter(ctx, t, standard)
	if limiter == nil || limiter.Allow() {
		return 0
	}
	return int(math.Ceil(max(1, (1-limiter.Tokens())/float64(limiter.Limit()))))
}

// pace takes one request from the tenant's rate once one is available, or returns when ctx ends.
func (l limits) pace(ctx context.Context, t tenant.Tenant, standard int) {
	if limiter := l.limiter(ctx, t, standard); limiter != nil {
		_ = limiter.Wait(ctx) // the request then fails by its context
	}
}

// limiter returns the tenant's limiter, or nil if its rate is unlimited.
func (l limits) limiter(ctx context.Context, t tenant.Tenant, standard int) *rate.Limiter {
	perSecond := standard
	if t.RequestsPerSecond != nil {
		perSecond = *t.RequestsPerSecond
	}
	if perSecond == 0 {
		return nil
	}
	limiter, _ := l.limiters.Get(ctx, limitKey{t.ID, perSecond}, func(context.Context) (*rate.Limiter, error) {
		return rate.NewLimiter(rate.Limit(perSecond), perSecond*burst), nil
	})
	return limiter
}
