package rest

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

//go:embed definitions/*.yaml
var embedded embed.FS

// Catalog holds definitions by name.
type Catalog map[string]*Definition

// Load returns the definitions that are part of leaver, and those of the files *.yaml and *.yml in a directory; an
// empty directory is none. A definition with the name of another one is an error.
func Load(directory string) (Catalog, error) {
	all := make(Catalog)
	if err := all.add(embedded, "definitions", "definitions"); err != nil {
		return nil, err
	}
	if directory == "" {
		return all, nil
	}
	if _, err := os.Stat(directory); err != nil {
		return nil, fmt.Errorf("connector_definitions: %w", err)
	}
	return all, all.add(os.DirFS(directory), ".", directory)
}

// add adds the definitions of the files in a directory of a file system. shown is its name in errors.
func (all Catalog) add(files fs.FS, directory, shown string) error {
	var entries []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		some, err := fs.Glob(files, path.Join(directory, pattern))
		if err != nil {
			return fmt.Errorf("list the definitions in %s: %w", shown, err)
		}
		entries = append(entries, some...)
	}
	for _, entry := range entries {
		raw, err := fs.ReadFile(files, entry)
		if err != nil {
			return fmt.Errorf("read a definition: %w", err)
		}
		file := path.Join(shown, path.Base(entry))
		d, err := Parse(file, raw)
		if err != nil {
			return err
		}
		if all[d.Name] != nil {
			return fmt.Errorf("%s: the name %s is that of another definition", file, d.Name)
		}
		all[d.Name] = d
	}
	return nil
}

// Names returns the names of the definitions, sorted.
func (all Catalog) Names() []string { return slices.Sorted(maps.Keys(all)) }

// Example returns a block of a definition's settings for leaver.yaml, with comments.
func (d *Definition) Example() string {
	var b strings.Builder
	fmt.Fprintf(&b, "connectors:\n  - name: %s\n    type: %s # %s\n    tenants: [acme]\n", d.Name, d.Name, d.Title)
	for _, s := range d.Settings {
		value := s.Default
		switch {
		case s.Secret:
			value = "env:" + strings.ToUpper(strings.ReplaceAll(d.Name, "-", "_")+"_"+s.Name)
		case value == "" && s.Name == d.address():
			value = "https://example.com"
		case value == "":
			value = "…"
		}
		prefix := "    "
		if !s.Required {
			prefix = "    # "
		}
		fmt.Fprintf(&b, "%s%s: %q", prefix, s.Name, value)
		if s.Description != "" {
			fmt.Fprintf(&b, " # %s", s.Description)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
