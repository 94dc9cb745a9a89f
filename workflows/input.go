// Package workflows contains leaver's Temporal workflows: one for each kind of
// lifecycle change, the reconciler, the drill and the push of security events.
// The code is deterministic and does no I/O.
package workflows

import (
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/credential"
)

// TaskQueue is the task queue of the workflows and of the activities that only
// need PostgreSQL. Each connector has a separate queue.
const TaskQueue = "leaver"

// The task queues of bulk work, which must not delay cascades: SyncQueue for the
// synchronisation of groups and tenants, PushQueue for the delivery of security events.
const (
	SyncQueue = "leaver-sync"
	PushQueue = "leaver-push"
)

// The search attributes, which `leaver migrate` registers. Temporal does not
// encrypt them, so they contain only ids and states.
var (
	SearchTenant    = temporal.NewSearchAttributeKeyKeyword("LeaverTenant")
	SearchPrincipal = temporal.NewSearchAttributeKeyKeyword("LeaverPrincipal")
	SearchTrigger   = temporal.NewSearchAttributeKeyKeyword("LeaverTrigger")
	SearchState     = temporal.NewSearchAttributeKeyKeyword("LeaverState")
	SearchSurvivors = temporal.NewSearchAttributeKeyInt64("LeaverSurvivors")
)

// Input is the input of the workflows of lifecycle events. It contains ids and
// the policy, but no names of principals.
type Input struct {
	Tenant        uuid.UUID `json:"tenant"`
	Event         uuid.UUID `json:"event"`
	Principal     uuid.UUID `json:"principal"`
	PrincipalType string    `json:"principalType"`
	Sequence      int64     `json:"sequence"`
	Trigger       string    `json:"trigger"`
	Changed       []string  `json:"changed,omitempty"`
	Notify        []string  `json:"notify,omitempty"`   // connectors to notify
	Discover      []string  `json:"discover,omitempty"` // connectors that can list a principal's credentials
	// RateLimited names the rate-limited connectors, which get one activity per item. The tag is the
	// name in the histories of running cascades.
	RateLimited []string `json:"singly,omitempty"`
	// Fairness is Temporal's fairness key of the activities; if empty, the tenant's id.
	Fairness string `json:"fairness,omitempty"`
	Policy   Policy `json:"policy"`
	// Moves is true for a mover, whose cascade ends only the items that its event has marked.
	Moves bool `json:"moves,omitempty"`
	// After and Invalidation are the cursor at which a long synchronisation continues.
	After        uuid.UUID `json:"after,omitzero"`
	Invalidation int64     `json:"invalidation,omitempty"`
	// Continued is the state of a cascade that has continued as new; nil in its first run.
	Continued *Continued `json:"state,omitempty"`
}

// Continued is the part of a cascade's state that is not in PostgreSQL.
type Continued struct {
	Deadline  time.Time                `json:"deadline"`
	Suspended int                      `json:"suspended"`
	Held      bool                     `json:"held,omitempty"`
	Counts    map[credential.State]int `json:"counts"` // items that earlier runs concluded
}

func (in Input) ref() activities.CascadeRef {
	return activities.CascadeRef{
		Tenant: in.Tenant, Event: in.Event, Principal: in.Principal, Sequence: in.Sequence, Moves: in.Moves,
	}
}

// Policy contains the deadlines, retry intervals and concurrency limits of a cascade.
type Policy struct {
	// Deadline is the time after which items that are not ended become survivors.
	Deadline time.Duration `json:"deadline"`
	// AttemptTimeout bounds one attempt at one item.
	AttemptTimeout time.Duration `json:"attemptTimeout"`
	// InitialInterval is the delay before the first retry. It doubles up to MaximumInterval.
	InitialInterval time.Duration `json:"initialInterval"`
	MaximumInterval time.Duration `json:"maximumInterval"`
	// RunsGrace is the maximum time that credentials wait for scheduled runs and minters to be
	// cancelled. A scheduler that is down must not keep tokens alive.
	RunsGrace time.Duration `json:"runsGrace"`
	// Window is the maximum number of items of one connector that are ended concurrently.
	Window int `json:"window"`
	// Batch is the maximum number of items of one connector that one activity tries to
	// end. Items that it could not end are retried individually. Below 2 there are no batches.
	Batch int `json:"batch,omitempty"`
	// ProgressInterval is the delay before a running cascade first shows what it waits for. It doubles
	// each time, up to maxProgressInterval. If 0, the cascade does not show it.
	ProgressInterval time.Duration `json:"look,omitempty"`
}

// DefaultPolicy returns a policy with a deadline of a day and first retries within seconds.
func DefaultPolicy() Policy {
	return Policy{
		Deadline: 24 * time.Hour, AttemptTimeout: time.Minute,
		InitialInterval: time.Second, MaximumInterval: 5 * time.Minute,
		RunsGrace: 10 * time.Second, Window: 200, Batch: 50, ProgressInterval: 15 * time.Second,
	}
}

const (
	// heartbeatTimeout is the time after which Temporal retries a killed worker's attempt.
	heartbeatTimeout = 15 * time.Second
	// maxProgressInterval is the maximum interval at which a cascade shows what it waits for.
	maxProgressInterval = 30 * time.Minute
	// localTimeout bounds one attempt at a step that only needs PostgreSQL.
	localTimeout = 10 * time.Second
	// outageTimeout bounds all attempts at a step that only needs PostgreSQL.
	outageTimeout = 365 * 24 * time.Hour
	// leaverNotifyDeadline bounds the notification of a closed cascade. It is short: the
	// cascade closes even if a platform cannot be notified, and can be re-run.
	leaverNotifyDeadline = time.Minute
	// notifyDeadline bounds the attempts to notify a platform that is down.
	notifyDeadline = 24 * time.Hour
)
