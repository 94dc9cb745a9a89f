package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// update rewrites the reference: go test ./internal/e2e -run TestReference -update
var update = flag.Bool("update", false, "rewrite docs/API.md")

// document is a part of an OpenAPI document.
type document struct {
	root, node *yaml.Node
}

// parseDocument parses an OpenAPI document.
func parseDocument(t *testing.T, raw []byte) document {
	t.Helper()
	var file yaml.Node
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return document{file.Content[0], file.Content[0]}
}

// at returns the part at a path of keys, without references; it has no content if there is none.
func (d document) at(keys ...string) document {
	for _, key := range keys {
		found := document{d.root, &yaml.Node{}}
		for _, m := range d.members() {
			if m.key == key {
				found = m.document
			}
		}
		d = found
	}
	return d
}

// member is a member of a mapping.
type member struct {
	key string
	document
}

// members returns the members of a mapping in order, and those of what it refers to.
func (d document) members() (all []member) {
	if d.node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(d.node.Content); i += 2 {
		value := document{d.root, d.node.Content[i+1]}
		if value.node.Kind == yaml.AliasNode {
			value.node = value.node.Alias
		}
		if key := d.node.Content[i].Value; key != "$ref" {
			all = append(all, member{key, value})
			continue
		}
		path := strings.Split(strings.TrimPrefix(value.node.Value, "#/"), "/")
		all = append(document{d.root, d.root}.at(path...).members(), all...)
	}
	return all
}

// text returns a scalar, or an empty string.
func (d document) text() string { return d.node.Value }

// items returns the items of a list.
func (d document) items() (all []document) {
	if d.node.Kind != yaml.SequenceNode {
		return nil
	}
	for _, node := range d.node.Content {
		all = append(all, document{d.root, node})
	}
	return all
}

// kind returns the type of a schema as a reader calls it.
func (d document) kind() string {
	switch values := d.at("enum").items(); {
	case len(values) > 0:
		var names []string
		for _, v := range values {
			names = append(names, "`"+v.text()+"`")
		}
		return strings.Join(names, ", ")
	case d.at("type").text() == "array":
		return "list of " + d.at("items").kind()
	case d.at("format").text() != "":
		return d.at("format").text()
	}
	return d.at("type").text()
}

// row is a row of the table of what an operation takes.
func row(name, in, kind, what string, optional bool) string {
	if optional {
		in += ", optional"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, in, kind, what)
}

// takes returns the rows of the parameters of an operation and of the fields of its body.
func takes(path, operation document) (rows string) {
	for _, p := range append(path.at("parameters").items(), operation.at("parameters").items()...) {
		in := p.at("in").text()
		optional := in != "path" && p.at("required").text() != "true"
		rows += row(p.at("name").text(), in, p.at("schema").kind(), p.at("description").text(), optional)
	}
	for _, content := range operation.at("requestBody", "content").members() {
		schema := content.at("schema")
		for _, field := range schema.at("properties").members() {
			required := slices.ContainsFunc(schema.at("required").items(), func(r document) bool { return r.text() == field.key })
			rows += row(field.key, "body", field.kind(), field.at("description").text(), !required)
		}
	}
	return rows
}

// statuses returns the statuses of an operation with their meaning.
func statuses(operation document) string {
	var all []string
	for _, response := range operation.at("responses").members() {
		what := response.at("description").text()
		for _, m := range response.members() { // the description beside a reference is the last
			if m.key == "description" {
				what = m.text()
			}
		}
		if what == "RFC 9457" {
			all = append(all, response.key)
			continue
		}
		all = append(all, response.key+" "+what)
	}
	return strings.Join(all, "; ")
}

// caller returns who may call an operation.
func caller(method, path string, operation document) string {
	switch {
	case operation.at("security").node.Kind == yaml.SequenceNode && len(operation.at("security").items()) == 0:
		return "anybody"
	case slices.ContainsFunc([]string{"/credentials", "/scheduled-runs", "/import", "/principals"},
		func(prefix string) bool { return strings.HasPrefix(path, prefix) }):
		return "platform"
	}
	var names []string
	for _, class := range rolesOf(route{method: strings.ToUpper(method), pattern: "/v1" + path}) {
		names = append(names, string(class))
	}
	return strings.Join(names, ", ")
}

// TestReference_IsThatOfTheDocument compares docs/API.md with the OpenAPI document and the roles.
func TestReference_IsThatOfTheDocument(t *testing.T) {
	raw, err := os.ReadFile("../api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := parseDocument(t, raw)
	var b strings.Builder
	b.WriteString(`# API

<!-- generated from internal/api/openapi.yaml by ` + "`go test ./internal/e2e -run TestReference -update`" + ` -->

The base path is ` + "`/v1`" + `; the same in OpenAPI is at ` + "`/v1/openapi.yaml`" + `.
Send a token as ` + "`Authorization: Bearer TOKEN`" + `; *for* names the classes of tokens that an operation accepts.
Bodies are JSON unless their table says otherwise; a field that is not listed is refused.
An error is a problem document (RFC 9457) with a ` + "`detail`" + ` that says what to change.
Lists have ` + "`items`" + ` and, if there are more, ` + "`nextCursor`" + `.
`)
	operations := 0
	for _, path := range d.at("paths").members() {
		for _, operation := range path.members() {
			if operation.key == "parameters" {
				continue
			}
			operations++
			fmt.Fprintf(&b, "\n## %s %s\n\n%s.\n*For*: %s.\n", strings.ToUpper(operation.key), path.key,
				operation.at("summary").text(), caller(operation.key, path.key, operation.document))
			for _, content := range operation.at("requestBody", "content").members() {
				if content.key != "application/json" {
					fmt.Fprintf(&b, "The body is %s.\n", content.key)
				}
			}
			if rows := takes(path.document, operation.document); rows != "" {
				b.WriteString("\n| name | in | type | |\n|---|---|---|---|\n" + rows)
			}
			fmt.Fprintf(&b, "\nAnswers: %s.\n", statuses(operation.document))
		}
	}
	if operations < 50 {
		t.Errorf("the reference has %d operations, want at least 50", operations)
	}
	const file = "../../docs/API.md"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(written)); diff != "" {
		t.Errorf("run the test with -update:\n%s", diff)
	}
}
