package database

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"
)

const (
	// defaultConns is the size of a pool whose URL has no pool_max_conns.
	defaultConns = 16
	// acquireTimeout bounds how long a request waits for a connection.
	acquireTimeout = 2 * time.Second
	// slowStatementTimeout bounds a statement of a search, an import or a report.
	slowStatementTimeout = "2s"
)

// quotas limits how a pool's connections are used. A quarter of them is for changes of principals and
// for authentication alone, and everything else uses the others. A tenant may use two thirds of the
// others at a time, and a third of all for its changes. Searches, imports and reports together may use
// half of all, and each tenant a third of that half.
type quotas struct {
	changes quota // changes of principals
	tenants quota // any other use
	others  *semaphore.Weighted
	slow    quota // searches, imports and reports
	allSlow *semaphore.Weighted
}

func newQuotas(conns int32) *quotas {
	slow, others := max(1, conns/2), max(1, conns-max(1, conns/4))
	return &quotas{
		changes: quota{each: int64(max(1, conns/3))},
		tenants: quota{each: int64(max(1, others*2/3))},
		others:  semaphore.NewWeighted(int64(others)),
		slow:    quota{each: int64(max(1, slow/3))},
		allSlow: semaphore.NewWeighted(int64(slow)),
	}
}

type changeKey struct{}

// ForChange returns a context whose statements use the connections for changes of principals: no load
// of decisions, searches or registrations delays them.
func ForChange(ctx context.Context) context.Context { return context.WithValue(ctx, changeKey{}, true) }

// quota limits each tenant to a number of places.
type quota struct {
	each int64
	mu   sync.Mutex
	of   map[uuid.UUID]*places
}

type places struct {
	*semaphore.Weighted
	users int // that hold or wait for a place
}

// take waits for a place of the tenant. It returns the error of ctx if that ends first.
func (q *quota) take(ctx context.Context, tenant uuid.UUID) (release func(), err error) {
	q.mu.Lock()
	p := q.of[tenant]
	if p == nil {
		if q.of == nil {
			q.of = make(map[uuid.UUID]*places)
		}
		p = &places{Weighted: semaphore.NewWeighted(q.each)}
		q.of[tenant] = p
	}
	p.users++
	q.mu.Unlock()
	leave := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(q.of, tenant)
		}
	}
	if err := p.Acquire(ctx, 1); err != nil {
		leave()
		return nil, err
	}
	return func() { p.Release(1); leave() }, nil
}

type slowKey struct{}

// Slow takes a place among the searches, imports and reports, and bounds the statements
// that use the returned context to two seconds each. Error: [ErrUnavailable].
func (db *DB) Slow(ctx context.Context, tenant uuid.UUID) (slow context.Context, release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	mine, err := db.quotas.slow.take(wait, tenant)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the tenant has reached its limit of concurrent searches, imports and reports",
			ErrUnavailable)
	}
	if err := db.quotas.allSlow.Acquire(wait, 1); err != nil {
		mine()
		return nil, nil, fmt.Errorf("%w: too many searches, imports and reports are in progress", ErrUnavailable)
	}
	return context.WithValue(ctx, slowKey{}, true), func() { db.quotas.allSlow.Release(1); mine() }, nil
}

func isSlow(ctx context.Context) bool { return ctx.Value(slowKey{}) != nil }

// acquire takes a connection within the quota of a tenant, or without a quota for uuid.Nil.
// Error: [ErrUnavailable], if no connection is free within acquireTimeout.
func (db *DB) acquire(ctx context.Context, tenant uuid.UUID) (conn *pgxpool.Conn, release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, acquireTimeout)
	defer cancel()
	place, err := db.place(wait, tenant)
	if err != nil {
		return nil, nil, waited(ctx, fmt.Errorf("the tenant or all tenants have reached their limit of connections: %w", err))
	}
	conn, err = db.pool.Acquire(wait)
	if err != nil {
		place()
		return nil, nil, waited(ctx, classify(err))
	}
	return conn, func() { conn.Release(); place() }, nil
}

// place takes a place for a connection. It returns the error of ctx if that ends first.
func (db *DB) place(ctx context.Context, tenant uuid.UUID) (release func(), err error) {
	switch {
	case tenant == uuid.Nil:
		return func() {}, nil
	case ctx.Value(changeKey{}) != nil:
		return db.quotas.changes.take(ctx, tenant)
	}
	mine, err := db.quotas.tenants.take(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if err := db.quotas.others.Acquire(ctx, 1); err != nil {
		mine()
		return nil, err
	}
	return func() { db.quotas.others.Release(1); mine() }, nil
}

// waited adds [ErrUnavailable] to the error of a wait for a connection, unless the caller's
// context has ended.
func waited(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: no connection was free within %s: %w", ErrUnavailable, acquireTimeout, err)
}
