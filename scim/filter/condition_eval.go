package filter

import (
	"encoding/json"
	"math/big"
	"strings"
	"time"
)

// Match reports whether a condition holds for a JSON resource, or for one element of a
// multi-valued attribute, as in the value filters of PATCH paths.
func Match(c Condition, object map[string]any) bool {
	switch c := c.(type) {
	case And:
		return Match(c.Left, object) && Match(c.Right, object)
	case Or:
		return Match(c.Left, object) || Match(c.Right, object)
	case Not:
		return !Match(c.Inner, object)
	case Element:
		for _, element := range elements(lookup(object, c.Field.Path)) {
			if members, ok := element.(map[string]any); ok && Match(c.Where, members) {
				return true
			}
		}
		return false
	case Compare:
		return matchesField(c, lookup(object, c.Field.Path))
	default:
		return false
	}
}

// matchesField reports whether a comparison holds for a value, or for any of the values of a
// multi-valued field.
func matchesField(c Compare, value any) bool {
	if !c.Field.Multi {
		return matchesValue(c, value)
	}
	switch {
	case c.Op == Ne:
		return !matchesField(Compare{Field: c.Field, Op: Eq, Value: c.Value}, value)
	case c.Op == Eq && c.Value == nil:
		return !matchesField(Compare{Field: c.Field, Op: Pr}, value)
	}
	for _, element := range elements(value) {
		if c.Field.Sub != "" {
			element = lookup(element, []string{c.Field.Sub})
		}
		if matchesValue(c, element) {
			return true
		}
	}
	return false
}

// elements returns the elements of a list. A single-valued edge is a list of one.
func elements(value any) []any {
	switch value := value.(type) {
	case nil:
		return nil
	case []any:
		return value
	default:
		return []any{value}
	}
}

func lookup(value any, path []string) any {
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

func matchesValue(c Compare, value any) bool {
	switch {
	case c.Op == Ne:
		return !matchesValue(Compare{Field: c.Field, Op: Eq, Value: c.Value}, value)
	case c.Op == Pr:
		return value != nil && value != ""
	case c.Value == nil:
		return c.Op == Eq && value == nil
	case value == nil:
		return false
	}
	switch wanted := c.Value.(type) {
	case bool:
		return c.Op == Eq && value == wanted
	case json.Number:
		number, ok := value.(json.Number)
		if !ok {
			return false
		}
		have, is := new(big.Rat).SetString(number.String())
		want, also := new(big.Rat).SetString(wanted.String())
		return is && also && inOrder(c.Op, have.Cmp(want))
	case time.Time:
		text, _ := value.(string)
		at, err := time.Parse(time.RFC3339, text)
		return err == nil && inOrder(c.Op, at.Compare(wanted))
	case string:
		text, ok := value.(string)
		if !ok {
			return false
		}
		return matchesText(c.Op, c.Field.Key(text), c.Field.Key(wanted))
	}
	return false
}

func matchesText(op Op, text, wanted string) bool {
	switch op {
	case Co:
		return strings.Contains(text, wanted)
	case Sw:
		return strings.HasPrefix(text, wanted)
	case Ew:
		return strings.HasSuffix(text, wanted)
	default:
		return inOrder(op, strings.Compare(text, wanted))
	}
}

func inOrder(op Op, order int) bool {
	switch op {
	case Eq:
		return order == 0
	case Gt:
		return order > 0
	case Ge:
		return order >= 0
	case Lt:
		return order < 0
	case Le:
		return order <= 0
	default:
		return false
	}
}
