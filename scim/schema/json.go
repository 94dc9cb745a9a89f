package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nested objects and arrays.
const maxDepth = 32

// ParseObject parses a JSON object like encoding/json, with numbers as written. It rejects
// names that are equal without regard to case, which implementations handle differently (RFC
// 8259 section 4), and nesting beyond maxDepth. With the error about such names it returns the
// object, in which the first of them counts.
func ParseObject(body []byte) (map[string]any, error) {
	d := &decoder{Decoder: jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowInvalidUTF8(true),
		jsontext.AllowDuplicateNames(true))}
	value, err := d.parseValue()
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, Errorf(InvalidSyntax, "the body must be a JSON object")
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, Errorf(InvalidSyntax, "unexpected data after the JSON object at byte %d", d.InputOffset())
	}
	if d.duplicate != nil {
		return object, d.duplicate
	}
	return object, nil
}

// decoder decodes an object whose names are without regard to case (RFC 7643 section 2.1).
type decoder struct {
	*jsontext.Decoder
	duplicate *DuplicateNameError // nil if there is none
}

// DuplicateNameError is the error of a body in which an object has a name twice. It is also an [*Error].
type DuplicateNameError struct {
	violation *Error
	// Conflicting are the names, in lower case, whose values differ.
	Conflicting []string
}

func (e *DuplicateNameError) Error() string { return e.violation.Error() }

// Unwrap returns the error for the client.
func (e *DuplicateNameError) Unwrap() error { return e.violation }

// parseValue reads the next value. Names and strings are decoded, numbers are not.
func (d *decoder) parseValue() (any, error) {
	if d.StackDepth() > maxDepth {
		return nil, Errorf(InvalidSyntax, "the JSON is nested deeper than %d levels", maxDepth)
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, invalid(d.Decoder, err)
	}
	switch token.Kind() {
	case jsontext.KindBeginObject:
		return d.parseMembers()
	case jsontext.KindBeginArray:
		return d.parseElements()
	case jsontext.KindString:
		return token.String(), nil
	case jsontext.KindNumber:
		return json.Number(token.String()), nil
	case jsontext.KindTrue:
		return true, nil
	case jsontext.KindFalse:
		return false, nil
	default:
		return nil, nil //nolint:nilnil // null is a value here
	}
}

func (d *decoder) parseMembers() (any, error) {
	object := make(map[string]any)
	seen, folded := make(map[string]bool), make(map[string]any)
	for {
		token, err := d.ReadToken()
		if err != nil {
			return nil, invalid(d.Decoder, err)
		}
		if token.Kind() == jsontext.KindEndObject {
			return object, nil
		}
		name := token.String() // the token is valid until the next read
		lower := strings.ToLower(name)
		value, err := d.parseValue()
		if err != nil {
			return nil, err
		}
		if seen[lower] {
			if d.duplicate == nil {
				d.duplicate = &DuplicateNameError{violation: Errorf(InvalidSyntax, "duplicate key %q in a JSON object", Clip(name))}
			}
			if !reflect.DeepEqual(value, folded[lower]) {
				d.duplicate.Conflicting = append(d.duplicate.Conflicting, lower)
			}
			continue
		}
		seen[lower], folded[lower], object[name] = true, value, value
	}
}

func (d *decoder) parseElements() (any, error) {
	list := []any{}
	for d.PeekKind() != jsontext.KindEndArray {
		value, err := d.parseValue()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, invalid(d.Decoder, err)
	}
	return list, nil
}

// invalid returns the violation of a syntax error.
func invalid(d *jsontext.Decoder, err error) error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return Errorf(InvalidSyntax, "the body is not valid JSON, at byte %d", syntax.ByteOffset)
	}
	return Errorf(InvalidSyntax, "the body is not valid JSON, at byte %d", d.InputOffset())
}

// AppendValue appends an Object, or a value in one, as JSON. Names are sorted, so that equal
// values have equal encodings.
func AppendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case Object:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendValue(append(AppendString(b, name), ':'), v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendValue(b, element)
		}
		return append(b, ']')
	case string:
		return AppendString(b, v)
	case json.Number:
		return append(b, v...)
	case bool:
		return strconv.AppendBool(b, v)
	case nil:
		return append(b, "null"...)
	}
	panic(fmt.Sprintf("scim: unexpected type %T in an Object", value))
}

// AppendString appends a JSON string. It calls encoding/json only if escapes may be needed.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			encoded, _ := json.Marshal(s) // encoding a string never fails
			return append(b, encoded...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
