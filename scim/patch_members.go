package scim

import (
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

// members applies an operation to a group's members. There may be any number of members, so
// it loads only those that a filter other than `value eq` selects.
func (p patcher) members(t *target, o operation) error {
	if t.where != nil || t.sub != nil {
		return p.someMembers(t, o)
	}
	ids, err := p.memberIDs(t.attr, o)
	if err != nil {
		return err
	}
	switch {
	case o.op == "remove" && o.hasValue:
		for _, id := range ids {
			p.delta.Remove(id)
		}
		return nil
	case o.op != "add":
		p.delta.Reset()
	}
	for _, id := range ids {
		p.delta.Add(id)
	}
	return nil
}

// memberIDs returns the ids in an operation's value, which is a string, an object or a
// list. A remove ignores values that are not ids.
func (p patcher) memberIDs(a *Attribute, o operation) ([]uuid.UUID, error) {
	if !o.hasValue {
		return nil, nil
	}
	read, err := p.reader.value(a, o.value)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, element := range listOf(read) {
		text, _ := element.(Object)["value"].(string)
		id, err := uuid.Parse(text)
		if err != nil && o.op != "remove" && p.reader.skipsMembers {
			p.delta.Skipped = append(p.delta.Skipped, clip(text))
			continue
		}
		if err != nil && o.op != "remove" {
			return nil, &directory.UnknownTargetError{Attribute: a.Name, Value: clip(text)}
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
func (p patcher) someMembers(t *target, o operation) error {
	if t.sub != nil && (o.op == "remove" || t.where == nil || !sameMember(t, o.value)) {
		return violationf(mutability, "%s is immutable: remove the member and add another", t.name())
	}
	named, all := namedMembers(t.where)
	if o.op != "remove" {
		if !all || len(named) != 1 {
			return violationf(noTarget, "the path must select one member by `value eq`")
		}
		object, ok := o.value.(map[string]any)
		if ok && t.sub == nil && !sameMember(t, object["value"]) && object["value"] != nil {
			return violationf(mutability, "members.value is immutable: remove the member and add another")
		}
		ids, err := p.memberIDs(t.attr, operation{op: o.op, hasValue: true, value: named[0]})
		if err == nil && len(ids) == 1 {
			p.delta.Add(ids[0])
		}
		return err
	}
	if !all {
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

// sameMember reports whether value is the id of the member that the path selects.
func sameMember(t *target, value any) bool {
	text, ok := value.(string)
	named, _ := t.assertions["value"].(string)
	return ok && strings.EqualFold(text, named)
}

// namedMembers returns the ids that a condition compares with `value eq`. all is false if
// the condition contains anything else.
func namedMembers(c directory.Condition) (named []string, all bool) {
	switch c := c.(type) {
	case directory.Or:
		left, ok := namedMembers(c.Left)
		right, also := namedMembers(c.Right)
		return append(left, right...), ok && also
	case directory.Compare:
		text, isText := c.Value.(string)
		return []string{text}, isText && c.Op == directory.Eq && c.Field.Path[0] == "value"
	}
	return nil, false
}
