// Package mapping compiles and applies the rules by which a tenant derives entitlements (teams,
// roles, scopes) from groups and attributes. It does no I/O.
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

// IsEntitlement reports whether a name is of a kind that rules derive. Platforms manage
// entitlements with other names themselves.
func IsEntitlement(name string) bool {
	kind, value, ok := strings.Cut(name, ":")
	return ok && value != "" && (kind == KindTeam || kind == KindRole || kind == KindScope)
}

// Principal is a principal to which rules are applied.
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

// Source is the reason why a principal has an entitlement, or is denied it.
type Source struct {
	Rule      string     `json:"rule"`
	Group     *uuid.UUID `json:"group,omitempty"`
	GroupName string     `json:"groupName,omitempty"`
	When      string     `json:"when,omitempty"` // the expression that was true
}

// Result is the result of applying rules to a principal.
type Result struct {
	// Entitlements are the granted entitlements, each with all its sources.
	Entitlements map[string][]Source `json:"entitlements"`
	// Denied are the entitlements that some rules grant and others deny.
	Denied map[string][]Source `json:"denied,omitempty"`
	// Failed are the rules that could not be evaluated. Such a rule grants nothing; a rule
	// with deny denies.
	Failed []Failure `json:"failed,omitempty"`
}

// Failure is a rule that could not be evaluated for a principal.
type Failure struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// Rules is a compiled document. It is safe for concurrent use.
type Rules struct {
	rules      []compiled
	vocabulary *vocabulary
}

type compiled struct {
	rule
	program cel.Program // nil always holds
}

// Compile compiles a document. Error: [Error], for the first mistake.
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
				return nil, at(r.when, r.name,
					"the estimated cost of the rules up to this one is %d, the limit is %d", total, maxTotalCost)
			}
		}
		rules.rules = append(rules.rules, c)
	}
	return rules, nil
}

// Entitlements returns the sorted names that the rules grant or deny.
func (rs *Rules) Entitlements() []string {
	names := []string{}
	for _, r := range rs.rules {
		names = append(names, r.grants...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Apply evaluates the rules for a principal. It returns the union of what they grant, without
// what any rule denies.
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

// classOf returns why an expression failed, without the values that cel-go quotes.
func classOf(err error) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "json: "):
		return text // from jsonFunction, which quotes no values
	case strings.Contains(text, "cost limit"):
		return "the expression exceeded its cost limit"
	case strings.HasPrefix(text, "no such key"):
		return "no such key"
	case strings.HasPrefix(text, "no such overload"):
		return "a value has a type that the expression does not support"
	}
	return "the expression cannot be evaluated"
}

// holds reports whether the rule applies to the principal, and by which source.
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
		return source, false, errors.New("the expression did not return a boolean")
	}
	return source, held, nil
}
