package patch

import "github.com/google/uuid"

// Delta is a sequence of membership operations that can be applied to a group of any size
// without reading it: it removes all members or some, then adds some. The zero Delta changes
// nothing.
type Delta struct {
	// Clear removes all members that are not added.
	Clear bool
	// SkipUnknown skips members that are not valid targets, instead of returning an error.
	SkipUnknown bool
	// Skipped are the members that were skipped already, as the client wrote them.
	Skipped []string

	added   []uuid.UUID
	dropped []uuid.UUID
	is      map[uuid.UUID]bool // true: added, false: dropped
}

// Add adds the member id.
func (d *Delta) Add(id uuid.UUID) { d.set(id, true) }

// Remove removes the member id.
func (d *Delta) Remove(id uuid.UUID) { d.set(id, false) }

// Reset removes all members, including those that the Delta has added so far.
func (d *Delta) Reset() {
	*d = Delta{Clear: true, SkipUnknown: d.SkipUnknown, Skipped: d.Skipped}
}

func (d *Delta) set(id uuid.UUID, member bool) {
	was, seen := d.is[id]
	if seen && was == member {
		return
	}
	if d.is == nil {
		d.is = make(map[uuid.UUID]bool)
	}
	d.is[id] = member
	if member {
		d.added = append(d.added, id)
	} else {
		d.dropped = append(d.dropped, id)
	}
}

// Empty reports whether the Delta changes no group.
func (d *Delta) Empty() bool { return !d.Clear && len(d.is) == 0 }

// Added returns the members to add, in the order of their first addition.
func (d *Delta) Added() []uuid.UUID { return d.last(d.added, true) }

// Removed returns the members to remove.
func (d *Delta) Removed() []uuid.UUID { return d.last(d.dropped, false) }

// last returns the ids whose last operation is member, without duplicates.
func (d *Delta) last(ids []uuid.UUID, member bool) []uuid.UUID {
	var kept []uuid.UUID
	seen := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		if d.is[id] == member && !seen[id] {
			seen[id] = true
			kept = append(kept, id)
		}
	}
	return kept
}
