package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	// FairnessPeriod is the length of the intervals by which one actor's events are queued.
	// A leaver of a later interval does not wait for the backlog of an earlier one.
	FairnessPeriod = 5 * time.Second
	// runningWindow is how long after its start a cascade counts against its actor's limit.
	runningWindow = 30 * time.Second
)

// due is an event whose workflow is to be started.
type due struct {
	Tenant   uuid.UUID
	ID       uuid.UUID
	Sequence int64
	Leaver   bool
	Actor    string
	Period   int64
	turn     int
}

// choose returns the next events to start: leavers first, then round robin over tenant,
// actor and period. At most maxRunning leavers of one actor run at a time; the others stay
// in the outbox, and not in Temporal's queues ahead of other actors' leavers. running counts
// the cascades in progress.
func choose(waiting []due, running map[actor]int, maxRunning, batch int) []due {
	type queue struct {
		leaver bool
		actor  actor
		period int64
	}
	slices.SortFunc(waiting, func(a, b due) int { return cmp.Compare(a.Sequence, b.Sequence) })
	turns := make(map[queue]int)
	for i, d := range waiting {
		q := queue{d.Leaver, actor{d.Tenant, d.Actor}, d.Period}
		turns[q]++
		waiting[i].turn = turns[q]
	}
	slices.SortStableFunc(waiting, func(a, b due) int {
		if a.Leaver != b.Leaver {
			if a.Leaver {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.turn, b.turn)
	})
	admitted := make(map[actor]int)
	var chosen []due
	for _, d := range waiting {
		of := actor{d.Tenant, d.Actor}
		if d.Leaver {
			if running[of]+admitted[of] >= maxRunning {
				continue
			}
			admitted[of]++
		}
		if chosen = append(chosen, d); len(chosen) == batch {
			break
		}
	}
	return chosen
}
