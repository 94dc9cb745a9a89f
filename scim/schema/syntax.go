package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Object is a resource or a complex value that conforms to its schema. Names are
// canonical, values are string, bool, json.Number, map[string]any or a list of
// those, and absent attributes have no key.
type Object = map[string]any

// IsCommon reports whether name is a common attribute (RFC 7643 section 3.1) that the server sets.
func IsCommon(name string) bool {
	return strings.EqualFold(name, "id") || strings.EqualFold(name, "meta") || strings.EqualFold(name, "schemas")
}

// IsNumber reports whether a number is valid for a type and short enough for PostgreSQL.
func IsNumber(n json.Number, t Type) bool {
	if len(n) > maxNumber || (t == TypeInteger && strings.ContainsAny(n.String(), ".eE")) {
		return false
	}
	// PostgreSQL rejects numbers that underflow; Go rounds them to zero.
	f, err := n.Float64()
	mantissa, _, _ := strings.Cut(strings.ToLower(n.String()), "e")
	return err == nil && (f != 0 || !strings.ContainsAny(mantissa, "123456789"))
}

// ParseTime parses a dateTime (RFC 7643 section 2.3.5) that PostgreSQL also accepts.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, err
	}
	if len(s) > maxTime {
		return t, fmt.Errorf("dateTime must be at most %d bytes, got %d", maxTime, len(s))
	}
	if year := t.UTC().Year(); year < 1 || year > 9999 {
		return t, errors.New("dateTime must be in the years 1 to 9999 UTC")
	}
	if _, offset := t.Zone(); t.Year() < 1 || offset <= -maxOffset || offset >= maxOffset {
		return t, fmt.Errorf("dateTime is out of range: %s", t)
	}
	// time.Parse accepts a comma and offset minutes over 59; XML Schema and PostgreSQL do not.
	if strings.Contains(s, ",") || (!strings.HasSuffix(s, "Z") && s[len(s)-2:] > "59") {
		return t, fmt.Errorf("invalid xsd:dateTime %q", s)
	}
	return t, nil
}

// ListOf returns the elements of a list, or any other value as a list of one; nil has none.
func ListOf(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

// Clone returns a deep copy of a value, so that a failed PATCH does not change the original.
func Clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = Clone(inner)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = Clone(out[i])
		}
		return out
	}
	return v
}
