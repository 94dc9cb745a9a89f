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
	// maxCost bounds the cost of one rule for one principal, in cel-go's units; a comparison
	// costs a few. It is checked by estimate when a rule is saved, and again when it runs.
	maxCost = 100_000
	// maxTotalCost bounds the estimated cost of all rules of a document.
	maxTotalCost = 2_000_000
	// maxDepth bounds the nesting depth of expressions.
	maxDepth = 64
	// The sizes of attributes and of lists, such as groups, that estimates assume.
	estimatedText = 256 // bytes
	estimatedList = 200
)

// compile compiles one expression, and checks its names, its types and its estimated cost.
func compile(env *cel.Env, r rule, lines []string) (program cel.Program, most uint64, err error) {
	ast, issues := env.Compile(r.when.Value)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		line, column := position(r.when, lines, first.Location.Line(), first.Location.Column())
		return nil, 0, &Error{Line: line, Column: column, Rule: r.name, Reason: first.Message}
	}
	if ast.OutputType() != types.BoolType && ast.OutputType() != types.DynType {
		return nil, 0, at(r.when, r.name, "the expression returns %s: expected a boolean", ast.OutputType())
	}
	if made := celast.MatchDescendants(celast.NavigateAST(ast.NativeRep()),
		celast.KindMatcher(celast.StructKind)); len(made) > 0 {
		return nil, 0, at(r.when, r.name, "the expression must not create objects")
	}
	estimate, err := env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, 0, at(r.when, r.name, "failed to estimate the cost of the expression: %v", err)
	}
	if estimate.Max > maxCost {
		return nil, 0, at(r.when, r.name, "the estimated cost of the expression is %d, the limit is %d",
			estimate.Max, maxCost)
	}
	program, err = env.Program(ast, cel.CostTracking(sizes{}), cel.CostLimit(maxCost))
	if err != nil {
		return nil, 0, at(r.when, r.name, "%v", err)
	}
	return program, estimate.Max, nil
}

// position converts a position in an expression into a position in the document.
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

// sizes estimates costs with assumed sizes of attributes and lists.
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

// CallCost implements interpreter.ActualCostEstimator. The cost of json is its argument's length
// in bytes, plus one.
func (sizes) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	if function != "json" {
		return nil
	}
	text, _ := args[0].Value().(string)
	cost := uint64(len(text)) + 1
	return &cost
}

const maxJSON = 64 << 10 // bytes

// jsonFunction declares json, which decodes JSON that an attribute contains as a string, as
// Okta sends roles.
func jsonFunction() cel.EnvOption {
	return cel.Function("json", cel.Overload("json_string", []*cel.Type{cel.StringType}, cel.DynType,
		cel.UnaryBinding(func(v ref.Val) ref.Val {
			text, ok := v.Value().(string)
			if !ok || len(text) > maxJSON {
				return types.NewErr("json: expected a string of at most %d KiB", maxJSON>>10)
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
		// The decoder's error may quote the claim.
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("at byte %d", syntax.Offset)
		}
		return nil, errors.New("unexpected end")
	}
	if d.More() {
		return nil, errors.New("unexpected data after the value")
	}
	return value, nil
}
