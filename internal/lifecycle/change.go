package lifecycle

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

// change is one change of a resource with what it means, ready to commit.
type change struct {
	after   *directory.Resource
	by      Cause
	event   uuid.UUID // the id of the event, if it comes to one
	changed []string  // names of changed attributes; members only of a new group
	decision
	// ifMembers is the kind of event where the change of members turns out to
	// change any.
	ifMembers Kind
	edges     edgeChange
	// expected is the version that the resource must still have; nil for any.
	expected *int64
	isNew    bool
	removes  bool // the update is a deletion

	done committed
}

// writesColumns tells whether the row's own columns are written, not only its edges.
func (c *change) writesColumns() bool { return c.isNew || c.removes || len(c.changed) > 0 }

// mayOrphan tells whether the change may leave agents without an owner: whoever gained or
// lost edges, went, or came back.
func (c *change) mayOrphan() bool {
	return !c.isNew && c.after.Type != directory.TypeUser && (c.edges.touches() || c.removes || c.lift)
}

// ownsValues tells whether values are taken, or freed, that a tenant's schemas declare unique.
func (c *change) ownsValues() bool { return c.after.Unique != nil && c.writesColumns() }

// goesAlone tells whether a change needs parts that are for one change only.
func (c *change) goesAlone() bool { return c.edges.touches() || c.mayOrphan() || c.ownsValues() }

// committed is what PostgreSQL made of a change.
type committed struct {
	version int64
	event   *Event
	since   *time.Time // of the restriction that the change made
	orphans []*Event
}

// edgeChange is what becomes of a resource's edges.
type edgeChange struct {
	addAttributes, dropAttributes []string
	addTargets, dropTargets       []uuid.UUID
	clearMembers                  bool
}

func (c *edgeChange) add(attribute string, targets ...uuid.UUID) {
	for _, t := range targets {
		c.addAttributes, c.addTargets = append(c.addAttributes, attribute), append(c.addTargets, t)
	}
}

func (c *edgeChange) drop(attribute string, targets ...uuid.UUID) {
	for _, t := range targets {
		c.dropAttributes, c.dropTargets = append(c.dropAttributes, attribute), append(c.dropTargets, t)
	}
}

// touches tells whether any edge may change.
func (c *edgeChange) touches() bool {
	return c.clearMembers || len(c.addTargets) > 0 || len(c.dropTargets) > 0
}

// edgesBetween is the difference of the edges, so that a change of one member
// of a large group touches one row. before is nil for a new resource.
func edgesBetween(before, after *directory.Resource) edgeChange {
	// Lists that are empty, not null: SQL compares with them.
	c := edgeChange{addAttributes: []string{}, dropAttributes: []string{}, addTargets: []uuid.UUID{}, dropTargets: []uuid.UUID{}}
	for _, attribute := range []string{directory.EdgeOwners, directory.EdgeParent} {
		var had map[uuid.UUID]bool
		if before != nil {
			had = before.Targets(attribute)
		}
		has := after.Targets(attribute)
		for target := range has {
			if !had[target] {
				c.add(attribute, target)
			}
		}
		for target := range had {
			if !has[target] {
				c.drop(attribute, target)
			}
		}
	}
	c.clearMembers = after.Members.Clear
	c.add(directory.EdgeMembers, after.Members.Added()...)
	c.drop(directory.EdgeMembers, after.Members.Removed()...)
	return c
}

// row is a change as change_rows reads it. What is absent is null there.
type row struct {
	ID         uuid.UUID       `json:"id"`
	Type       string          `json:"type"`
	Trigger    string          `json:"trigger"`
	Actor      string          `json:"actor"`
	Changed    []string        `json:"changed"`
	Kind       Kind            `json:"kind,omitempty"`
	IfMembers  Kind            `json:"if_members,omitempty"`
	Event      uuid.UUID       `json:"event"`
	Restricts  bool            `json:"restricts,omitempty"`
	Cause      string          `json:"cause"`
	Lifts      bool            `json:"lifts,omitempty"`
	Name       string          `json:"name,omitempty"`
	Display    string          `json:"display,omitempty"`
	External   string          `json:"external,omitempty"`
	Active     *bool           `json:"active,omitempty"`
	Document   json.RawMessage `json:"-"` // see encode
	Extensions []string        `json:"extensions"`
	Modified   time.Time       `json:"modified"`
	Expected   *int64          `json:"expected,omitempty"`
	Columns    bool            `json:"columns,omitempty"`
	Removes    bool            `json:"removes,omitempty"`
}

// encode writes rows as JSON, and documents as they are: encoding/json would read each
// byte once more.
func encode(rows []row) []byte {
	b := []byte{'['}
	for i, r := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		encoded, _ := json.Marshal(r) // all of it encodes
		b = append(b, encoded...)
		if r.Document != nil {
			b = append(append(append(b[:len(b)-1], `,"document":`...), r.Document...), '}')
		}
	}
	return append(b, ']')
}

func (c *change) row() row {
	r := c.after
	return row{
		ID: r.ID, Type: r.Type, Trigger: c.by.Trigger, Actor: c.by.Actor, Changed: orEmpty(c.changed),
		Kind: c.kind, IfMembers: c.ifMembers, Event: c.event, Restricts: c.restrict, Cause: c.by.restriction(), Lifts: c.lift,
		Name: r.UniqueName, Display: r.Display, External: r.ExternalID, Active: r.Active, Document: r.Document, Extensions: orEmpty(r.Extensions),
		Modified: r.Modified, Expected: c.expected, Columns: c.writesColumns(), Removes: c.removes,
	}
}

// orEmpty keeps a nil slice from becoming null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
