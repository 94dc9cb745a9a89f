package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth bounds nested objects and arrays.
const maxDepth = 32

// ParseObject parses a JSON object like encoding/json, with numbers as written. It rejects
// names that are equal without regard to case, which implementations handle differently (RFC
// 8259 section 4), and nesting beyond maxDepth.
func ParseObject(body []byte) (map[string]any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowInvalidUTF8(true))
	value, err := parseValue(d)
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
	return object, nil
}

// parseValue reads the next value. Names and strings are decoded, numbers are not.
func parseValue(d *jsontext.Decoder) (any, error) {
	if d.StackDepth() > maxDepth {
		return nil, Errorf(InvalidSyntax, "the JSON is nested deeper than %d levels", maxDepth)
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, invalid(d, err)
	}
	switch token.Kind() {
	case jsontext.KindBeginObject:
		return parseMembers(d)
	case jsontext.KindBeginArray:
		return parseElements(d)
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

func parseMembers(d *jsontext.Decoder) (any, error) {
	object := make(map[string]any)
	folded := make(map[string]bool) // names are case-insensitive (RFC 7643 section 2.1)
	for {
		token, err := d.ReadToken()
		if err != nil {
			return nil, invalid(d, err)
		}
		if token.Kind() == jsontext.KindEndObject {
			return object, nil
		}
		name := token.String() // the token is valid until the next read
		lower := strings.ToLower(name)
		if folded[lower] {
			return nil, Errorf(InvalidSyntax, "duplicate key %q in a JSON object", Clip(name))
		}
		folded[lower] = true
		if object[name], err = parseValue(d); err != nil {
			return nil, err
		}
	}
}

func parseElements(d *jsontext.Decoder) (any, error) {
	list := []any{}
	for d.PeekKind() != jsontext.KindEndArray {
		value, err := parseValue(d)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, invalid(d, err)
	}
	return list, nil
}

// invalid returns the violation of a syntax error.
func invalid(d *jsontext.Decoder, err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return Errorf(InvalidSyntax, "duplicate key %q in a JSON object", Clip(syntax.JSONPointer.LastToken()))
	case errors.As(err, &syntax):
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
