package worker_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// update rewrites the generated part: go test ./worker -run TestDefinitions_AreDocumented -update
var update = flag.Bool("update", false, "rewrite the generated part of docs/CONNECTORS.md")

const (
	generatedFrom = "<!-- generated from activities/connectors/rest/definitions by `go test ./worker -run Documented -update` -->\n"
	generatedTo   = "<!-- end of the generated part -->\n"
)

// conditions returns conditions for a cell of a table.
func conditions(texts []string) string {
	if len(texts) == 0 {
		return "–"
	}
	return "`" + strings.ReplaceAll(strings.Join(texts, "`, or `"), "|", `\|`) + "`"
}

// TestDefinitions_AreDocumented compares the documents with the definitions.
func TestDefinitions_AreDocumented(t *testing.T) {
	all, err := rest.Load("")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| type | ends | `reference` | can | needs | cannot end |\n|---|---|---|---|---|---|\n")
	for _, name := range all.Names() {
		d := all[name]
		reference := d.Reference
		if len(d.Parts) > 1 {
			reference = "`" + strings.Join(d.Parts, "/") + "`: " + reference
		}
		fmt.Fprintf(&b, "| [`%s`](%s) | %s | %s | %s | %s | %s |\n", d.Name, d.Documentation, d.Title, reference,
			strings.Join(d.Operations(), ", "), d.Needs, d.Limits)
	}
	b.WriteString("\nWhat an answer looks like by which a credential was gone already, and one by which a probe sees that it is dead " +
		"([CEL](DEFINITIONS.md)):\n\n| type | gone | dead |\n|---|---|---|\n")
	for _, name := range all.Names() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, conditions(all[name].Gone()), conditions(all[name].Dead()))
	}
	const path = "../docs/CONNECTORS.md"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), generatedFrom)
	_, after, closed := strings.Cut(rest, generatedTo)
	if !ok || !closed {
		t.Fatalf("%s has no generated part", path)
	}
	want := before + generatedFrom + b.String() + generatedTo + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Errorf("run the test with -update:\n%s", diff)
	}
}
