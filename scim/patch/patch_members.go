package patch

import (
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// members applies an operation to a group's members. There may be any number of members, so
// it loads only those that a filter other than `value eq` selects.
func (p patcher) members(t *target, o Operation) error {
	if t.where != nil || t.sub != nil {
		return p.someMembers(t, o)
	}
	ids, err := p.memberIDs(t.attr, o)
	if err != nil {
		return err
	}
	switch {
	case o.Op == "remove" && o.HasValue:
		for _, id := range ids {
			p.delta.Remove(id)
		}
		return nil
	case o.Op != "add":
		p.delta.Reset()
	}
	for _, id := range ids {
		p.delta.Add(id)
	}
	return nil
}

// memberIDs returns the ids in an operation's value, which is a string, an object or a
// list. A remove ignores values that are not ids.
func (p patcher) memberIDs(a *schema.Attribute, o Operation) ([]uuid.UUID, error) {
	if !o.HasValue {
		return nil, nil
	}
	read, err := p.reader.value(a, o.Value)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, element := range schema.ListOf(read) {
		text, _ := element.(schema.Object)["value"].(string)
		id, err := uuid.Parse(text)
		if err != nil && o.Op != "remove" && p.reader.SkipsMembers {
			p.delta.Skipped = append(p.delta.Skipped, schema.Clip(text))
			continue
		}
		if err != nil && o.Op != "remove" {
			return nil, &schema.UnknownTargetError{Attribute: a.Name, Value: schema.Clip(text)}
		}
		if err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// someMembers applies an operation to the members that a value filter selects. It can only
// remove them, because the sub-attributes of a member are read-only or immutable. An add or
// replace by `value eq` adds the member.
func (p patcher) someMembers(t *target, o Operation) error {
	if t.sub != nil && (o.Op == "remove" || t.where == nil || !sameMember(t, o.Value)) {
		return schema.Errorf(schema.NotMutable, "%s is immutable: remove the member and add another", t.name())
	}
	named, all := namedMembers(t.where)
	if o.Op != "remove" {
		if !all || len(named) != 1 {
			return schema.Errorf(schema.NoTarget, "the path must select one member by `value eq`")
		}
		object, ok := o.Value.(map[string]any)
		if ok && t.sub == nil && !sameMember(t, object["value"]) && object["value"] != nil {
			return schema.Errorf(schema.NotMutable, "members.value is immutable: remove the member and add another")
		}
		ids, err := p.memberIDs(t.attr, Operation{Op: o.Op, HasValue: true, Value: named[0]})
		if err == nil && len(ids) == 1 {
			p.delta.Add(ids[0])
		}
		return err
	}
	if !all {
		if err := p.spend(memberScan * comparisons(t.where)); err != nil {
			return err
		}
		ids, err := p.match(p.delta.Added(), t.where)
		for _, id := range ids {
			p.delta.Remove(id)
		}
		return err
	}
	for _, text := range named {
		if id, err := uuid.Parse(text); err == nil {
			p.delta.Remove(id)
		}
	}
	return nil
}

// memberScan is what a comparison with all members of a group costs of a PATCH's budget: they are read from the
// database.
const memberScan = 1000

// sameMember reports whether value is the id of the member that the path selects.
func sameMember(t *target, value any) bool {
	text, ok := value.(string)
	named, _ := t.assertions["value"].(string)
	return ok && strings.EqualFold(text, named)
}

// namedMembers returns the ids that a condition compares with `value eq`. all is false if
// the condition contains anything else.
func namedMembers(c filter.Condition) (named []string, all bool) {
	switch c := c.(type) {
	case filter.Or:
		left, ok := namedMembers(c.Left)
		right, also := namedMembers(c.Right)
		return append(left, right...), ok && also
	case filter.Compare:
		text, isText := c.Value.(string)
		return []string{text}, isText && c.Op == filter.Eq && c.Field.Path[0] == "value"
	}
	return nil, false
}
