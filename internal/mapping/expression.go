package mapping

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"
)

const (
	// maxCost bounds what one rule may cost for one principal, in cel-go's units: a
	// comparison is a few. It is checked by estimate when a rule is saved, and again
	// when it runs.
	maxCost = 100_000
	// maxTotalCost bounds all rules of a document together, by estimate.
	maxTotalCost = 2_000_000
	// maxDepth bounds how deep expressions nest.
	maxDepth = 64
	// What the estimate takes attributes, and lists such as that of groups, for.
	estimatedText = 256 // bytes
	estimatedList = 200
)

// compile checks one expression against the vocabulary, and what it may cost.
func compile(env *cel.Env, r rule, lines []string) (program cel.Program, most uint64, err error) {
	ast, issues := env.Compile(r.when.Value)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		line, column := position(r.when, lines, first.Location.Line(), first.Location.Column())
		return nil, 0, &Error{Line: line, Column: column, Rule: r.name, Reason: first.Message}
	}
	if ast.OutputType() != types.BoolType && ast.OutputType() != types.DynType {
		return nil, 0, at(r.when, r.name, "the expression is a %s: want one that is true or false", ast.OutputType())
	}
	if made := celast.MatchDescendants(celast.NavigateAST(ast.NativeRep()), celast.KindMatcher(celast.StructKind)); len(made) > 0 {
		return nil, 0, at(r.when, r.name, "an expression makes no objects")
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, 0, at(r.when, r.name, "the expression's cost cannot be told: %v", err)
	}
	if estimate.Max > maxCost {
		return nil, 0, at(r.when, r.name, "the expression is too dear: it may cost %d, and %d is the most", estimate.Max, maxCost)
	}
	program, err = env.Program(ast, cel.CostTracking(sizes{}), cel.CostLimit(maxCost))
	if err != nil {
		return nil, 0, at(r.when, r.name, "%v", err)
	}
	return program, estimate.Max, nil
}

// position leads from a place in an expression to that in the document.
func position(n *yaml.Node, lines []string, line, column int) (documentLine, documentColumn int) {
	switch {
	case line < 1: // of the expression as a whole, such as its depth
		return n.Line, n.Column
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		documentLine = n.Line + line
		if documentLine <= len(lines) {
			text := lines[documentLine-1]
			column += len(text) - len(strings.TrimLeft(text, " "))
		}
		return documentLine, column + 1
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		column++
	}
	return n.Line + line - 1, n.Column + column
}

// sizes is what the estimate of a cost takes for the size of what is not known yet.
type sizes struct{}

// EstimateSize implements cost.CostEstimator.
func (sizes) EstimateSize(e cost.AstNode) *cost.SizeEstimate {
	if e.Type().Kind() == types.StringKind {
		return &cost.SizeEstimate{Max: estimatedText}
	}
	return &cost.SizeEstimate{Max: estimatedList}
}

// EstimateCallCost implements cost.CostEstimator.
func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function == "json" {
		return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: 1, Max: estimatedText}}
	}
	return nil
}

// CallCost implements interpreter.ActualCostEstimator: JSON costs by its length.
func (sizes) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if function != "json" {
		return nil
	}
	text, _ := args[0].Value().(string)
	cost := uint64(len(text)) + 1
	return &cost
}

const maxJSON = 64 << 10 // bytes

// jsonFunction reads JSON that arrives as a string inside a string, as Okta sends roles.
func jsonFunction() cel.EnvOption {
	return cel.Function("json", cel.Overload("json_string", []*cel.Type{cel.StringType}, cel.DynType,
		cel.UnaryBinding(func(v ref.Val) ref.Val {
			text, ok := v.Value().(string)
			if !ok || len(text) > maxJSON {
				return types.NewErr("json: want a string of at most %d KiB", maxJSON>>10)
			}
			value, err := decodeJSON(text)
			if err != nil {
				return types.NewErr("json: the claim is not JSON: %v", err)
			}
			return types.DefaultTypeAdapter.NativeToValue(value)
		})))
}

func decodeJSON(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	var value any
	if err := d.Decode(&value); err != nil {
		// The decoder's own words may quote the claim.
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("at byte %d", syntax.Offset)
		}
		return nil, errors.New("it ends early")
	}
	if d.More() {
		return nil, errors.New("something follows it")
	}
	return value, nil
}
