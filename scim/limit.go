package scim

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/leaverhq/leaver/internal/tenant"
)

// burst is how many seconds' worth of requests may come at once.
const burst = 2

// maxLimiters bounds the tenants whose rate is kept; it is far over what one
// process serves in the seconds that a limiter matters.
const maxLimiters = 100_000

// limits hold each tenant's rate within this process. The zero value is ready.
type limits struct {
	mu sync.Mutex
	of map[uuid.UUID]*rate.Limiter
}

// wait takes one request of the tenant's rate, or tells in how many whole
// seconds there is one again. standard is the rate of who has none.
func (l *limits) wait(t tenant.Tenant, standard int) (seconds int) {
	limiter := l.limiter(t, standard)
	if limiter == nil || limiter.Allow() {
		return 0
	}
	return int(math.Ceil(max(1, (1-limiter.Tokens())/float64(limiter.Limit()))))
}

// pace takes one request of the tenant's rate when there is one, or ctx ends.
func (l *limits) pace(ctx context.Context, t tenant.Tenant, standard int) {
	if limiter := l.limiter(t, standard); limiter != nil {
		_ = limiter.Wait(ctx) // what the request does then fails by itself
	}
}

// limiter is the tenant's, or nil where nothing limits it.
func (l *limits) limiter(t tenant.Tenant, standard int) *rate.Limiter {
	id, perSecond := t.ID, standard
	if t.RequestsPerSecond != nil {
		perSecond = *t.RequestsPerSecond
	}
	if perSecond == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.of[id]
	if limiter == nil {
		if l.of == nil || len(l.of) >= maxLimiters {
			l.of = make(map[uuid.UUID]*rate.Limiter)
		}
		limiter = rate.NewLimiter(rate.Limit(perSecond), perSecond*burst)
		l.of[id] = limiter
	}
	if limiter.Limit() != rate.Limit(perSecond) {
		now := time.Now()
		limiter.SetLimitAt(now, rate.Limit(perSecond))
		limiter.SetBurstAt(now, perSecond*burst)
	}
	return limiter
}
