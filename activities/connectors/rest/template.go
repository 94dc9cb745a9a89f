package rest

import (
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/leaverhq/leaver/activities/connectors"
)

// scope are the names that the templates of an operation may use, and those among them whose values are secret.
type scope struct {
	names   map[string]bool
	secrets map[string]bool
	// targets are the names whose values differ between credentials.
	targets map[string]bool
	// elsewhere are names that other operations may use.
	elsewhere []string
}

// values are the values of the names.
type values map[string]string

// template is a text with placeholders such as {client_id}. {{ and }} are a { and a }.
type template struct {
	node *yaml.Node
	// texts and names alternate: the text before each name, and the text after the last one.
	texts, names []string
	// formats are, by name, "int" for {job:int}, a number, "path" for {user:path}, a segment of a path, "sql" for
	// {user:sql}, a quoted identifier of SQL, "soql" for {user:soql}, a text of Salesforce's queries, or empty.
	formats []string
	// number is set for a whole value such as {job:int} in a JSON body.
	number bool
}

// These stand for literal braces while a template is parsed. They cannot be in YAML.
const openBrace, closeBrace = "\x01", "\x02"

// parseTemplate parses a template. A name that is not in scope is an error.
func parseTemplate(n *yaml.Node, in scope) (*template, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, at(n, "must be a text")
	}
	t := &template{node: n}
	rest := strings.NewReplacer("{{", openBrace, "}}", closeBrace).Replace(n.Value)
	literal := strings.NewReplacer(openBrace, "{", closeBrace, "}")
	for {
		text, after, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, at(n, "a } without a {: write }} for a }")
		}
		if t.texts = append(t.texts, literal.Replace(text)); !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return nil, at(n, "a { without a }: write {{ for a {")
		}
		name, format, formats := strings.Cut(name, ":")
		if formats && !slices.Contains([]string{formatInt, formatPath, formatSQL, formatSOQL}, format) {
			return nil, at(n, "unknown format %q: use int, path, sql or soql", format)
		}
		t.number = t.number || format == formatInt
		if !in.names[name] && slices.Contains(in.elsewhere, name) {
			return nil, at(n, "{%s} has no value in this operation, which is not about one credential", name)
		}
		if !in.names[name] {
			return nil, at(n, "the template names {%s}, which is neither a setting nor a part of the reference", name)
		}
		t.names, t.formats = append(t.names, name), append(t.formats, format)
		rest = tail
	}
	if t.number && (len(t.names) != 1 || t.texts[0] != "" || t.texts[1] != "") {
		return nil, at(n, "{name:int} must be the whole value")
	}
	return t, nil
}

// checkPlain returns an error if the template has another format than the given ones.
func (t *template) checkPlain(allowed ...string) error {
	for _, format := range t.formats {
		if format != "" && !slices.Contains(allowed, format) {
			return at(t.node, "{name:int}, {name:path} and {name:sql} are for JSON bodies, {name:soql} also for query and form")
		}
	}
	return nil
}

// uses reports whether the template has a placeholder of one of the names.
func (t *template) uses(names map[string]bool) bool {
	for _, name := range t.names {
		if names[name] {
			return true
		}
	}
	return false
}

// expand returns the text with each value written by escape.
func (t *template) expand(v values, escape func(string) (string, error)) (string, error) {
	var b strings.Builder
	for i, text := range t.texts {
		b.WriteString(text)
		if i == len(t.names) {
			break
		}
		value, err := formatted(v[t.names[i]], t.formats[i])
		if err != nil {
			return "", err
		}
		escaped, err := escape(value)
		if err != nil {
			return "", err
		}
		b.WriteString(escaped)
	}
	return b.String(), nil
}

// The formats of a placeholder.
const (
	formatInt  = "int"
	formatPath = "path"
	formatSQL  = "sql"
	formatSOQL = "soql"
)

// formatted returns a value in a format of a placeholder.
func formatted(value, format string) (string, error) {
	switch format {
	case formatPath:
		return escapePath(value)
	case formatSQL:
		if strings.ContainsRune(value, 0) {
			return "", connectors.Permanent("a name in SQL must not contain NUL")
		}
		return `"` + strings.ReplaceAll(value, `"`, `""`) + `"`, nil
	case formatSOQL:
		return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + `'`, nil
	}
	return value, nil
}

// verbatim writes a value as it is, for places that encode the whole text.
func verbatim(value string) (string, error) { return value, nil }

// text returns the expanded text of a template for a query or a form, which encode it.
func (t *template) text(v values) string {
	expanded, _ := t.expand(v, verbatim) // the formats that are allowed there never fail
	return expanded
}

// header returns the expanded text for a header. Control characters are a permanent error.
func (t *template) header(v values) (string, error) {
	return t.expand(v, func(value string) (string, error) {
		for _, c := range value {
			if c < ' ' || c == 0x7f {
				return "", connectors.Permanent("a value for a header contains a control character")
			}
		}
		return value, nil
	})
}

// json returns the expanded value for a JSON body: a string, or a number.
func (t *template) json(v values) (any, error) {
	text, err := t.expand(v, verbatim)
	if err != nil || !t.number {
		return text, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, connectors.Permanent("the part {%s} of the reference must be a whole number", t.names[0])
	}
	return n, nil
}
