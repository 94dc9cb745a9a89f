package scim

import (
	"encoding/json"
	"strings"
)

// The limits that hold before the parser runs: without them nested parentheses
// end in a stack overflow that no recover catches.
const (
	maxFilterLength = 4096 // bytes
	maxFilterDepth  = 32   // parentheses and brackets
)

// token is a piece of a filter: a word, a quoted string with its quotes, or
// one of ( ) [ ].
type token string

func (t token) isString() bool { return t != "" && t[0] == '"' }

func (t token) isWord() bool { return t != "" && !strings.Contains(`"()[]`, string(t[:1])) }

func (t token) isOperator() bool {
	switch strings.ToLower(string(t)) {
	case "eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le":
		return true
	}
	return false
}

func (t token) is(word string) bool { return strings.EqualFold(string(t), word) }

// scanFilter cuts a filter into tokens, within the limits.
func scanFilter(filter string) ([]token, error) {
	if len(filter) > maxFilterLength {
		return nil, badRequest(invalidFilter, "the filter is longer than %d bytes", maxFilterLength)
	}
	var tokens []token
	depth := 0
	for i := 0; i < len(filter); {
		switch c := filter[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
		case '(', '[':
			if depth++; depth > maxFilterDepth {
				return nil, badRequest(invalidFilter, "the filter is nested deeper than %d", maxFilterDepth)
			}
			tokens = append(tokens, token(c))
			i++
		case ')', ']':
			if depth--; depth < 0 {
				return nil, badRequest(invalidFilter, "the filter closes what it did not open")
			}
			tokens = append(tokens, token(c))
			i++
		case '"':
			end := endOfString(filter, i)
			if end < 0 {
				return nil, badRequest(invalidFilter, "the filter has a string without an end")
			}
			tokens = append(tokens, token(filter[i:end]))
			i = end
		default:
			end := i
			for end < len(filter) && !strings.ContainsRune(" \t\r\n()[]\"", rune(filter[end])) {
				end++
			}
			tokens = append(tokens, token(filter[i:end]))
			i = end
		}
	}
	if depth != 0 {
		return nil, badRequest(invalidFilter, "the filter does not close what it opens")
	}
	if len(tokens) == 0 {
		return nil, badRequest(invalidFilter, "the filter is empty")
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

// normalize writes tokens in the form that filter-parser reads, which refuses
// some of what IdPs send:
//
//	externalId eq jyoung                 a value without quotes (Entra)
//	emails[type eq "work"].value eq "x"  a comparison behind a value filter
//	emails[type eq "work"] pr            a presence behind one
func normalize(tokens []token) string {
	tokens = foldBehindBracket(tokens)
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && needsBlank(tokens[i-1], t) {
			b.WriteByte(' ')
		}
		if i > 0 && tokens[i-1].isOperator() && t.isWord() && !isLiteral(t) {
			b.Write(appendString(nil, string(t)))
			continue
		}
		b.WriteString(string(t))
	}
	return b.String()
}

func needsBlank(before, after token) bool {
	switch {
	case before == "(" || before == "[" || after == ")" || after == "]" || after == "[":
		return false
	case before == "]":
		return !strings.HasPrefix(string(after), ".")
	case after == "(":
		return !before.is("not")
	}
	return true
}

// isLiteral: true, false, null, or a number as JSON has it; 00123 is a word.
func isLiteral(t token) bool {
	return json.Valid([]byte(strings.ToLower(string(t))))
}

// foldBehindBracket moves `].sub op value` into the bracket, and drops `] pr`.
func foldBehindBracket(tokens []token) []token {
	var out []token
	for i := 0; i < len(tokens); i++ {
		out = append(out, tokens[i])
		if tokens[i] != "]" || i+1 >= len(tokens) {
			continue
		}
		switch next := tokens[i+1]; {
		case next.is("pr"):
			i++
		case strings.HasPrefix(string(next), ".") && i+2 < len(tokens) && tokens[i+2].is("pr"):
			out = insertInBracket(out, next[1:], tokens[i+2])
			i += 2
		case strings.HasPrefix(string(next), ".") && i+3 < len(tokens) && tokens[i+2].isOperator():
			out = insertInBracket(out, next[1:], tokens[i+2], tokens[i+3])
			i += 3
		}
	}
	return out
}

// insertInBracket turns …[a or b] at the end of out into …[a and more or b and
// more]: the library's value filters know no grouping.
func insertInBracket(out []token, more ...token) []token {
	open := len(out) - 1
	for open >= 0 && out[open] != "[" {
		open--
	}
	if open < 0 {
		return out
	}
	folded := append([]token{}, out[:open+1]...)
	for _, t := range out[open+1:] {
		if t.is("or") || t == "]" {
			folded = append(append(folded, "and"), more...)
		}
		folded = append(folded, t)
	}
	return folded
}
