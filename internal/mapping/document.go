package mapping

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/textkey"
)

// The limits of a document.
const (
	MaxDocument   = 64 << 10 // bytes
	maxRules      = 1000
	maxGrants     = 100 // entitlements of one rule
	maxName       = 200 // bytes
	maxExpression = 4 << 10
)

// Error is a mistake in a document with its position. Line and Column count from 1.
type Error struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Rule   string `json:"rule,omitempty"`
	Reason string `json:"reason"`
}

func (e *Error) Error() string {
	if e.Rule == "" {
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
	}
	return fmt.Sprintf("line %d, column %d: rule %q: %s", e.Line, e.Column, e.Rule, e.Reason)
}

// Code implements [fault.Coded].
func (e *Error) Code() fault.Code { return fault.Unprocessable }

// Position returns where the error is in the document, from 1.
func (e *Error) Position() (line, column int) { return e.Line, e.Column }

// rule is one parsed rule.
type rule struct {
	name       string
	group      *glob // matches displayName case-insensitively
	externalID *glob
	when       *yaml.Node // a CEL expression; nil always holds
	grants     []string   // as team:…, role:…, scope:…
	deny       bool
	at         *yaml.Node
}

// parse reads a document:
//
//	rules:
//	  - {group: engineering-prod, team: Engineering, scopes: [deploy]}
//	  - {when: claims.clearedForProdData, role: prod-reader}
//	  - {group: contractors, deny: true, scopes: [deploy]}
func parse(document string) ([]rule, error) {
	if len(document) > MaxDocument {
		return nil, &Error{Line: 1, Column: 1, Reason: fmt.Sprintf("the document is longer than %d KiB", MaxDocument>>10)}
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(document), &root); err != nil {
		return nil, notYAML(err)
	}
	if len(root.Content) == 0 {
		return nil, &Error{Line: 1, Column: 1, Reason: "the document is empty: write `rules: []` for no rules"}
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode || len(top.Content) != 2 || top.Content[0].Value != "rules" {
		return nil, at(top, "", "expected a mapping with one member, rules")
	}
	list := top.Content[1]
	switch {
	case list.Kind != yaml.SequenceNode:
		return nil, at(list, "", "rules must be a list")
	case len(list.Content) > maxRules:
		return nil, at(list, "", "too many rules: %d, the limit is %d", len(list.Content), maxRules)
	}
	rules := make([]rule, 0, len(list.Content))
	names := make(map[string]bool)
	for _, node := range list.Content {
		r, err := parseRule(node)
		if err != nil {
			return nil, err
		}
		if names[r.name] {
			return nil, at(node, r.name, "duplicate rule name: give each rule a unique `name`")
		}
		names[r.name] = true
		rules = append(rules, r)
	}
	return rules, nil
}

// yamlLine matches the line number in an error text of the YAML parser.
var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

func notYAML(err error) error {
	e := &Error{Line: 1, Column: 1, Reason: "invalid YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		_, _ = fmt.Sscan(found[1], &e.Line) // digits
		e.Reason = "invalid YAML: " + found[2]
	}
	return e
}

func at(n *yaml.Node, rule, format string, args ...any) *Error {
	return &Error{Line: n.Line, Column: n.Column, Rule: rule, Reason: fmt.Sprintf(format, args...)}
}

func parseRule(node *yaml.Node) (rule, error) {
	r := rule{at: node}
	if node.Kind != yaml.MappingNode {
		return r, at(node, "", "a rule must be a mapping such as {group: engineering-prod, team: Engineering}")
	}
	seen := make(map[string]bool)
	var matches []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if seen[key.Value] {
			return r, at(key, r.name, "duplicate member %s", key.Value)
		}
		seen[key.Value] = true
		if err := r.read(key, value); err != nil {
			return r, err
		}
		if key.Value == "group" || key.Value == "externalId" || key.Value == "when" {
			matches = append(matches, value.Value)
		}
	}
	if r.name == "" {
		r.name = strings.Join(matches, " and ")
		if r.deny {
			r.name = "not " + r.name
		}
		if len(r.name) > maxName {
			return r, at(node, "", "the rule needs a name, since its conditions are longer than %d bytes", maxName)
		}
	}
	switch {
	case len(matches) == 0:
		return r, at(node, r.name, "the rule needs group, externalId or when; `when: \"true\"` matches every principal")
	case len(r.grants) == 0:
		return r, at(node, r.name, "the rule needs a team, a role or scopes")
	case len(r.grants) > maxGrants:
		return r, at(node, r.name, "too many entitlements: %d, the limit is %d", len(r.grants), maxGrants)
	}
	return r, nil
}

// read parses one member of a rule.
func (r *rule) read(key, value *yaml.Node) error {
	switch key.Value {
	case "name":
		text, err := scalar(value)
		r.name = text
		return err
	case "group", "externalId":
		text, err := scalar(value)
		if err != nil {
			return err
		}
		into, compare := &r.group, textkey.Fold
		if key.Value == "externalId" {
			into, compare = &r.externalID, textkey.Exact
		}
		if *into, err = newGlob(text, compare); err != nil {
			return at(value, r.name, "%s: %v", key.Value, err)
		}
		return nil
	case "when":
		if value.Kind != yaml.ScalarNode || value.Value == "" || len(value.Value) > maxExpression {
			return at(value, r.name, "when must be a CEL expression of at most %d bytes", maxExpression)
		}
		r.when = value
		return nil
	case "deny":
		if err := value.Decode(&r.deny); err != nil {
			return at(value, r.name, "deny must be true or false, got %q", value.Value)
		}
		return nil
	}
	kind, ok := grantKinds[key.Value]
	if !ok {
		return at(key, r.name, "unknown member %q: expected name, group, externalId, when, deny, team, role or scopes",
			key.Value)
	}
	values := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		values = value.Content
	}
	for _, v := range values {
		text, err := scalar(v)
		if err != nil {
			return err
		}
		r.grants = append(r.grants, kind+":"+text)
	}
	return nil
}

// grantKinds maps the members that name entitlements, one or several, to their kind.
var grantKinds = map[string]string{
	"team": KindTeam, "teams": KindTeam, "role": KindRole, "roles": KindRole, "scope": KindScope, "scopes": KindScope,
}

func scalar(n *yaml.Node) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode || n.Value == "":
		return "", at(n, "", "expected a non-empty string")
	case len(n.Value) > maxName:
		return "", at(n, "", "the string is longer than %d bytes", maxName)
	case strings.ContainsFunc(n.Value, unicode.IsControl):
		return "", at(n, "", "the string contains a control character")
	}
	return n.Value, nil
}

// glob is a pattern in which `*` matches any text, and `\*` a star.
type glob struct {
	exact   string // set if the pattern has no star
	pattern *regexp.Regexp
	key     func(string) string // returns the comparison key of a name
}

// MatchString reports whether the pattern matches a name.
func (g *glob) MatchString(name string) bool {
	if g.pattern != nil {
		return g.pattern.MatchString(g.key(name))
	}
	return g.exact == g.key(name)
}

// newGlob parses a pattern. key returns the comparison keys of its literals and of names.
func newGlob(text string, key func(string) string) (*glob, error) {
	g := &glob{key: key}
	var pattern, exact strings.Builder
	pattern.WriteByte('^')
	stars, literal := false, 0 // literal is the start in exact of the literal after the last star
	flush := func() {
		pattern.WriteString(regexp.QuoteMeta(key(exact.String()[literal:])))
		literal = exact.Len()
	}
	for i := 0; i < len(text); i++ {
		if text[i] == '*' {
			stars = true
			flush()
			pattern.WriteString("(?s:.*)")
			continue
		}
		if text[i] == '\\' {
			if i++; i == len(text) {
				return nil, errors.New("the pattern ends in a backslash")
			}
		}
		exact.WriteByte(text[i])
	}
	if !stars {
		g.exact = key(exact.String())
		return g, nil
	}
	flush()
	pattern.WriteByte('$')
	var err error
	g.pattern, err = regexp.Compile(pattern.String())
	return g, err
}
