package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// maxCost bounds the cost of one expression, in cel-go's units; a comparison costs a few.
	maxCost = 1_000_000
	// maxExpression bounds the length of one expression, in bytes.
	maxExpression = 2048
)

// newEnv returns the environment of a definition's expressions: the status, headers (lower-case names) and body
// (decoded JSON, or null) of an answer, and the texts of the target's reference. Secrets are not in it.
func newEnv(texts []string) (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), ext.Strings(), ext.Lists(),
		cel.Variable("status", cel.IntType), cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("body", cel.DynType), cel.Variable("item", cel.DynType),
	}
	for _, name := range texts {
		options = append(options, cel.Variable(name, cel.StringType))
	}
	return cel.NewEnv(options...)
}

// expression is a compiled expression.
type expression struct {
	node    *yaml.Node
	program cel.Program
	out     *cel.Type // of the result
	item    bool      // whether it is about item
	// statuses are the statuses for which the expression is true, if it is about the status only.
	statuses map[int]bool
}

// compile compiles an expression.
func compile(env *cel.Env, n *yaml.Node) (*expression, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, at(n, "must be an expression: quote it if it has commas, brackets or braces")
	}
	if len(n.Value) > maxExpression {
		return nil, at(n, "an expression has at most %d bytes", maxExpression)
	}
	ast, issues := env.Compile(n.Value)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		reason := first.Message
		switch {
		case strings.Contains(reason, "<EOF>"):
			reason += "; quote the expression if it has a comma, which ends it in {…}"
		case strings.Contains(reason, "undeclared reference"):
			reason += "; expressions see status, headers, body, the parts of the reference, and settings that are not secret"
		}
		return nil, &Error{Line: n.Line, Column: n.Column + max(first.Location.Column(), 0), Reason: reason}
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, at(n, "%v", err)
	}
	e := &expression{node: n, program: program, out: ast.OutputType()}
	names := celast.MatchDescendants(celast.NavigateAST(ast.NativeRep()), celast.KindMatcher(celast.IdentKind))
	e.item = slices.ContainsFunc(names, func(n celast.NavigableExpr) bool { return n.AsIdent() == "item" })
	if slices.ContainsFunc(names, func(n celast.NavigableExpr) bool { return n.AsIdent() != "status" }) {
		return e, nil
	}
	e.statuses = make(map[int]bool)
	for status := 100; status < 600; status++ {
		if holds, err := e.holds(map[string]any{"status": status}); holds && err == nil {
			e.statuses[status] = true
		}
	}
	return e, nil
}

// expressionInto returns the decoder of an expression.
func expressionInto(env *cel.Env, into **expression) func(*yaml.Node) error {
	return func(n *yaml.Node) (err error) { *into, err = compile(env, n); return err }
}

// compileCondition compiles an expression that must be a boolean.
func compileCondition(env *cel.Env, n *yaml.Node) (*expression, error) {
	e, err := compile(env, n)
	if err == nil && e.out != types.BoolType && e.out != types.DynType {
		return nil, at(n, "the condition returns %s: expected a boolean", e.out)
	}
	return e, err
}

// holds reports whether a condition is true. A fault of the answer, such as a member that the body does not have, is
// false. A condition that was not evaluated to its end says nothing, and is a permanent error.
func (e *expression) holds(activation map[string]any) (bool, error) {
	result, _, err := e.program.Eval(activation)
	var cancelled interpreter.EvalCancelledError
	if errors.As(err, &cancelled) {
		return false, connectors.Permanent(
			"the answer is too large for the condition on line %d of the definition", e.node.Line)
	}
	if err != nil {
		return false, nil //nolint:nilerr // a fault of the answer
	}
	holds, ok := result.Value().(bool)
	return ok && holds, nil
}

// answered returns the activation for the expressions about an answer.
func answered(resp *http.Response, body any, v values, texts []string) map[string]any {
	headers := make(map[string]string, len(resp.Header))
	for name, values := range resp.Header {
		headers[strings.ToLower(name)] = values[0]
	}
	activation := map[string]any{"status": resp.StatusCode, "headers": headers, "body": body, "item": nil}
	for _, name := range texts {
		activation[name] = v[name]
	}
	return activation
}

// decodeBody returns the decoded JSON of a body: nil if it is empty or of another type. ok is false for a body
// that cannot be an answer of an API: an HTML page, or JSON that is malformed.
func decodeBody(resp *http.Response, raw []byte) (body any, ok bool) {
	media := strings.ToLower(resp.Header.Get("Content-Type"))
	trimmed := strings.TrimSpace(string(raw))
	switch {
	case strings.HasPrefix(media, "text/html"), strings.HasPrefix(trimmed, "<"):
		return nil, false
	case trimmed == "":
		return nil, true
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // an id may be larger than a float64 is exact
	err := decoder.Decode(&body)
	if _, end := decoder.Token(); err == nil && !errors.Is(end, io.EOF) {
		err = errors.New("more than one value")
	}
	if err != nil {
		return nil, !strings.Contains(media, "json") && !strings.HasPrefix(trimmed, "{") && !strings.HasPrefix(trimmed, "[")
	}
	return withNumbers(body), true
}

// withNumbers replaces the numbers of a decoded value by integers, if they are whole and fit, and by floats.
func withNumbers(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // infinite if it does not fit
		return f
	case map[string]any:
		for name, member := range v {
			v[name] = withNumbers(member)
		}
	case []any:
		for i, element := range v {
			v[i] = withNumbers(element)
		}
	}
	return value
}

// textOf returns the text of a value that an expression returned; a whole number has no decimal point.
func textOf(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// timeOf returns the time that a value means: RFC 3339, or seconds since 1970; nil for others.
func timeOf(value any) *time.Time {
	switch v := value.(type) {
	case string:
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return &t
		}
	case float64:
		t := time.Unix(int64(v), 0).UTC()
		return &t
	case int64:
		t := time.Unix(v, 0).UTC()
		return &t
	case time.Time:
		return &v
	}
	return nil
}
