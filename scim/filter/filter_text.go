package filter

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/leaverhq/leaver/scim/schema"
)

// Limits that are checked before the parser runs. Without them, nested parentheses cause
// a stack overflow, which recover cannot catch.
const (
	maxFilterLength = 4096 // bytes
	maxFilterDepth  = 32   // parentheses and brackets
)

// Token is a piece of a filter: a word, a quoted string with its quotes, or
// one of ( ) [ ].
type Token string

func (t Token) isString() bool { return t != "" && t[0] == '"' }

func (t Token) isWord() bool { return t != "" && strings.IndexByte(`"()[]`, t[0]) < 0 }

func (t Token) isOperator() bool {
	switch strings.ToLower(string(t)) {
	case "eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le":
		return true
	}
	return false
}

func (t Token) is(word string) bool { return strings.EqualFold(string(t), word) }

// ScanFilter splits a filter into tokens and checks the limits. It rejects words that begin
// with a quotation mark other than the double quote, because values are JSON.
func ScanFilter(filter string) ([]Token, error) {
	if len(filter) > maxFilterLength {
		return nil, schema.Errorf(schema.InvalidFilter,
			"the filter must be at most %d bytes, got %d", maxFilterLength, len(filter))
	}
	var tokens []Token
	depth := 0
	for i := 0; i < len(filter); {
		switch c := filter[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '(', '[':
			if depth++; depth > maxFilterDepth {
				return nil, schema.Errorf(schema.InvalidFilter,
					"the filter must be nested at most %d levels deep", maxFilterDepth)
			}
			tokens = append(tokens, Token(c))
			i++
		case ')', ']':
			if depth--; depth < 0 {
				return nil, schema.Errorf(schema.InvalidFilter, "unbalanced %q in the filter at byte %d", c, i)
			}
			tokens = append(tokens, Token(c))
			i++
		case '"':
			end := endOfString(filter, i)
			if end < 0 {
				return nil, schema.Errorf(schema.InvalidFilter, "unterminated string in the filter at byte %d", i)
			}
			tokens = append(tokens, Token(filter[i:end]))
			i = end
		default:
			end := i
			for end < len(filter) && !strings.ContainsRune(" \t\r\n()[]\"", rune(filter[end])) {
				end++
			}
			first, _ := utf8.DecodeRuneInString(filter[i:])
			if strings.ContainsRune("'`‘’‚“”„«»", first) {
				return nil, schema.Errorf(schema.InvalidFilter,
					"filter strings must be in double quotes, got %s", schema.Clip(filter[i:end]))
			}
			tokens = append(tokens, Token(filter[i:end]))
			i = end
		}
	}
	if depth != 0 {
		return nil, schema.Errorf(schema.InvalidFilter, "missing closing bracket in the filter")
	}
	if len(tokens) == 0 {
		return nil, schema.Errorf(schema.InvalidFilter, "the filter is empty")
	}
	return tokens, nil
}

// endOfString returns the index after the closing quote, or -1.
func endOfString(s string, start int) int {
	for i := start + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// normalize formats tokens for filter-parser. It quotes unquoted values such as Entra's
// externalId eq jyoung, which filter-parser rejects.
func normalize(tokens []Token) string {
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && needsBlank(tokens[i-1], t) {
			b.WriteByte(' ')
		}
		if i > 0 && tokens[i-1].isOperator() && t.isWord() && !isLiteral(t) {
			b.Write(schema.AppendString(nil, string(t)))
			continue
		}
		b.WriteString(string(t))
	}
	return b.String()
}

func needsBlank(before, after Token) bool {
	return before != "(" && after != ")" && (after != "(" || !before.is("not"))
}

// isLiteral reports whether a token is true, false, null or a JSON number; 00123 is a word.
func isLiteral(t Token) bool {
	return json.Valid([]byte(strings.ToLower(string(t))))
}

// Bracket is a value filter with the comparison after it:
// emails[type eq "work"], emails[type eq "work"].value eq "x" or …].value pr.
type Bracket struct {
	attribute Token
	Inner     []Token
	behind    []Token
}

// liftBrackets replaces each value filter with a presence test (pr) of a placeholder
// attribute, whose name does not occur in the filter, and returns the value filters by
// placeholder.
func liftBrackets(tokens []Token) (outer []Token, lifted map[string]Bracket, err error) {
	if !slices.Contains(tokens, "[") {
		return tokens, nil, nil
	}
	name := "v"
	for slices.ContainsFunc(tokens, func(t Token) bool { return strings.Contains(string(t), name) }) {
		name += "v"
	}
	lifted = make(map[string]Bracket)
	for len(tokens) > 0 {
		if len(tokens) < 2 || tokens[1] != "[" || !tokens[0].isWord() {
			outer, tokens = append(outer, tokens[0]), tokens[1:]
			continue
		}
		b, rest, err := CutBracket(tokens)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case len(rest) > 0 && rest[0].is("pr"):
			rest = rest[1:] // pr adds nothing: a matching element is present
		case len(rest) > 1 && rest[0][0] == '.' && rest[1].is("pr"):
			b.behind, rest = []Token{rest[0][1:], "pr"}, rest[2:]
		case len(rest) > 2 && rest[0][0] == '.' && rest[1].isOperator():
			b.behind, rest = append([]Token{rest[0][1:]}, rest[1:3]...), rest[3:]
		}
		standIn := fmt.Sprintf("%s%d", name, len(lifted))
		lifted[standIn] = b
		outer, tokens = append(outer, Token(standIn), "pr"), rest
	}
	return outer, lifted, nil
}

// CutBracket splits tokens that begin with attribute[…] after the closing bracket.
func CutBracket(tokens []Token) (b Bracket, rest []Token, err error) {
	depth := 0
	for i, t := range tokens {
		switch t {
		case "[":
			depth++
		case "]":
			if depth--; depth == 0 {
				return Bracket{attribute: tokens[0], Inner: tokens[2:i]}, tokens[i+1:], nil
			}
		}
	}
	return b, nil, schema.Errorf(schema.InvalidFilter, "missing closing bracket in the filter")
}
