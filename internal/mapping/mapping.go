// Package mapping reads the rules by which a tenant derives entitlements (teams,
// roles, scopes) from groups and attributes, and applies them. It does no I/O.
package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"github.com/google/uuid"
)

// The kinds of entitlements: an entitlement is written kind:value, as in team:Engineering.
const (
	KindTeam  = "team"
	KindRole  = "role"
	KindScope = "scope"
)

// IsEntitlement tells whether a name is of a kind that rules derive. What platforms
// call by any other name is theirs.
func IsEntitlement(name string) bool {
	kind, value, ok := strings.Cut(name, ":")
	return ok && value != "" && (kind == KindTeam || kind == KindRole || kind == KindScope)
}

// Principal is whom rules are applied to.
type Principal struct {
	ID       uuid.UUID
	Type     string         // User or Agent
	Document map[string]any // as stored: core attributes, and extensions by URN
	Groups   []Group
}

// Group is a group that a principal is in.
type Group struct {
	ID          uuid.UUID
	DisplayName string
	ExternalID  string
	Direct      bool // not only through another group
}

// Source says why a principal has an entitlement, or is denied it.
type Source struct {
	Rule      string     `json:"rule"`
	Group     *uuid.UUID `json:"group,omitempty"`
	GroupName string     `json:"groupName,omitempty"`
	When      string     `json:"when,omitempty"` // the expression that held
}

// Result is what rules make of a principal.
type Result struct {
	// Entitlements are what it has, each with all that gives it.
	Entitlements map[string][]Source `json:"entitlements"`
	// Denied are what rules would give and others deny.
	Denied map[string][]Source `json:"denied,omitempty"`
	// Failed are rules that could not be evaluated: of those, what grants granted
	// nothing, and what denies denied.
	Failed []Failure `json:"failed,omitempty"`
}

// Failure is a rule that could not be evaluated for a principal.
type Failure struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// Rules are a document that was compiled. They are safe for concurrent use.
type Rules struct {
	rules []compiled
	// types are those of the tenant's own claims.
	vocabulary *vocabulary
}

type compiled struct {
	rule
	program cel.Program // nil is always
}

// Compile reads a document. Error: [Error], at the first mistake.
func Compile(document string, v Vocabulary) (*Rules, error) {
	parsed, err := parse(document)
	if err != nil {
		return nil, err
	}
	vocabulary := newVocabulary(v)
	env, err := vocabulary.env()
	if err != nil {
		return nil, err
	}
	rules := &Rules{vocabulary: vocabulary}
	var total uint64
	lines := strings.Split(document, "\n")
	for _, r := range parsed {
		c := compiled{rule: r}
		if r.when != nil {
			var cost uint64
			if c.program, cost, err = compile(env, r, lines); err != nil {
				return nil, err
			}
			if total += cost; total > maxTotalCost {
				return nil, at(r.when, r.name, "together with the rules before it, it is too dear: %d is the most for all", maxTotalCost)
			}
		}
		rules.rules = append(rules.rules, c)
	}
	return rules, nil
}

// Apply tells what the rules make of a principal: the union of what they grant,
// without what any denies.
func (rs *Rules) Apply(p Principal) Result {
	result := Result{Entitlements: make(map[string][]Source)}
	denied := make(map[string][]Source)
	variables := rs.vocabulary.variables(p)
	for _, r := range rs.rules {
		source, holds, err := r.holds(p, variables)
		if err != nil {
			result.Failed = append(result.Failed, Failure{r.name, err.Error()})
			holds, source = r.deny, Source{Rule: r.name}
		}
		if !holds {
			continue
		}
		into := result.Entitlements
		if r.deny {
			into = denied
		}
		for _, name := range r.grants {
			into[name] = append(into[name], source)
		}
	}
	for name, sources := range denied {
		if _, granted := result.Entitlements[name]; !granted {
			continue
		}
		delete(result.Entitlements, name)
		if result.Denied == nil {
			result.Denied = make(map[string][]Source)
		}
		result.Denied[name] = sources
	}
	return result
}

// classOf says why an expression failed, without the values that cel-go quotes.
func classOf(err error) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "json: "):
		return text // our own words
	case strings.Contains(text, "cost limit"):
		return "it took more than its cost limit"
	case strings.HasPrefix(text, "no such key"):
		return "no such key"
	case strings.HasPrefix(text, "no such overload"):
		return "a value is of another type than the expression needs"
	}
	return "it cannot be evaluated"
}

// holds tells whether the rule is about the principal, and by which group.
func (c compiled) holds(p Principal, variables map[string]any) (Source, bool, error) {
	source := Source{Rule: c.name}
	if c.group != nil || c.externalID != nil {
		at := slices.IndexFunc(p.Groups, func(g Group) bool {
			return (c.group == nil || c.group.MatchString(g.DisplayName)) &&
				(c.externalID == nil || (g.ExternalID != "" && c.externalID.MatchString(g.ExternalID)))
		})
		if at < 0 {
			return source, false, nil
		}
		source.Group, source.GroupName = &p.Groups[at].ID, p.Groups[at].DisplayName
	}
	if c.program == nil {
		return source, true, nil
	}
	source.When = c.when.Value
	value, _, err := c.program.Eval(variables)
	if err != nil {
		return source, false, fmt.Errorf("%s: %s", c.when.Value, classOf(err))
	}
	held, ok := value.Value().(bool)
	if !ok {
		return source, false, errors.New("the expression is neither true nor false")
	}
	return source, held, nil
}
