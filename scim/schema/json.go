package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nested objects and arrays.
const maxDepth = 32

// ParseObject parses a JSON object like encoding/json, with numbers as written. It rejects
// duplicate names, which implementations handle differently (RFC 8259 section 4), and
// nesting beyond maxDepth.
func ParseObject(body []byte) (map[string]any, error) {
	p := parser{text: string(body)}
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, Errorf(InvalidSyntax, "the body must be a JSON object")
	}
	if p.peek(); p.at < len(p.text) {
		return nil, Errorf(InvalidSyntax, "unexpected data after the JSON object at byte %d", p.at)
	}
	return object, nil
}

// parser parses JSON values from text, starting at the offset at. Strings without escapes
// share the memory of text.
type parser struct {
	text string
	at   int
}

func (p *parser) invalid() error {
	return Errorf(InvalidSyntax, "the body is not valid JSON, at byte %d", p.at)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (p *parser) peek() byte {
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take skips the next byte if it is c, and reports whether it was.
func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, Errorf(InvalidSyntax, "the JSON is nested deeper than %d levels", maxDepth)
	}
	switch c := p.peek(); c {
	case '{':
		return p.object(depth)
	case '[':
		return p.list(depth)
	case '"':
		return p.string()
	case 't':
		return true, p.word("true")
	case 'f':
		return false, p.word("false")
	case 'n':
		return nil, p.word("null")
	default:
		return p.number()
	}
}

func (p *parser) word(w string) error {
	if !strings.HasPrefix(p.text[p.at:], w) {
		return p.invalid()
	}
	p.at += len(w)
	return nil
}

func (p *parser) object(depth int) (map[string]any, error) {
	p.at++
	object := make(map[string]any)
	if p.take('}') {
		return object, nil
	}
	for {
		if p.peek() != '"' {
			return nil, p.invalid()
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice {
			return nil, Errorf(InvalidSyntax, "duplicate key %q in a JSON object", Clip(name))
		}
		if !p.take(':') {
			return nil, p.invalid()
		}
		if object[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if p.take('}') {
			return object, nil
		}
		if !p.take(',') {
			return nil, p.invalid()
		}
	}
}

func (p *parser) list(depth int) ([]any, error) {
	p.at++
	list := []any{}
	if p.take(']') {
		return list, nil
	}
	for {
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if p.take(']') {
			return list, nil
		}
		if !p.take(',') {
			return nil, p.invalid()
		}
	}
}

// string parses the string at the current offset. Strings with escapes or invalid UTF-8
// are decoded by encoding/json.
func (p *parser) string() (string, error) {
	start, plain := p.at, true
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '\\':
			plain = false
			p.at++
		case c < ' ':
			return "", p.invalid()
		case c == '"':
			p.at++
			inner := p.text[start+1 : p.at-1]
			if plain && utf8.ValidString(inner) {
				return inner, nil
			}
			var s string
			if err := json.Unmarshal([]byte(p.text[start:p.at]), &s); err != nil {
				p.at = start
				return "", p.invalid()
			}
			return s, nil
		}
	}
	p.at = start
	return "", p.invalid()
}

func (p *parser) number() (json.Number, error) {
	start := p.at
	p.skip("-")
	whole := p.skip("0") || p.digits()
	if whole && p.skip(".") {
		whole = p.digits()
	}
	if whole && p.skip("eE") {
		p.skip("+-")
		whole = p.digits()
	}
	if !whole {
		return "", p.invalid()
	}
	return json.Number(p.text[start:p.at]), nil
}

// skip skips the next byte if it is one of these, and reports whether it was.
func (p *parser) skip(these string) bool {
	if p.at == len(p.text) || strings.IndexByte(these, p.text[p.at]) < 0 {
		return false
	}
	p.at++
	return true
}

// digits skips digits and reports whether there were any.
func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
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
