package scim

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

// parseObject reads a JSON object as encoding/json does, with numbers as written. It
// refuses a name given twice, which parties read differently (RFC 8259 section 4), and
// depth beyond maxDepth.
func parseObject(body []byte) (map[string]any, error) {
	p := parser{text: string(body)}
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, badRequest(invalidSyntax, "the body is not a JSON object")
	}
	if p.peek(); p.at < len(p.text) {
		return nil, badRequest(invalidSyntax, "something follows the JSON object")
	}
	return object, nil
}

// parser reads values from the front of what is left of a text. Strings without escapes
// are parts of the text.
type parser struct {
	text string
	at   int
}

func (p *parser) invalid() error {
	return badRequest(invalidSyntax, "the body is not valid JSON, at byte %d", p.at)
}

// peek is the next byte behind white space; 0 at the end.
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

// take skips a byte, if it is the next one.
func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, badRequest(invalidSyntax, "the JSON is nested deeper than %d", maxDepth)
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
			return nil, badRequest(invalidSyntax, "a JSON object has the key %q twice", clip(name))
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

// string reads the string that begins here. What has escapes, or is no UTF-8, is read
// as encoding/json does.
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

// skip skips a byte, if it is one of these.
func (p *parser) skip(these string) bool {
	if p.at == len(p.text) || strings.IndexByte(these, p.text[p.at]) < 0 {
		return false
	}
	p.at++
	return true
}

// digits skips digits, and tells whether there were any.
func (p *parser) digits() bool {
	start := p.at
	for p.at < len(p.text) && '0' <= p.text[p.at] && p.text[p.at] <= '9' {
		p.at++
	}
	return p.at > start
}

// appendValue writes an Object, or a value in one, as JSON; names are sorted, so that
// what is the same looks the same.
func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case Object:
		b = append(b, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(append(appendString(b, name), ':'), v[name])
		}
		return append(b, '}')
	case []any:
		b = append(b, '[')
		for i, element := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, element)
		}
		return append(b, ']')
	case string:
		return appendString(b, v)
	case json.Number:
		return append(b, v...)
	case bool:
		return strconv.AppendBool(b, v)
	case nil:
		return append(b, "null"...)
	}
	panic(fmt.Sprintf("scim: a %T is no value of an Object", value))
}

// appendString writes a JSON string. Most need no escapes.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			encoded, _ := json.Marshal(s) // a string encodes
			return append(b, encoded...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
