package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	// TurnPeriod is how long the events of one sender share their turns: a leaver that is
	// sent a period after a crowd by the same sender waits for none of it.
	TurnPeriod = 5 * time.Second
	// countedRunning is for how long a cascade counts among those that its sender has
	// running; one that takes longer counts no more.
	countedRunning = 30 * time.Second
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

// choose returns the events to start next: leavers first, and among them in turns of
// tenants, of senders, and of the periods that they came in. A sender of ten thousand
// leavers delays no other tenant's one, nor an operator's, nor one of a later period. Of
// one sender at most maxRunning leavers run at a time; the others wait in the outbox, and
// not in Temporal's queues ahead of everything else. running counts those that run.
func choose(waiting []due, running map[sender]int, maxRunning, batch int) []due {
	type queue struct {
		leaver bool
		sender sender
		period int64
	}
	slices.SortFunc(waiting, func(a, b due) int { return cmp.Compare(a.Sequence, b.Sequence) })
	turns := make(map[queue]int)
	for i, d := range waiting {
		q := queue{d.Leaver, sender{d.Tenant, d.Actor}, d.Period}
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
	admitted := make(map[sender]int)
	var chosen []due
	for _, d := range waiting {
		of := sender{d.Tenant, d.Actor}
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
