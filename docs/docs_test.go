// Package docs_test checks the documents against the code.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunc  = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	testName  = regexp.MustCompile("`(Test\\w+)`")
	reference = regexp.MustCompile(`\((I\d+(?:, I\d+)*)\)`)
	heading   = regexp.MustCompile(`(?m)^## (I\d+):`)
)

// files returns the contents of the repository's files with the given suffixes, by path.
func files(t *testing.T, suffixes ...string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for _, suffix := range suffixes {
			if strings.HasSuffix(path, suffix) {
				raw, err := os.ReadFile(path)
				texts[path] = string(raw)
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

func TestDocuments_NameTestsThatExist(t *testing.T) {
	known := make(map[string]bool)
	for _, text := range files(t, "_test.go") {
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			known[m[1]] = true
		}
	}
	for path, text := range files(t, ".md") {
		for _, m := range testName.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names %s, which does not exist", path, m[1])
			}
		}
	}
}

func TestInvariants_AreDefinedWhereCodeNamesThem(t *testing.T) {
	raw, err := os.ReadFile("INVARIANTS.md")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(string(raw), -1) {
		defined[m[1]] = true
	}
	for path, text := range files(t, ".go", ".sql") {
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				if !defined[name] {
					t.Errorf("%s refers to %s, which docs/INVARIANTS.md does not define", path, name)
				}
			}
		}
	}
}
