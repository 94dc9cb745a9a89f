// Package workflows holds what leaver runs in Temporal: one workflow for each
// kind of lifecycle change. The code is deterministic and does no I/O.
package workflows

import (
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/credential"
)

// TaskQueue is that of the workflows and of the activities that only need
// PostgreSQL; each connector has one of its own.
const TaskQueue = "leaver"

// Queues of their own for what may be much, and must not hold up a cascade: the
// synchronisation of groups and tenants, and receivers of security events.
const (
	SyncQueue = "leaver-sync"
	PushQueue = "leaver-push"
)

// The search attributes, registered by `leaver migrate`. Temporal never
// encrypts them: ids and states only.
var (
	SearchTenant    = temporal.NewSearchAttributeKeyKeyword("LeaverTenant")
	SearchPrincipal = temporal.NewSearchAttributeKeyKeyword("LeaverPrincipal")
	SearchTrigger   = temporal.NewSearchAttributeKeyKeyword("LeaverTrigger")
	SearchState     = temporal.NewSearchAttributeKeyKeyword("LeaverState")
	SearchSurvivors = temporal.NewSearchAttributeKeyInt64("LeaverSurvivors")
)

// Input starts any of the workflows. It carries ids and policy, never a name.
type Input struct {
	Tenant        uuid.UUID `json:"tenant"`
	Event         uuid.UUID `json:"event"`
	Principal     uuid.UUID `json:"principal"`
	PrincipalType string    `json:"principalType"`
	Sequence      int64     `json:"sequence"`
	Trigger       string    `json:"trigger"`
	Changed       []string  `json:"changed,omitempty"`
	Notify        []string  `json:"notify,omitempty"`   // connectors to tell
	Discover      []string  `json:"discover,omitempty"` // connectors that can list what principals hold
	Singly        []string  `json:"singly,omitempty"`   // connectors with a rate: one activity, and so one token of it, an item
	// Fairness is the key by which leavers take turns on queues; empty is the tenant.
	Fairness string `json:"fairness,omitempty"`
	Policy   Policy `json:"policy"`
	// Moves: of a mover, whose cascade ends only what its event has marked.
	Moves bool `json:"moves,omitempty"`
	// After and Invalidation are where a long synchronisation goes on.
	After        uuid.UUID `json:"after,omitzero"`
	Invalidation int64     `json:"invalidation,omitempty"`
	// Continued is what a long cascade takes with it when it continues as new.
	Continued *Continued `json:"state,omitempty"`
}

// Continued is the part of a cascade's state that is not in PostgreSQL.
type Continued struct {
	Deadline  time.Time                `json:"deadline"`
	Suspended int                      `json:"suspended"`
	Held      bool                     `json:"held,omitempty"`
	Counts    map[credential.State]int `json:"counts"` // of what earlier runs ended
}

func (in Input) ref() activities.CascadeRef {
	return activities.CascadeRef{Tenant: in.Tenant, Event: in.Event, Principal: in.Principal, Sequence: in.Sequence, Moves: in.Moves}
}

// Policy says how long and how hard a cascade tries.
type Policy struct {
	// Deadline is how long a cascade tries before what is left is a survivor.
	Deadline time.Duration `json:"deadline"`
	// AttemptTimeout bounds one attempt at one item.
	AttemptTimeout time.Duration `json:"attemptTimeout"`
	// Retries after InitialInterval, doubling up to MaximumInterval.
	InitialInterval time.Duration `json:"initialInterval"`
	MaximumInterval time.Duration `json:"maximumInterval"`
	// RunsGrace is how long credentials wait for scheduled runs to be cancelled
	// first; a scheduler that is down must not keep tokens alive.
	RunsGrace time.Duration `json:"runsGrace"`
	// Window is how many items of one connector are being ended at a time.
	Window int `json:"window"`
	// Batch is how many items of one connector an activity tries to end at once;
	// what it could not end goes on alone. Below 2 each is alone from the start.
	Batch int `json:"batch,omitempty"`
	// Look is how soon a cascade that is not over tells what it waits for; each
	// look doubles it.
	Look time.Duration `json:"look,omitempty"`
}

// DefaultPolicy tries for a day, its first retries within seconds.
func DefaultPolicy() Policy {
	return Policy{
		Deadline: 24 * time.Hour, AttemptTimeout: time.Minute,
		InitialInterval: time.Second, MaximumInterval: 5 * time.Minute,
		RunsGrace: 10 * time.Second, Window: 200, Batch: 50, Look: 15 * time.Second,
	}
}

const (
	// heartbeatTimeout bounds how long a killed worker's attempt goes unnoticed.
	heartbeatTimeout = 15 * time.Second
	// maxLook bounds how long a look at what is waited for is put off.
	maxLook = 30 * time.Minute
	// localTimeout bounds one attempt at a step that only needs PostgreSQL.
	localTimeout = 10 * time.Second
	// outageTimeout bounds how long a step that only needs PostgreSQL is tried.
	outageTimeout = 365 * 24 * time.Hour
	// leaverNotifyDeadline is short: a cascade that cannot tell a platform is
	// over all the same, and can be run again.
	leaverNotifyDeadline = time.Minute
	// notifyDeadline bounds how long a platform that is down is tried.
	notifyDeadline = 24 * time.Hour
)
